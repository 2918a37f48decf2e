"""One step of an optax optimizer."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from nodepert.core import Params


def started(optimizer: optax.GradientTransformation, params: Params) -> Any:
    """The state of an optimizer before the first step."""
    return optimizer.init(widened(params))


def updated(
    optimizer: optax.GradientTransformation, grads: Params, state: Any, params: Params
) -> tuple[Params, Params, Any]:
    """(params after the step, their change, state of the optimizer).

    The optimizer computes in float32 or better, since the square of 1e-4 is 0 in float16. Parameters keep their dtype.
    optax mixes dtypes: under jax_numpy_dtype_promotion="strict" that is no error here, as it is in models and rules.
    """
    with jax.numpy_dtype_promotion("standard"):
        updates, state = optimizer.update(widened(grads), state, widened(params))
        return optax.apply_updates(params, updates), updates, state


def widened(tree: Any) -> Any:
    """A pytree with its arrays of less than 32 bits (float16, bfloat16) as float32."""

    def leaf(a):
        return a.astype(jnp.float32) if jnp.issubdtype(a.dtype, jnp.floating) and a.dtype.itemsize < 4 else a

    return jax.tree.map(leaf, tree)
