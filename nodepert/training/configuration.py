"""JAX's configuration, where it decides the bits of a result: it is recorded, and compared.

The generator of random keys is pinned (registry/generator.py). Pinning the rest would take away what the user asked for
(64 bits, a debugger's eager steps). So the settings are part of the record of a result, and a result with other
settings is neither read back nor resumed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from enum import Enum
from typing import Any

import jax

from nodepert.errors import UserError

PRECISION, TF32 = "jax_default_matmul_precision", "NVIDIA_TF32_OVERRIDE"
SETTINGS: dict[str, Any] = {  # what changes bits, or which program is compiled, with the defaults
    "jax_enable_x64": False,
    PRECISION: None,
    TF32: None,  # a variable of the environment
    "jax_disable_jit": False,
    "jax_disable_most_optimizations": False,
    "jax_threefry_partitionable": True,
    "jax_random_seed_offset": 0,
    "jax_explicit_x64_dtypes": "warn",
    "jax_allow_f16_reductions": True,
    "jax_high_dynamic_range_gumbel": False,
    "jax_softmax_custom_jvp": False,
    "jax_embedded_constants_max_bytes": 32,
    "jax_scan3": False,
    "jax_remat3": False,
    "jax_custom_vjp3": False,
    "eager_constant_folding": False,
    "jax_threefry_gpu_kernel_lowering": False,
    "jax_compiler_enable_remat_pass": True,
    "jax_use_magma": "auto",
    "jax_bcoo_cusparse_lowering": False,
    "jax_ragged_dot_use_ragged_dot_instruction": True,
    "jax_ragged_dot_use_gpu_pallas_triton_lowering": False,
    "jax_optimization_level": "UNKNOWN",
    "jax_exec_time_optimization_effort": 0.0,
    "jax_memory_fitting_effort": 0.0,
    "jax_memory_fitting_level": "O2",
}
REFUSED = {
    "jax_numpy_rank_promotion": ("raise",),
    "jax_error_checking_behavior_nan": ("raise",),
    "jax_no_tracing": (True,),
    "jax_transfer_guard": ("disallow", "disallow_explicit"),
    "jax_transfer_guard_host_to_device": ("disallow", "disallow_explicit"),
    "jax_transfer_guard_device_to_host": ("disallow", "disallow_explicit"),
}
FLAGS = ("XLA_FLAGS", "LIBTPU_INIT_ARGS")  # of the environment, recorded but not compared: most change no bits


def settings() -> dict[str, Any]:
    """The settings that differ from the defaults, in this thread, and the flags that are set in the environment."""
    values = {name: _value(name, default) for name, default in SETTINGS.items()}
    flags = {name: value for name in FLAGS if (value := os.environ.get(name))}
    return {name: value for name, value in values.items() if value != SETTINGS[name]} | flags


def check_supported() -> None:
    """Raise UserError for a setting under which NodePert's own code, or optax, cannot be traced."""
    for name, values in REFUSED.items():
        if (value := _value(name, None)) in values:
            raise UserError(f"NodePert does not work with {name}={value}; unset {name.upper()}")


def check_settings(what: str, record: Mapping[str, Any], option: str) -> None:
    """Raise UserError if a saved result was computed with other settings than the current ones.

    Args:
        what: The result, as in "runs/default/5b0c995b590e".
        record: Its record, with `settings`; records of earlier versions have none, and are accepted.
        option: The option that saves a new result elsewhere, as in "--name".
    """
    then = record.get("settings")
    if not isinstance(then, dict):
        return
    now = settings()
    for name, default in SETTINGS.items():
        before, here = then.get(name, default), now.get(name, default)
        if _meaning(name, before) != _meaning(name, here):
            how = f"unset {name.upper()}" if before == default else f"set {name.upper()}={before}"
            raise UserError(f"{what} was computed with {name}={before}, and here it is {here}: {how} to use that "
                            f"result, or give another {option}")  # fmt: skip


def _meaning(name: str, value: Any) -> Any:
    """A setting, of a precision with several names ("highest" is "float32") the one behind them."""
    if name != PRECISION or value is None:
        return value
    try:
        return jax.lax.Precision(value).name
    except ValueError:  # an algorithm, such as F32_F32_F32
        return value


def _value(name: str, default: Any) -> Any:
    """A setting in this thread as a plain value; the default of one that this JAX does not have."""
    if name == TF32:
        return os.environ.get(name) or None
    value = getattr(jax.config, name, None) if hasattr(jax.config, name) else jax.config.values.get(name, default)
    return (value.name.lower() if isinstance(value.value, int) else value.value) if isinstance(value, Enum) else value
