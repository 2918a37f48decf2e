"""flax.linen: every call of a module that owns parameters becomes a node, by method interception."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
from flax import errors
from flax import linen as nn
from flax.core import unfreeze

from nodepert.core import Model, plain
from nodepert.errors import UserError
from nodepert.models.adapters.nodes import (
    AVERAGES,
    MIXES,
    Calls,
    bypasses,
    example_batch,
    fresh,
    one_array,
    presynaptic,
    verify,
)
from nodepert.models.adapters.recurrent import recurrent
from nodepert.registry.generator import GENERATOR

Path = tuple[str, ...]
FIELDS = {field.name for field in dataclasses.fields(nn.LSTMCell)} - {"parent", "name"}
AVERAGED = "batch_stats"  # the collection of running averages, which may be read but not updated


def from_linen(module: nn.Module, example: Any, **kwargs: Any) -> Model:
    """A model from a linen module; see `nodepert.models.adapters.flax.from_flax`."""
    x = example_batch(example)
    module, bound = module.unbind() if module.scope else (module, None)
    variables, modules = survey(module, x, kwargs)
    refuse_state(variables)
    if bound:
        complete(bound, variables)
    params = variables.get("params", {})
    leaves = leaf_modules(params, modules)
    averages = {}  # of batch norm: constants
    if AVERAGED in variables:
        first = bound or module.init(jax.random.key(0, impl=GENERATOR), x, **kwargs)
        averages = {AVERAGED: fresh(first[AVERAGED])}

    def init(key):
        return fresh(bound["params"]) if bound else module.init(key, x, **kwargs)["params"]

    def apply(params, x, node=plain):
        interceptor = interception(leaves, params, Calls(node, x), type(module).__name__)
        with nn.intercept_methods(interceptor):
            return one_array("the network", module.apply({"params": params, **averages}, x, **kwargs))

    model = Model(init, apply, lambda params: {"params": params, **averages})
    verify(model, params, x)
    return model


def interception(leaves: set[Path], params: Any, calls: Calls, root: str) -> Any:
    """The interceptor of one forward pass: calls of `leaves` from outside go through a node."""
    inside = False  # inside a leaf, whose own methods and sub-modules are part of its operation
    above: Path = ()  # of the cell whose loop is running, apart from the network

    def enter(function, *args, **kwargs):
        nonlocal inside
        before, inside = inside, True
        try:
            return function(*args, **kwargs)
        finally:
            inside = before

    def over_time(path, name, rnn, inputs, *, init_key=None, **kwargs):
        place = (*path[: len(path) - len(rnn.path)], *rnn.cell.path)
        cell, held = rnn.cell.unbind()
        if type(cell) is nn.OptimizedLSTMCell:  # the same function, whose products are separate layers
            cell = nn.LSTMCell(**{n: v for n, v in vars(cell).items() if n in FIELDS}, parent=None)
        variables = {**held, "params": at(params, place)}

        def step(carry, x) -> Any:
            nonlocal above
            before, above = above, place
            try:
                return cell.apply(variables, carry, x)
            finally:
                above = before

        def start(shape):
            return cell.initialize_carry(jax.random.key(0) if init_key is None else init_key, shape)

        return recurrent(calls, name, rnn, step, start, inputs, **kwargs)

    def intercept(next_function, args, kwargs, context):
        module, method = context.module, context.method_name
        path = (*above, *module.path)
        name = "/".join(path) or root
        if inside:
            return next_function(*args, **kwargs)
        with explained(name):
            if isinstance(module, nn.RNN) and method == "__call__":
                return over_time(path, name, module, *args, **kwargs)
            if path not in leaves:
                return next_function(*args, **kwargs)
            if method == "setup":
                return enter(next_function, *args, **kwargs)
            h, others = presynaptic(name, args, kwargs)
            bare, held = module.unbind()
            averages = {AVERAGED: held[AVERAGED]} if AVERAGED in held else {}

            def op(own, h):
                out = enter(bare.apply, {"params": own, **averages}, h, *others, method=method, **kwargs)
                return one_array(f"layer '{name}'", out)

            return calls(f"{name}.{method}" if method != "__call__" else name, op, at(params, path), h)

    return intercept


@contextlib.contextmanager
def explained(name: str) -> Iterator[None]:
    """Errors of flax in a call of a layer, as a UserError with the reason."""
    try:
        yield
    except errors.InvalidRngError as error:
        raise UserError(
            f"layer '{name}' draws random numbers at every call (dropout?), so that a change in the loss would not "
            "be due to the perturbation; disable that, as in from_flax(module, example, deterministic=True) or "
            "train=False, whichever argument the module's call takes"
        ) from error
    except errors.ModifyScopeVariableError as error:
        raise UserError(f"layer '{name}' {MIXES}{AVERAGES}") from error
    except (errors.ScopeParamNotFoundError, errors.ScopeCollectionNotFound) as error:
        raise UserError(
            f"layer '{name}' uses parameters of another module, where no error signal reaches them; a layer must "
            "own all parameters that it uses"
        ) from error


def survey(module: nn.Module, x: jax.Array, kwargs: dict[str, Any]) -> tuple[Any, set[Path]]:
    """The shapes of all variables, and the paths of all modules."""
    modules: set[Path] = set()

    def note(next_function, args, kwargs, context):
        modules.add(context.module.path)
        return next_function(*args, **kwargs)

    with nn.intercept_methods(note):
        return jax.eval_shape(lambda key: module.init(key, x, **kwargs), jax.random.key(0)), modules


def refuse_state(variables: Any) -> None:
    """Raises UserError for a variable that is neither a parameter nor a running average."""
    for collection in variables:
        if collection in ("params", AVERAGED):
            continue
        path, _ = jax.tree_util.tree_flatten_with_path(variables[collection])[0][0]
        layer = "/".join(str(key.key) for key in path[:-1]) or "this module"
        raise UserError(
            f"layer '{layer}' has state in the collection '{collection}'; the outputs of a model must depend on its "
            "parameters and inputs only"
        )


def complete(bound: Any, variables: Any) -> None:
    """Raises UserError if a module is bound to variables that lack one of those that it uses, or have another shape."""
    held = {keys: jax.numpy.shape(leaf) for keys, leaf in jax.tree_util.tree_leaves_with_path(unfreeze(bound))}
    for keys, leaf in jax.tree_util.tree_leaves_with_path(variables):
        name = "/".join(str(getattr(key, "key", key)) for key in keys[1:])
        if held.get(keys) != leaf.shape:
            found = f"of shape {held[keys]}" if keys in held else "absent"
            raise UserError(
                f"this module is bound to variables in which '{name}' of the collection '{keys[0].key}' is {found}; it "
                f"must have shape {leaf.shape}. Bind all variables, as in module.bind(variables) with those of init or "
                "of training, or pass the module unbound"
            )


def leaf_modules(params: Any, modules: set[Path], path: Path = ()) -> set[Path]:
    """The paths of the modules that own parameters. Raises UserError if one has parameterised sub-modules too."""
    inner = {key for key in params if (*path, key) in modules}
    own = sorted(params.keys() - inner)
    if own and inner:
        raise bypasses("/".join([*path, own[0]]))
    return {path} if own else set().union(*(leaf_modules(params[key], modules, (*path, key)) for key in inner))


def at(params: Any, path: Path) -> Any:
    """The parameters of the module at a path."""
    for key in path:
        params = params[key]
    return params
