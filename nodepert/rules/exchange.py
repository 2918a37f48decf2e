"""Where losses under noise are measured: here, or each device its own examples, which then sends their losses alone.

Noise is drawn from keys that all devices have, so whoever knows the losses knows the update: nothing of the size of the
weights is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jax
import jax.numpy as jnp

from nodepert.core import Array

Measure = Callable[[Callable[[Any, Any], Array], Any, Any], Array]


def here(f: Callable[[Any, Any], Array], batch: Any, noise: Any) -> Array:
    """f(batch, noise) -> (B, ...), of all examples."""
    return f(batch, noise)


def over_devices(axis: str, size: int) -> Measure:
    """As `here`, inside `jax.shard_map`: each of `size` devices measures its share of the examples, and all gather."""

    def measure(f, batch, noise):
        examples = len(jax.tree.leaves(batch)[0])
        share = -(-examples // size)
        rows = (jax.lax.axis_index(axis) * share + jnp.arange(share)) % examples  # some twice where it does not divide

        def own(a):
            return a[rows] if len(a) == examples else a  # noise may be one draw for all examples

        found = f(*jax.tree.map(own, (batch, noise)))
        return jax.lax.all_gather(found, axis, tiled=True)[:examples]

    return measure


_how: ContextVar[Measure] = ContextVar("how", default=here)


@contextmanager
def measuring(how: Measure) -> Iterator[None]:
    """While it is traced, a computation measures like this."""
    token = _how.set(how)
    try:
        yield
    finally:
        _how.reset(token)


def measured(f: Callable[[Any, Any], Array], batch: Any, noise: Any) -> Array:
    """f(batch, noise), for f that gives something small for every example: its loss, or its outputs.

    Args:
        f: (batch, noise) -> (B, ...), each example on its own.
        batch: Arrays, (B, ...).
        noise: Arrays, (B, ...), or (1, ...) for what all examples share.
    """
    return _how.get()(f, batch, noise)


def measures(f: Callable[..., Any], *arguments: Any) -> bool:
    """Whether f(*arguments), which is traced, measures anything."""
    seen = []

    def noted(g, batch, noise):
        seen.append(g)
        return g(batch, noise)

    with measuring(noted):
        jax.eval_shape(f, *arguments)
    return bool(seen)
