"""Losses: (outputs, targets) -> one number per example, (B,). Never averaged over the batch.

Targets are class indices (B,), integers, or values shaped as the outputs (B, n).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from nodepert.core import Array, as_values


def mse(outputs: Array, targets: Array) -> Array:
    """Squared error of sigmoid(outputs) against the one-hot target: L_b = 1/n sum_i (sigmoid(o_bi) - y_bi)^2."""
    return linear_mse(jax.nn.sigmoid(outputs), targets)


def linear_mse(outputs: Array, targets: Array) -> Array:
    """Squared error of the outputs themselves: L_b = 1/n sum_i (o_bi - y_bi)^2."""
    return jnp.square(outputs - as_values(targets, outputs)).mean(-1)


def cross_entropy(outputs: Array, targets: Array) -> Array:
    """Softmax cross-entropy, in nats: L_b = -sum_i y_bi log softmax(o_b)_i."""
    surprise = jax.nn.logsumexp(outputs, axis=-1, keepdims=True) - outputs
    if jnp.issubdtype(targets.dtype, jnp.integer):  # not a product with one_hot: under vmap, for more than 32,768 rows,
        classes = jnp.arange(outputs.shape[-1], dtype=jnp.int32)  # jax 0.10 compiles that wrongly on CPU
        return jnp.where(targets.astype(jnp.int32)[..., None] == classes, surprise, 0).sum(-1)
    return (targets * surprise).sum(-1)
