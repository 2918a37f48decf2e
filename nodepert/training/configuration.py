"""JAX's configuration, where it decides the bits of a result: the generator is pinned, the rest is recorded.

`rules.noise.key_of` names the generator of NodePert's own keys; `pinned` does so for keys that user code makes. To pin
the rest would take away what the user asked for (64 bits, a debugger's eager steps), so that it is part of the record
of a result, and a result of other settings is neither read back nor resumed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from enum import Enum
from typing import Any

import jax

from nodepert.errors import UserError
from nodepert.rules.noise import GENERATOR

SETTINGS: dict[str, Any] = {  # what changes bits, with JAX's defaults
    "jax_enable_x64": False,
    "jax_default_matmul_precision": None,
    "jax_disable_jit": False,
    "jax_disable_most_optimizations": False,
    "jax_threefry_partitionable": True,
    "jax_random_seed_offset": 0,
    "jax_explicit_x64_dtypes": "warn",
    "jax_allow_f16_reductions": True,
    "jax_high_dynamic_range_gumbel": False,
    "jax_optimization_level": "UNKNOWN",
    "jax_exec_time_optimization_effort": 0.0,
    "jax_memory_fitting_effort": 0.0,
    "jax_memory_fitting_level": "O2",
}
REFUSED = {"jax_numpy_rank_promotion": "raise", "jax_error_checking_behavior_nan": "raise", "jax_no_tracing": True}
FLAGS = ("XLA_FLAGS", "LIBTPU_INIT_ARGS", "NVIDIA_TF32_OVERRIDE")  # recorded for information: most change no bits


def settings() -> dict[str, Any]:
    """The settings that differ from JAX's defaults, in this thread, and the flags of the environment that are set."""
    values = {name: _value(name, default) for name, default in SETTINGS.items()}
    flags = {name: value for name in FLAGS if (value := os.environ.get(name))}
    return {name: value for name, value in values.items() if value != SETTINGS[name]} | flags


def check_supported() -> None:
    """Raise UserError for a setting under which NodePert's own code, or optax, cannot be traced."""
    for name, value in REFUSED.items():
        if _value(name, None) == value:
            raise UserError(f"NodePert does not work with {name}={value}; unset {name.upper()}")


def check_settings(what: str, record: Mapping[str, Any], option: str) -> None:
    """Raise UserError where a saved result, which `what` names, is of other settings than those of now.

    Args:
        what: The result, as in "runs/default/5b0c995b590e".
        record: Its record, with `settings`; one of an earlier version does not say, and is accepted.
        option: The option by which a new result goes elsewhere, as in "--name".
    """
    then = record.get("settings")
    if not isinstance(then, dict):
        return
    now = settings()
    for name, default in SETTINGS.items():
        before, here = then.get(name, default), now.get(name, default)
        if before != here:
            how = f"unset {name.upper()}" if before == default else f"set {name.upper()}={before}"
            raise UserError(f"{what} was computed with {name}={before}, and here it is {here}: {how} to use that "
                            f"result, or give another {option}")  # fmt: skip


def pinned() -> AbstractContextManager[Any]:
    """Keys are of NodePert's generator, whatever jax_default_prng_impl is."""
    return jax.default_prng_impl(GENERATOR)


def _value(name: str, default: Any) -> Any:
    """A setting in this thread as a plain value; the default of one that this JAX does not have."""
    value = getattr(jax.config, name, None) if hasattr(jax.config, name) else jax.config.values.get(name, default)
    return (value.name.lower() if isinstance(value.value, int) else value.value) if isinstance(value, Enum) else value
