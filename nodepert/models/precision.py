"""Low precision, around any network."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import jax

from nodepert.core import Model, Op, plain
from nodepert.models.layers import Affine
from nodepert.registry import make
from nodepert.registry.spec import Spec


def precision(
    input_shape: tuple[int, ...],
    classes: int,
    network: Spec,
    *,
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16",
) -> Model:
    """A network whose products are in low precision, as in precision(conv).

    What a node computes from is rounded to `dtype`: its presynaptic activity and its matrices or kernels. A product
    sums in float32 and rounds its result. All else is in float32: parameters, their gradients and updates, biases,
    pre-activations and noise, outputs, loss. bfloat16 has 8 bits of mantissa: a loss difference drowns in rounding
    where sigma is below about 1e-2, so that rules which need one want a larger sigma, or difference=jvp (`nodepert
    check` measures it).
    """
    model = make("network", network, input_shape, classes)

    def apply(params, x, node=plain):
        return model.apply(params, x, lambda name, op, params, h: node(name, rounded(op, dtype), params, h))

    return Model(model.init, apply)


def rounded(op: Op, dtype: str) -> Op:
    """The operator on rounded inputs. Vectors stay as they are: the gradient of a bias is a long sum."""

    def apply(params, h):
        low = jax.tree.map(lambda p: p.astype(dtype) if p.ndim > 1 else p, params)
        with jax.numpy_dtype_promotion("standard"):  # a bias in float32 is added to a product in `dtype`
            return op(low, h.astype(dtype)).astype(h.dtype)

    return replace(op, apply=apply) if isinstance(op, Affine) else apply
