"""The dependencies between the nodes of a model, found by tracing it once with its nodes cut out."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
from jax.extend.core import Literal

from nodepert.contract.loops import at_step, get_opaque_trace_state, keep
from nodepert.core import Array, Model, Params, node_shapes

INPUT = "x"  # stands for the model's input among the names of nodes


class Wiring(NamedTuple):
    """The dependencies of a model. Nodes are given by name; "x" is the model's input.

    inputs[node] contains the direct inputs of a node: the nodes whose pre-activation reaches its presynaptic activity
    without passing through another node. `bypassing` and `unused` are key-paths of parameter leaves, as in
    "['norm']['scale']". A leaf that bypasses the nodes affects the outputs but receives no error signal: rules that
    send signals to nodes do not train it.
    """

    order: tuple[str, ...]  # the nodes in the order of their calls
    inputs: dict[str, frozenset[str]]
    outputs: frozenset[str]  # direct inputs of the model's outputs
    bypassing: tuple[str, ...]  # leaves that reach a node's input or the outputs other than through a node
    unused: tuple[str, ...]  # leaves without any effect


def wiring(model: Model, params: Params, x: Array) -> Wiring:
    """The dependencies of a model; `params` and `x` may be shapes or traced values.

    Raises ValueError as `node_shapes` does: no nodes, two nodes of one name, a node under a transformation.
    """
    shapes = node_shapes(model, params, x)
    paths, tree = jax.tree_util.tree_flatten_with_path(params)
    leaves = [leaf for _, leaf in paths]
    order: dict[str, None] = {}

    def cut(x, leaves, a):  # every pre-activation is an argument: only direct inputs reach a node
        activity: dict[str, Any] = {}
        given: list[Any] = []
        trace = get_opaque_trace_state()

        def node(name, op, params, h):
            order.setdefault(name)
            keep(activity, name, h, trace)
            given.append(params)
            return at_step(a[name])

        outputs = model.apply(jax.tree.unflatten(tree, leaves), x, node)
        return [*(activity[name] for name in order), jax.tree.leaves(outputs), jax.tree.leaves(given)]

    closed, shape = jax.make_jaxpr(cut, return_shape=True)(x, leaves, shapes)
    inputs = [INPUT] * len(jax.tree.leaves(x))
    sources = [*inputs, *range(len(leaves)), *sorted(shapes)]  # in flattened order; a leaf is identified by its index
    found = iter(reached(closed.jaxpr, [frozenset([s]) for s in sources]))
    *activity, outputs, given = [frozenset().union(*(next(found) for _ in jax.tree.leaves(part))) for part in shape]
    around = outputs.union(*activity)

    def nodes(found: frozenset[Any]) -> frozenset[str]:
        return frozenset(s for s in found if isinstance(s, str))

    def keys(indices: Any) -> tuple[str, ...]:
        return tuple(jax.tree_util.keystr(paths[i][0]) for i in indices)

    return Wiring(
        tuple(order),
        {name: nodes(h) for name, h in zip(order, activity, strict=True)},
        nodes(outputs),
        keys(i for i in range(len(leaves)) if i in around),
        keys(i for i in range(len(leaves)) if i not in around | given),
    )


def reached(jaxpr: Any, sources: list[frozenset[Any]]) -> list[frozenset[Any]]:
    """The dependencies of every output of a jaxpr, given those of its arguments; constants have none."""
    known = dict(zip(jaxpr.invars, sources, strict=True))

    def of(v: Any) -> frozenset[Any]:
        return frozenset() if isinstance(v, Literal) else known.get(v, frozenset())

    for eqn in jaxpr.eqns:
        into = [of(v) for v in eqn.invars]
        if eqn.primitive.name in ("jit", "pjit"):  # jax.nn.relu, jnp.where, a helper function
            out = reached(eqn.params["jaxpr"].jaxpr, into)
        elif eqn.primitive.name == "scan":
            out = looped(eqn.params, into)
        else:  # an operation, a loop or another call: every input is assumed to reach every output
            out = [frozenset().union(*into)] * len(eqn.outvars)
        known.update(zip(eqn.outvars, out, strict=True))
    return [of(v) for v in jaxpr.outvars]


def looped(params: Any, sources: list[frozenset[Any]]) -> list[frozenset[Any]]:
    """The dependencies of what `jax.lax.scan` returns: what a step carries to the next may depend on all before."""
    start, stop = params["num_consts"], params["num_consts"] + params["num_carry"]
    while True:
        out = reached(params["jaxpr"].jaxpr, sources)
        carried = [a | b for a, b in zip(sources[start:stop], out, strict=False)]
        if carried == sources[start:stop]:
            return out
        sources = [*sources[:start], *carried, *sources[stop:]]
