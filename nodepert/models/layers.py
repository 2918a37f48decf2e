"""The operators that networks put into nodes, and how their parameters start."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from math import prod

import jax
import jax.numpy as jnp

from nodepert.core import Array, Key, Params
from nodepert.models.convolution import convolve


def dense(params: Params, h: Array) -> Array:
    """a = h w + b; h: (B, m), w: (m, n), b: (n,) -> (B, n)."""
    return h @ params["w"] + params["b"]


@cache  # one operator per stride: a rule may recognise an operator by identity
def conv2d(stride: int = 1) -> Callable[[Params, Array], Array]:
    """Convolution, SAME padding; h: (B, H, W, m), w: (kh, kw, m, n), b: (n,) -> (B, ceil(H/s), ceil(W/s), n)."""

    def conv(params: Params, h: Array) -> Array:
        return convolve(h, params["w"], stride) + params["b"]

    return conv


def xavier(key: Key, shape: tuple[int, ...]) -> Params:
    """Xavier-normal weights, std sqrt(2 / (fan_in + fan_out)), and zero biases (Glorot and Bengio 2010).

    shape: (m, n) for dense, (kh, kw, m, n) for convolution, whose fans count the kernel's positions.
    """
    *window, m, n = shape
    std = (2.0 / (prod(window) * (m + n))) ** 0.5
    return {"w": std * jax.random.normal(key, shape), "b": jnp.zeros(n)}
