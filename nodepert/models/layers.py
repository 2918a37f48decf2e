"""The operators of nodes, and their initial parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from math import prod

import jax
import jax.numpy as jnp

from nodepert.core import Array, Key, Op, Params
from nodepert.models.convolution import convolve


@dataclass(frozen=True)
class Affine:
    """An operator a = z w + b on rows z of its input h; params: {"w": (*window, n), "b": (n,)}.

    It is called like any operator. `patches(h, window)` returns z, (B, ..., m), m the product of `window`. Methods that
    need z (low-rank weight noise, decorrelation) support operators of this class.
    """

    apply: Op
    patches: Callable[[Array, tuple[int, ...]], Array]

    def __call__(self, params: Params, h: Array) -> Array:
        return self.apply(params, h)


def _product(params: Params, h: Array) -> Array:
    return h @ params["w"] + params["b"]


dense = Affine(_product, lambda h, window: h)
"""a = h w + b; h: (B, m), w: (m, n), b: (n,) -> (B, n)."""


@cache  # one operator per stride
def conv2d(stride: int = 1) -> Affine:
    """Convolution, SAME padding; h: (B, H, W, m), w: (kh, kw, m, n), b: (n,) -> (B, ceil(H/s), ceil(W/s), n)."""

    def conv(params: Params, h: Array) -> Array:
        return convolve(h, params["w"], stride) + params["b"]

    return Affine(conv, partial(windows, stride=stride))


def windows(h: Array, window: tuple[int, ...], stride: int) -> Array:
    """The patches of a SAME convolution: (B, H, W, m) -> (B, ceil(H/s), ceil(W/s), kh kw m)."""
    kernel, padding = window[:2], [(0, 0)]
    for size, k in zip(h.shape[1:3], kernel, strict=True):
        total = max((-(-size // stride) - 1) * stride + k - size, 0)
        padding.append((total // 2, total - total // 2))
    height, width = ((-(-size // stride) - 1) * stride + 1 for size in h.shape[1:3])
    h = jnp.pad(h, [*padding, (0, 0)])
    parts = [h[:, i : i + height : stride, j : j + width : stride] for i in range(kernel[0]) for j in range(kernel[1])]
    return jnp.concatenate(parts, axis=-1)


def xavier(key: Key, shape: tuple[int, ...]) -> Params:
    """Xavier-normal weights, std sqrt(2 / (fan_in + fan_out)), and zero biases (Glorot and Bengio 2010).

    shape: (m, n) for dense; (kh, kw, m, n) for convolution, whose fans include the kernel's positions.
    """
    *window, m, n = shape
    std = (2.0 / (prod(window) * (m + n))) ** 0.5
    return {"w": std * jax.random.normal(key, shape), "b": jnp.zeros(n)}
