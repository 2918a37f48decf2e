"""Which parts of a loss answer for the noise of a node: all of them, those that follow in time, or its own.

A loss may have a part for each time step, (B, T), or for each patch and group of a network, (B, S...); the loss of an
example is their sum. A node with pre-activations (B, T, ..., n) shares these axes with the loss; noise at step t is
credited by c_t, and E c_t xi_t = d(c_t)/d(a_t) shows what each choice estimates:

    trial    c_t = sum over all t' of dL_t'                        dL/da_t
    future   c_t = sum over t' >= t of gamma^(t' - t) dL_t'        dL/da_t of a causal network (gamma = 1), less noise
    own      c_t = dL_t                                            dL_t/da_t: lacks what a_t does to other parts
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import jax
import jax.numpy as jnp

from nodepert.core import Array
from nodepert.errors import UserError

Credit = Callable[[Array, Any], Array]  # (change of the loss in parts (B, S...), noise (B, S'..., n)) -> (B, S'...)


def trial() -> Credit:
    """Every part of an example's loss answers for all of its noise.

    Bias: unbiased, whatever the network.
    """
    return lambda change, noise: total(change)


def total(parts: Array) -> Array:
    """The sum of the parts of each example's loss, (B,)."""
    return parts.sum(tuple(range(1, parts.ndim)))


def future(*, gamma: float = 1.0) -> Credit:
    """The parts at the same time step and later answer for the noise of a step; in other nodes, all parts.

    Bias: unbiased for a causal network; biased unless gamma=1.

    Args:
        gamma: Discount of each further step, in [0, 1]; below 1 biased where an activity matters for long.

    Raises:
        UserError: gamma is not in [0, 1].

    References:
        Williams 1992 (reward to go).
    """
    if isinstance(gamma, int | float) and not 0 <= gamma <= 1:
        raise UserError(f"gamma must be in [0, 1]; got {gamma}")

    def credit(change: Array, noise: Any) -> Array:
        if not shared_axes(change, noise):
            return total(change)
        steps = jnp.moveaxis(change.sum(tuple(range(2, change.ndim))), 1, 0)  # (T, B)
        if isinstance(gamma, int | float) and gamma == 1:
            return jax.lax.cumsum(steps, 0, reverse=True).T

        def later(after: Array, step: Array) -> tuple[Array, Array]:
            total = step + gamma * after
            return total, total

        return jax.lax.scan(later, jnp.zeros_like(steps[0]), steps, reverse=True)[1].T

    return credit


def own() -> Credit:
    """The part at the same place answers alone.

    Bias: biased, except where parts do not interact, as patches.
    """

    def credit(change: Array, noise: Any) -> Array:
        return change.sum(tuple(range(1 + shared_axes(change, noise), change.ndim)))

    return credit


def shared_axes(change: Any, noise: Any) -> int:
    """How many axes after the first a node has in common with the parts of the loss, beside one for its units."""
    most = min(change.ndim - 1, noise.ndim - 2)
    equal = [change.shape[1 + i] == noise.shape[1 + i] for i in range(most)]
    return [*equal, False].index(False)


def rows(a: Array, axes: int = 0) -> Array:
    """(B, S..., ...) -> (B S..., units), with S... this many axes."""
    return a.reshape(prod(a.shape[: 1 + axes]), -1)


def in_the_parts(product: Array, change: Array) -> Array:
    """What the units of a node, (B, S'..., n), contribute to each part of the loss, (B, S...), evenly where a part is
    not theirs alone; its sum is that of the product."""
    axes = shared_axes(change, product)
    own = product.sum(tuple(range(1 + axes, product.ndim)))
    rest = change.shape[1 + axes :]
    return jnp.broadcast_to((own / prod(rest)).reshape(own.shape + (1,) * len(rest)), own.shape + rest)
