"""One step of an optax optimizer."""

from __future__ import annotations

from typing import Any

import jax
import optax

from nodepert.core import Params


def updated(
    optimizer: optax.GradientTransformation, grads: Params, state: Any, params: Params
) -> tuple[Params, Params, Any]:
    """(params after the step, their change, state of the optimizer).

    optax mixes dtypes: under jax_numpy_dtype_promotion="strict" that is no error here, as it is in models and rules.
    """
    with jax.numpy_dtype_promotion("standard"):
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), updates, state
