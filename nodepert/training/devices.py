"""The devices that compute: how JAX is started, and what memory they have."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from nodepert.errors import UserError, refuse_fork
from nodepert.training import configuration

CORES = 16


def cores_apart(replicas: int) -> None:
    """One CPU device for each core, up to `CORES`, so that as many replicas train side by side: two replicas on a core
    each are faster than one after another on two cores. Does nothing once JAX computes, or where its settings give
    the number of CPU devices."""
    flags, number = os.environ.get("XLA_FLAGS", ""), os.environ.get("JAX_NUM_CPU_DEVICES")
    configured = getattr(jax.config, "jax_num_cpu_devices", -1)
    if replicas == 1 or number or configured > 0 or "xla_force_host_platform_device_count" in flags:
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # of this job
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", min(replicas, cores, CORES))


def start(replicas: int = 1) -> None:
    """Start JAX, with CPU devices for so many replicas.

    Raises UserError where it finds no device, in a process forked from one that has started it, and for a setting that
    NodePert does not support.
    """
    refuse_fork()
    cores_apart(replicas)
    configuration.check_supported()
    if found := trouble():
        raise UserError("; ".join(found))


def trouble() -> tuple[str, str] | None:
    """Why JAX does not start, and what to do about it; None where it starts."""
    try:
        jax.devices()
        return None
    except (RuntimeError, AssertionError) as error:  # an assertion without a message where there is no device
        why = " ".join(str(error).partition("(set JAX_PLATFORMS")[0].split())
        asked = getattr(jax.config, "jax_platforms", None)
    if asked:
        return (f"JAX finds no device for JAX_PLATFORMS={asked}{f': {why}' if why else ''}",
                "unset JAX_PLATFORMS to use any device, or set it to cpu")  # fmt: skip
    return f"JAX cannot start{f': {why}' if why else ''}", "install it again: pip install --force-reinstall jax jaxlib"


def device_name() -> str:
    """The device that computes, as records name it: "cpu (cpu)"."""
    return f"{jax.default_backend()} ({jax.devices()[0].device_kind})"


def eager() -> bool:
    """Whether JAX executes step by step, for a debugger: JAX_DISABLE_JIT=1 or jax.disable_jit()."""
    return bool(getattr(jax.config, "jax_disable_jit", False))


@functools.cache
def compiler_options() -> dict[str, str]:
    """Options of XLA for a training step, for `jax.jit(..., compiler_options=...)`.

    On CPU, where XLA knows the option, one matrix product at a time goes to its library YNN. By default a whole noisy
    pass, whose activity nobody asks for, becomes one call, and is then up to ten times slower (benchmarks/README.md).
    """
    options = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}
    if jax.default_backend() != "cpu":
        return {}
    try:
        jax.jit(lambda: 0.0, compiler_options=options).lower().compile()
    except Exception:  # another version of XLA: no such option, or no such value
        return {}
    return options


def memory_needed(compiled: Any, beside: int = 0) -> tuple[int, int]:
    """Bytes that a compiled program needs on each device, by XLA's analysis, with what is there `beside` it: of
    arguments, results and temporaries, and of temporaries alone."""
    found = compiled.memory_analysis() if isinstance(compiled, jax.stages.Compiled) else None
    if not found:
        return 0, 0
    parts = found.argument_size_in_bytes, found.output_size_in_bytes, found.temp_size_in_bytes
    return sum(parts) - found.alias_size_in_bytes + beside, found.temp_size_in_bytes


def trim() -> None:
    """Return to the system what compilers have freed; the C library of Linux keeps it, 0.1 GB."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def memory_free(job: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that are free on one device now; on CPU, of this machine's or this job's memory for each of its devices."""
    device = jax.local_devices()[0]
    if stats := device.memory_stats():
        return stats["bytes_limit"] - stats["bytes_in_use"]
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError, IndexError):  # Linux: what is available, not what is unused
        free = min(free, 1024 * int(Path("/proc/meminfo").read_text().split("MemAvailable:")[1].split()[0]))
    with contextlib.suppress(OSError, ValueError, IndexError):  # a limit on this job, as Slurm and containers set it
        limit, used = (int((job / f"memory.{name}").read_text()) for name in ("max", "current"))
        cached = int((job / "memory.stat").read_text().split("inactive_file ")[1].split()[0])  # given back when asked
        free = min(free, limit - used + cached)
    return free // jax.local_device_count()


def memory_total(job: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes of one device, free or not; on CPU, of this machine or this job."""
    if stats := jax.local_devices()[0].memory_stats():
        return stats["bytes_limit"]
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):
        total = min(total, int((job / "memory.max").read_text()))
    return total


@contextlib.contextmanager
def one_line_if_full(needed: int = 0) -> Iterator[None]:
    """Turn XLA's error that memory is exhausted into a UserError, which names the bytes that the program needs."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error) and "Out of memory" not in str(error):
            raise
        raise full(needed) from error


def full(needed: int = 0) -> UserError:
    """The error for a program that needs more bytes than there are, if it is known how many."""
    size = f"training needs {needed / 1e9:,.2g} GB, and " * bool(needed)
    return UserError(f"{size}memory is exhausted; use a smaller network, batchsize, or number of classes")
