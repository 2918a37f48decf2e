"""Shared by networks in time: inputs as steps, and what is read out."""

from __future__ import annotations

from math import prod
from typing import Literal

import jax
import jax.numpy as jnp

from nodepert.core import Array, Params
from nodepert.errors import UserError

Readout = Literal["last", "every"]


def features(input_shape: tuple[int, ...], classes: int, tokens: bool) -> int:
    """Numbers per step of an input (T, ...). Raises UserError for tokens of another shape than (T,)."""
    if tokens and len(input_shape) != 1:
        raise UserError(f"tokens=True takes inputs (T,), whole numbers below {classes}; got {input_shape}")
    return classes if tokens else prod(input_shape[1:])


def steps(x: Array, classes: int, tokens: bool) -> Array:
    """Inputs as (B, T, n): tokens as one-hot vectors; otherwise the first axis is time, the others are one vector."""
    return jax.nn.one_hot(x.astype(jnp.int32), classes) if tokens else x.reshape(*x.shape[:2], -1)


def normal(key: Array, inputs: int, outputs: int, gain: float = 1.0) -> Params:
    """Weights of standard deviation gain / sqrt(inputs), and zero biases."""
    return {"w": gain / inputs**0.5 * jax.random.normal(key, (inputs, outputs)), "b": jnp.zeros(outputs)}
