"""What lies between the nodes of a network: activation functions, pooling, normalisation, skip connections.

Nothing there is learned, so its derivative is local: it needs no weights of other nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nodepert.contract.loops import at_step, get_opaque_trace_state, keep
from nodepert.core import Array, Model, Params, Signals, preactivations, recording
from nodepert.models.wiring import reached


class Between(NamedTuple):
    """A clean pass, cut at its nodes: their pre-activations a are fixed, and what follows from each is linearised."""

    a: Signals  # {node: (B, ...)}
    h: dict[str, Array]  # {node: presynaptic activity}, of the nodes that other nodes project to
    outputs: Array  # (B, ...)
    last: tuple[str, ...]  # nodes that reach the outputs and no other node
    forward: Callable[[Signals], tuple[dict[str, Array], Array]]  # changes of a -> changes of h and outputs
    back: Callable[[Mapping[str, Array], Array], Signals]  # errors of h (some of them) and outputs -> signals


def between(model: Model, params: Params, x: Array) -> Between:
    """Cut the clean pass of a network at its nodes. Raises ValueError as `recording`."""
    a = preactivations(model, params, x)

    def cut(eps: Signals) -> tuple[dict[str, Array], Array]:
        reached, trace = {}, get_opaque_trace_state()

        def node(name, op, params, h):
            keep(reached, name, h, trace)
            return at_step(a[name]) + at_step(eps[name])

        return reached, model.apply(params, x, recording({}, node))

    zeros = jax.tree.map(jnp.zeros_like, a)
    origins = sources(cut, zeros)
    hidden = {name for name, nodes in origins[0].items() if nodes}

    def between_nodes(eps: Signals) -> tuple[dict[str, Array], Array]:
        reached, outputs = cut(eps)
        return {name: h for name, h in reached.items() if name in hidden}, outputs

    (h, outputs), forward = jax.linearize(between_nodes, zeros)

    def back(errors: Mapping[str, Array], error: Array) -> Signals:
        def chosen(eps: Signals) -> tuple[dict[str, Array], Array]:
            changes, change = forward(eps)
            return {name: changes[name] for name in errors}, change

        (signals,) = jax.linear_transpose(chosen, zeros)((dict(errors), error))
        return signals

    inner = set().union(*origins[0].values())
    return Between(a, h, outputs, tuple(name for name in a if name not in inner), forward, back)


def sources(f: Callable[[Signals], Any], eps: Signals) -> Any:
    """{node} of `eps` on which each result of `f` depends, in the structure of its results."""
    closed, results = jax.make_jaxpr(f, return_shape=True)(eps)
    names = [frozenset([path[0].key]) for path, _ in jax.tree_util.tree_leaves_with_path(eps)]
    return jax.tree.unflatten(jax.tree.structure(results), reached(closed.jaxpr, names))


def active(cut: Between) -> Signals:
    """{node: 1 where a unit can change what follows, else 0}: not an inactive ReLU, or a position that pooling drops.

    A unit is active if the derivative of the next nodes' inputs is not zero, found by one pass back with generic errors
    (of which no sum cancels).
    """
    errors = {name: generic(h) for name, h in cut.h.items()}
    return jax.tree.map(lambda s: (s != 0).astype(s.dtype), cut.back(errors, generic(cut.outputs)))


def generic(like: Array) -> Array:
    """Fixed numbers in (1, 2), the same for every example."""
    numbers = 1 + np.random.default_rng(0).random(like.shape[1:], np.float32)
    return jnp.broadcast_to(jnp.asarray(numbers, like.dtype), like.shape)
