"""Low precision for any network."""

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
    """Compute a network's products in low precision, as in precision(conv).

    The inputs of every node are rounded to `dtype`: presynaptic activity, and matrices or kernels. A product sums in
    float32 and rounds its result. Everything else is float32: parameters, their gradients and updates, biases,
    pre-activations and noise, outputs, loss. bfloat16 has 8 bits of mantissa: for sigma below about 1e-2 rounding
    dominates a loss difference, so use a larger sigma or difference=jvp (`nodepert check` measures this).

    Args:
        input_shape: Shape of one input.
        classes: Number of outputs.
        network: The network.
        dtype: Type of the rounded inputs.

    Returns:
        The `Model`.

    Raises:
        UserError: The network cannot be built.

    Examples:
        >>> import nodepert as npt
        >>> model = npt.make_model("precision(fc(width=100))", (28, 28, 1), 10)
    """
    model = make("network", network, input_shape, classes)

    def apply(params, x, node=plain):
        return model.apply(params, x, lambda name, op, params, h: node(name, rounded(op, dtype), params, h))

    return model._replace(apply=apply)


def rounded(op: Op, dtype: str) -> Op:
    """The operator on rounded inputs. Vectors are not rounded: the gradient of a bias is a long sum."""

    def apply(params, h):
        low = jax.tree.map(lambda p: p.astype(dtype) if p.ndim > 1 else p, params)
        with jax.numpy_dtype_promotion("standard"):  # a bias in float32 is added to a product in `dtype`
            return op(low, h.astype(dtype)).astype(h.dtype)

    return replace(op, apply=apply) if isinstance(op, Affine) else apply
