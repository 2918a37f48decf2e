"""SAME convolution whose derivatives are fast inside a compiled loop on CPU.

XLA's CPU backend has a fast kernel for one layout of a convolution (NHWC with HWIO), and transposes others to it only
outside loops. Inside `lax.scan`, where training runs, JAX's own weight gradient takes the generic path and is about 60
times slower. Here both gradients are written in the fast layout. On other backends JAX's convolution is used.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from nodepert.core import Array


def convolve(h: Array, w: Array, stride: int = 1) -> Array:
    """h: (B, H, W, m), w: (kh, kw, m, n) -> (B, ceil(H/s), ceil(W/s), n), SAME padding."""
    return same_p.bind(h, w, stride=stride) if jax.default_backend() == "cpu" else _same(h, w, stride)


_convolution = partial(jax.lax.conv_general_dilated, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _same(h, w, stride):
    return _convolution(h, w, (stride, stride), "SAME")


def _margins(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """SAME padding before one axis, and the extent of the strided outputs."""
    outputs = -(-size // stride)
    return max((outputs - 1) * stride + kernel - size, 0) // 2, (outputs - 1) * stride + 1


def _input_gradient(g, h, w, *, stride):
    """Convolve the dilated output gradient with the kernel flipped, its channels exchanged."""
    padding = []
    for size, kernel in zip(h.aval.shape[1:3], w.shape[:2], strict=True):
        before, extent = _margins(size, kernel, stride)
        padding.append((kernel - 1 - before, size + before - extent))
    flipped = jnp.flip(w, (0, 1)).swapaxes(2, 3)
    return _convolution(g, flipped, (1, 1), padding, lhs_dilation=(stride, stride))


def _weight_gradient(g, h, w, *, stride):
    """Convolve the input with the dilated output gradient, summing over the batch."""
    padding = []
    for size, kernel in zip(h.shape[1:3], w.aval.shape[:2], strict=True):
        before, extent = _margins(size, kernel, stride)
        padding.append((before, kernel - 1 + extent - size - before))
    images, kernels = h.transpose(3, 1, 2, 0), g.transpose(1, 2, 0, 3)
    return _convolution(images, kernels, (1, 1), padding, rhs_dilation=(stride, stride)).transpose(1, 2, 0, 3)


def _batched(arguments, axes, *, stride):
    """Under vmap: a larger batch if only the input is batched, else JAX's convolution."""
    (h, w), (h_axis, w_axis) = arguments, axes
    if w_axis is not None:
        return jax.vmap(partial(_same, stride=stride), (h_axis, w_axis))(h, w), 0
    h = jnp.moveaxis(h, h_axis, 0)
    flat = same_p.bind(h.reshape(-1, *h.shape[2:]), w, stride=stride)
    return flat.reshape(*h.shape[:2], *flat.shape[1:]), 0


def _shape(h, w, *, stride):
    shape = jax.eval_shape(partial(_same, stride=stride), *(jax.ShapeDtypeStruct(a.shape, a.dtype) for a in (h, w)))
    return ShapedArray(shape.shape, shape.dtype)


same_p = Primitive("nodepert_same_convolution")
same_p.def_impl(jax.jit(_same, static_argnames="stride"))
same_p.def_abstract_eval(_shape)
mlir.register_lowering(same_p, mlir.lower_fun(_same, multiple_results=False))
ad.defbilinear(same_p, _input_gradient, _weight_gradient)
batching.primitive_batchers[same_p] = _batched
