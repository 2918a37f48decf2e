"""XLA's persistent compilation cache, on by default: a program that was compiled before starts at once."""

from __future__ import annotations

import contextlib
import os
import platform
import warnings
import zlib
from pathlib import Path

import jax
import platformdirs

LARGEST = 2**30  # bytes; beyond this the least recently used programs are deleted


def keep_programs() -> Path | None:
    """Cache compiled programs in the user's cache folder; returns the folder, or None without a cache.

    A place chosen by JAX's own settings (JAX_COMPILATION_CACHE_DIR) stays, and JAX_ENABLE_COMPILATION_CACHE=false turns
    it off. Each kind of processor has a folder of its own: a cluster's machines may share one home folder.
    """
    if not jax.config.values["jax_enable_compilation_cache"]:
        return None
    # an entry that another process is writing is compiled again: nobody needs to know
    warnings.filterwarnings("ignore", r"Error (reading|writing) persistent compilation cache entry", UserWarning)
    if chosen := jax.config.values["jax_compilation_cache_dir"]:
        return Path(chosen)
    folder = Path(platformdirs.user_cache_dir("nodepert"), "xla", processor())
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    if not os.access(folder, os.W_OK):
        return None
    jax.config.update("jax_compilation_cache_max_size", LARGEST)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    return folder


def processor() -> str:
    """Eight hex digits that tell machines of different instruction sets apart."""
    words = platform.machine() + platform.processor()
    with contextlib.suppress(OSError):  # Linux
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
        words += " ".join(sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))}))
    return f"{zlib.crc32(words.encode()):08x}"
