"""flax.nnx: every call of a module that owns parameters becomes a node, by stand-ins in a copy of the network."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
from flax import nnx

from nodepert.core import Model, plain
from nodepert.errors import UserError
from nodepert.models.adapters.nodes import (
    AVERAGES,
    MIXES,
    Calls,
    StandIn,
    build,
    bypasses,
    example_batch,
    fresh,
    one_array,
    presynaptic,
    shape_of,
    verify,
)
from nodepert.models.adapters.recurrent import recurrent

Path = tuple[Any, ...]


class Layer(NamedTuple):
    """A module that owns parameters, split so that it can be rebuilt with other values."""

    name: str
    graphdef: Any
    constants: Any
    own: dict[Path, Path]  # path in the layer -> path in the whole network, of every parameter


def from_nnx(module: Any, example: Any = None, **kwargs: Any) -> Model:
    """A model from an nnx module or a function rngs -> module; see `nodepert.models.adapters.flax.from_flax`."""

    def make(rngs):
        made = build(module, "rngs", rngs)
        if not isinstance(made, nnx.Module):
            raise UserError(f"from_flax: this function must return an nnx module; it returned {type(made).__name__}")
        return made

    given = isinstance(module, nnx.Module)
    instance = module if given else make(nnx.Rngs(0))
    layers = survey(instance)
    graphdef, state, constants = nnx.split(instance, nnx.Param, ...)
    weights, constants = (
        nnx.to_pure_dict(state),
        nnx.to_pure_dict(constants),
    )  # merging a State would share its variables
    shapes = jax.tree.map(shape_of, weights)
    if not given:
        del weights, state

    def init(key):
        return fresh(weights) if given else nnx.to_pure_dict(nnx.state(make(nnx.Rngs(key)), nnx.Param))

    def apply(params, x, node=plain):
        copy = nnx.merge(graphdef, shapes, constants)  # one per call, for thread safety
        calls = Calls(node, x)
        parts = list(nnx.iter_graph(copy))
        stand_ins = {id(part): stand_in(part, layers[path], params, calls) for path, part in parts if path in layers}
        check = unchanged(copy)
        out = replace(copy, stand_ins, calls, set())(x, **kwargs)
        check()
        return one_array("the network", out)

    model = Model(init, apply, lambda params: nnx.merge(graphdef, fresh(params), fresh(constants)))
    if example is not None:
        verify(model, shapes, example_batch(example))
    return model


def survey(module: nnx.Module) -> dict[Path, Layer]:
    """All layers by path. Raises UserError for a module with both parameters and sub-modules that have some."""
    places = {id(part): path for path, part in nnx.iter_graph(module)}
    layers: dict[Path, Layer] = {}
    for path, part in nnx.iter_graph(module):
        if not isinstance(part, nnx.Pytree) or isinstance(part, nnx.List | nnx.Dict):
            continue
        held = list(holdings(part))
        own = [p for p in held if isinstance(p, nnx.Param)]
        if not own:
            continue
        if any(isinstance(p, nnx.Pytree) and parameters(p) for p in held):
            raise bypasses(dotted(places[id(own[0])], part))
        graphdef, _, constants = nnx.split(part, nnx.Param, ...)
        inner = {p: places[id(v)] for p, v in parameters(part).items()}
        layers[path] = Layer(dotted(path, part), graphdef, nnx.to_pure_dict(constants), inner)
    return layers


def holdings(module: Any) -> Iterator[Any]:
    """The variables and modules held by a module directly, or in lists and dictionaries."""
    for value in vars(module).values():
        for part in jax.tree.leaves(value, is_leaf=lambda v: isinstance(v, nnx.Variable | nnx.Pytree)):
            if isinstance(part, nnx.List | nnx.Dict):
                yield from holdings(part)
            else:
                yield part


def parameters(node: Any) -> dict[Path, Any]:
    """All nnx.Param of a module, by path."""
    return {path: part for path, part in nnx.iter_graph(node) if isinstance(part, nnx.Param)}


def stand_in(part: Any, layer: Layer, params: Any, calls: Calls) -> StandIn:
    """The stand-in of one layer in one forward pass."""

    def call(method, *args, **kwargs):
        h, others = presynaptic(layer.name, args, kwargs)

        def op(own, h):
            copy = nnx.merge(layer.graphdef, own, layer.constants)
            check = unchanged(copy, layer.name)
            out = getattr(copy, method)(h, *others, **kwargs)
            check()
            return one_array(f"layer '{layer.name}'", out)

        own = nest({path: at(params, place) for path, place in layer.own.items()})
        return calls(layer.name if method == "__call__" else f"{layer.name}.{method}", op, own, h)

    def holds_parameters(value):
        variable = (nnx.Variable, nnx.Pytree)
        return any(
            isinstance(v, nnx.Param) or (isinstance(v, nnx.Pytree) and bool(parameters(v)))
            for v in jax.tree.leaves(value, is_leaf=lambda v: isinstance(v, variable))
        )

    return StandIn(part, layer.name, call, holds_parameters)


def over_time(rnn: nnx.RNN, calls: Calls) -> StandIn:
    """The stand-in of a recurrent layer, whose cell consists of stand-ins."""

    def start(shape):
        return rnn.cell.initialize_carry(shape, nnx.Rngs(0))

    def call(method, inputs, *, rngs=None, **kwargs):
        return recurrent(calls, type(rnn).__name__, rnn, rnn.cell, start, inputs, **kwargs)

    return StandIn(rnn, type(rnn).__name__, call, lambda value: False)


def replace(value: Any, stand_ins: dict[int, StandIn], calls: Calls, seen: set[int]) -> Any:
    """`value` with its layers replaced by stand-ins, at any depth; modules are changed in place."""
    if id(value) in stand_ins:
        return stand_ins[id(value)]
    if isinstance(value, nnx.Pytree) and id(value) not in seen:
        seen.add(id(value))
        for name, held in vars(value).items():
            vars(value)[name] = replace(held, stand_ins, calls, seen)  # setattr refuses a value that is not a module
        if isinstance(value, nnx.RNN):
            stand_ins[id(value)] = over_time(value, calls)
            return stand_ins[id(value)]
    elif isinstance(value, tuple | list | dict):
        return jax.tree.map(lambda v: replace(v, stand_ins, calls, seen), value, is_leaf=lambda v: v is not value)
    return value


def unchanged(module: Any, name: str = "") -> Any:
    """A function that raises UserError if a variable of the module has changed since this call."""
    before = [(path, v, raw(v)) for path, v in nnx.iter_graph(module) if isinstance(v, nnx.Variable)]

    def check():
        for path, variable, value in before:
            if raw(variable) is value or isinstance(variable, nnx.Intermediate):
                continue
            *layer, last = [*([name] if name else []), *map(str, path)]
            if isinstance(variable, nnx.BatchStat):
                raise UserError(f"layer '{'.'.join(layer) or type(module).__name__}' {MIXES}{AVERAGES}")
            place = ".".join([*layer, last])
            if isinstance(variable, nnx.RngState):
                raise UserError(
                    f"'{place}' draws random numbers at every call (dropout?), so that a change in the loss would not "
                    "be due to the perturbation; call module.eval() first, or disable that, as in from_flax(module, "
                    "deterministic=True)"
                )
            raise UserError(
                f"'{place}' is state that a call changes; outputs must depend on parameters and inputs only"
            )

    return check


def raw(variable: Any) -> Any:
    """The value itself, not a copy (flax 0.12.0 has no method for this)."""
    return variable.get_raw_value() if hasattr(type(variable), "get_raw_value") else variable.raw_value


def dotted(path: Path, part: Any) -> str:
    return ".".join(map(str, path)) or type(part).__name__


def at(tree: Any, path: Path) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def nest(flat: dict[Path, Any]) -> dict[Any, Any]:
    """{("a", "b"): v} -> {"a": {"b": v}}"""
    tree: dict[Any, Any] = {}
    for path, value in flat.items():
        inner = tree
        for key in path[:-1]:
            inner = inner.setdefault(key, {})
        inner[path[-1]] = value
    return tree
