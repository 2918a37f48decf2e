"""Equinox networks as models, unmodified, although their code is written for one example (see per_example.py)."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from nodepert.core import Model, Params, plain
from nodepert.errors import UserError
from nodepert.models.adapters.nodes import MIXES, Calls, build, bypasses, fresh, needed, one_array
from nodepert.models.adapters.per_example import Run, holds_parameters, is_parameter, stand_in
from nodepert.registry.generator import GENERATOR


def from_equinox(module: Any) -> Model:
    """Convert an `equinox.Module` written for one example; every layer that owns arrays becomes a node.

    A node is one call of a module that itself owns floating-point arrays, such as Linear, Conv2d, LayerNorm or PReLU.
    Its name is the module's path, "layers.0"; the second call of a module is "layers.0:1". A layer under
    `jax.vmap(layer)(h)` inside the network is one node, (B, positions, ...).

    Args:
        module: An instance, to be called as `jax.vmap(module)(x)`, or a function key -> module (such as a class that
            takes only a key). With an instance `init(key)` returns its weights, whatever the key; with a function it
            draws new ones. Integer arrays are constant (from a function: those of key 0). Dropout must be disabled, by
            `equinox.nn.inference_mode`.

    Returns:
        The `Model`; its params are {path of layer: the layer without everything but its floating-point arrays}, which
        `with_params` puts back into a module.

    Raises:
        UserError: Equinox is not installed, or per-example credit is impossible: batch norm and other stateful layers,
            active dropout, arrays used outside a layer of their own, layers called under jit, scan, grad or checkpoint
            inside the module, layers with several inputs or outputs; at the first training step, code that mixes the
            examples of a batch.

    Examples:
        >>> import equinox as eqx, jax, nodepert as npt
        >>> model = npt.from_equinox(lambda key: eqx.nn.MLP(4, 3, width_size=8, depth=1, key=key))
        >>> list(model.init(jax.random.key(0)))
        ['layers.0', 'layers.1']
    """
    eqx = needed("equinox", "from_equinox")
    given = isinstance(module, eqx.Module)
    if not given and not callable(module):
        raise UserError(
            f"from_equinox takes an equinox.Module or a function key -> module; got {type(module).__name__}"
        )

    def make(key):
        made = module if given else build(module, "key", key)
        if not isinstance(made, eqx.Module):
            raise UserError(
                f"from_equinox: this function must return an equinox.Module; it returned {type(made).__name__}"
            )
        return made

    template = make(jax.random.key(0, impl=GENERATOR))  # what is no parameter stays as it is here
    refuse_state(eqx, template)
    found, tree = layers(eqx, template)

    def weights(module):
        return {name: eqx.filter(layer, is_parameter) for name, layer in layers(eqx, module)[0] if name}

    def init(key):
        return fresh(weights(make(key)))

    def apply(params, x, node=plain):
        run = Run(Calls(node, x))
        parts = [stand_in(part, name, params[name], run) if name else part for name, part in found]
        network = jax.tree.unflatten(tree, parts)

        def one(x, index):
            run.index = index
            return network(x)

        try:
            outputs = jax.vmap(one)(x, np.arange(len(x)))
        except NameError as error:
            if "axis name" not in str(error):
                raise
            raise UserError(f"this module {MIXES} ({str(error).partition('. ')[0]})") from error
        run.finish()
        return one_array("the network", outputs)

    return Model(init, apply, lambda params: with_params(template, params))


def with_params(module: Any, params: Params) -> Any:
    """Put parameters of `from_equinox(module)` back into the module, as after training.

    Args:
        module: The Equinox module that was converted.
        params: Its parameters, {path of layer: arrays}.

    Returns:
        The module with these arrays.

    Raises:
        UserError: Equinox is not installed.

    Examples:
        >>> import equinox as eqx, jax, nodepert as npt
        >>> mlp = eqx.nn.MLP(4, 3, width_size=8, depth=1, key=jax.random.key(0))
        >>> params = npt.from_equinox(mlp).init(jax.random.key(1))
        >>> trained = npt.with_params(mlp, params)
    """
    eqx = needed("equinox", "with_params")
    found, tree = layers(eqx, module)
    return jax.tree.unflatten(tree, [eqx.combine(params[name], part) if name else part for name, part in found])


def layers(eqx: Any, module: Any) -> tuple[list[tuple[str, Any]], Any]:
    """The module flattened to its layers: [(name, layer) or ("", anything else)], and the tree around them.

    Raises UserError for a module with both parameters and parameterised sub-modules.
    """

    def held(part):  # by a module itself, with key-paths; sub-modules as they are
        inner = jax.tree_util.tree_flatten_with_path(part, lambda v: v is not part and isinstance(v, eqx.Module))
        return inner[0]

    def is_layer(part):
        return isinstance(part, eqx.Module) and any(is_parameter(v) for _, v in held(part))

    flat, tree = jax.tree_util.tree_flatten_with_path(module, is_leaf=is_layer)
    found = []
    for path, part in flat:
        if is_layer(part) and any(isinstance(v, eqx.Module) and holds_parameters(v) for _, v in held(part)):
            raise bypasses(dotted((*path, *next(inner for inner, v in held(part) if is_parameter(v)))))
        found.append((dotted(path) or type(part).__name__ if is_layer(part) else "", part))
    return found, tree


def dotted(path: tuple[Any, ...]) -> str:
    """A path of pytree keys with dots: layers.0.weight."""
    return ".".join(str(getattr(k, "name", getattr(k, "idx", getattr(k, "key", k)))) for k in path)


def refuse_state(eqx: Any, module: Any) -> None:
    """Raises UserError for batch norm, other stateful layers, active dropout, and weights shared by reference."""
    nn = eqx.nn

    def is_refused(part):
        stateful = isinstance(part, nn.StatefulLayer) and not isinstance(part, nn.Sequential)
        return stateful or isinstance(part, nn.StateIndex | nn.Shared | nn.Dropout)

    for path, part in jax.tree_util.tree_flatten_with_path(module, is_leaf=is_refused)[0]:
        name = f"layer '{dotted(path) or 'this module'}' ({type(part).__name__})"
        if isinstance(part, nn.BatchNorm):
            raise UserError(f"{name} {MIXES}")
        if isinstance(part, nn.Dropout):
            if part.inference or part.p == 0:
                continue
            raise UserError(
                f"{name} draws random numbers at every call, so that a change in the loss would not be due to the "
                "perturbation; disable that: from_equinox(equinox.nn.inference_mode(module))"
            )
        if isinstance(part, nn.Shared):
            raise UserError(
                f"{name} shares arrays between layers, which is not supported; call one layer twice instead"
            )
        if is_refused(part):
            raise UserError(f"{name} has state; the outputs of a model must depend on its parameters and inputs only")
