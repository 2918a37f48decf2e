"""Nodes for a network written for one example: the network runs under `vmap`, its nodes outside.

A stand-in calls its layer through `custom_vmap`, whose rule receives the whole batch outside that `vmap`, where the
node is called. A layer under a further `vmap` inside the network (over positions, heads or units) passes through one
rule after the other, the innermost first.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap

from nodepert.core import Array, Params, get_opaque_trace_state
from nodepert.errors import UserError
from nodepert.models.adapters.nodes import HIDDEN, Calls, StandIn, one_array, presynaptic


def is_parameter(leaf: Any) -> bool:
    """Whether a leaf of a module is learnable, as for `equinox.is_inexact_array`."""
    return isinstance(leaf, jax.Array | np.ndarray) and bool(jnp.issubdtype(leaf.dtype, jnp.inexact))


def holds_parameters(value: Any) -> bool:
    return any(map(is_parameter, jax.tree.leaves(value)))


class Run:
    """One forward pass."""

    def __init__(self, calls: Calls):
        self.calls = calls
        self.index: Any = None  # of the example: batched even if a layer's input is not
        self.pending: list[str] = []  # layers called, but not yet as a node

    def finish(self) -> None:
        """Raises UserError for a layer that did not become a node."""
        if self.pending:
            raise UserError(f"layer '{self.pending[0]}' is called under jit, scan, cond, grad or checkpoint {HIDDEN}")


class Holes(NamedTuple):
    """A pytree without its arrays; `fill` inserts them."""

    leaves: list[Any]
    places: list[int]
    tree: Any

    @classmethod
    def of(cls, tree: Any) -> tuple[list[Any], Holes]:
        leaves, treedef = jax.tree.flatten(tree)
        places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, jax.Array | np.ndarray)]
        return [leaves[i] for i in places], cls(leaves, places, treedef)

    def fill(self, arrays: list[Any]) -> Any:
        leaves = list(self.leaves)
        for i, array in zip(self.places, arrays, strict=True):
            leaves[i] = array
        return jax.tree.unflatten(self.tree, leaves)


class Layer:
    """One layer in one forward pass; its arrays are separate, as the network may slice or vmap them."""

    def __init__(self, module: Any, name: str, own: Params, run: Run):
        self.module, self.name, self.run = module, name, run
        self.tree = jax.tree.structure(own)
        self.arrays, self.holes = Holes.of(module)
        self.learned = [is_parameter(array) for array in self.arrays]
        self.arrays = self.merge(own, self.arrays)

    def merge(self, own: Params, arrays: list[Any]) -> list[Any]:
        """`arrays`, with parameters replaced by those in `own`."""
        values = iter(jax.tree.leaves(own))
        return [next(values) if learned else a for a, learned in zip(arrays, self.learned, strict=True)]

    def call(self, arrays: list[Any], method: str, *args: Any, **kwargs: Any) -> Array:
        """A call of the layer by the network, for one example or a part of one."""
        name = self.name if method == "__call__" else f"{self.name}.{method}"
        h, others = presynaptic(name, args, kwargs)
        extra, holes = Holes.of((others, kwargs))

        def op(arrays, extra, h):
            others, kwargs = holes.fill(extra)
            return one_array(f"layer '{name}'", getattr(self.holes.fill(arrays), method)(h, *others, **kwargs))

        self.run.pending.append(name)
        return self.outwards(name, op, arrays, extra, h)

    def outwards(self, name: str, op: Callable[..., Array], arrays: list[Any], extra: list[Any], h: Array) -> Array:
        """op(arrays, extra, h) as a node, called outside every vmap."""
        if get_opaque_trace_state() == self.run.calls.trace:
            self.run.pending.remove(name)
            own = jax.tree.unflatten(self.tree, [a for a, learned in zip(arrays, self.learned, strict=True) if learned])
            return self.run.calls(name, lambda own, h: op(self.merge(own, arrays), extra, h), own, h)

        @custom_vmap
        def inner(arrays, extra, h, index):
            return op(arrays, extra, h)

        @inner.def_vmap
        def _(size, batched, arrays, extra, h, index):
            h = h if batched[2] else jnp.broadcast_to(h, (size, *h.shape))
            axes = jax.tree.map(lambda b: 0 if b else None, (batched[0], batched[1]))
            return self.outwards(name, jax.vmap(op, (*axes, 0)), arrays, extra, h), True

        return inner(arrays, extra, h, self.run.index)


@jax.tree_util.register_pytree_node_class
class Part(StandIn):
    """The stand-in of a layer: a pytree of the layer's arrays."""

    def __init__(self, layer: Layer, arrays: list[Any]):
        self._node_of, self._node_arrays = layer, arrays
        super().__init__(layer.module, layer.name, partial(layer.call, arrays), holds_parameters)

    def tree_flatten(self):
        return (self._node_arrays,), self._node_of

    @classmethod
    def tree_unflatten(cls, layer: Layer, children: Any) -> Part:
        return cls(layer, *children)


def stand_in(module: Any, name: str, own: Params, run: Run) -> Part:
    layer = Layer(module, name, own, run)
    return Part(layer, layer.arrays)
