"""Any Equinox network as a model, unmodified, although its code is written for one example (see per_example.py)."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from nodepert.core import Model, Params, plain
from nodepert.errors import UserError
from nodepert.models.adapters.nodes import MIXES, Calls, build, bypasses, fresh, needed, one_array
from nodepert.models.adapters.per_example import Run, holds_parameters, is_parameter, stand_in


def from_equinox(module: Any) -> Model:
    """A model from an `equinox.Module` that is written for one example, every layer that owns arrays a node.

    module: an instance, where you would call `jax.vmap(module)(x)`; or a function `key -> module` (a class that takes
    only a key will do). A node is one call of a module that owns floating-point arrays itself, such as Linear, Conv2d,
    LayerNorm, PReLU or your own; it has the module's path as its name, "layers.0", and the second call of one module is
    "layers.0:1". A layer under `jax.vmap(layer)(h)` inside the network is one node, (B, positions, ...).

    params: {path of layer: the layer with everything but its floating-point arrays removed}; `with_params` puts them
    back. `init(key)` draws them anew from a function; an instance's present weights it returns whatever the key.
    Integer arrays are constant, as they were when adapted (from a function: with key 0). Dropout is put into
    inference mode.

    Raises UserError where Equinox is missing, and for what per-example credit cannot do: batch norm and other stateful
    layers, arrays that do not pass through a layer of their own, layers called under jit, scan, grad or checkpoint
    inside the module, and layers of several inputs or outputs.
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
        return eqx.nn.inference_mode(made)

    template = make(jax.random.key(0))
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

        outputs = jax.vmap(one)(x, np.arange(len(x)))
        run.finish()
        return one_array("the network", outputs)

    return Model(init, apply)


def with_params(module: Any, params: Params) -> Any:
    """An Equinox module with the arrays of `params`, as of `from_equinox(module)` and training: the trained module."""
    eqx = needed("equinox", "with_params")
    found, tree = layers(eqx, module)
    return jax.tree.unflatten(tree, [eqx.combine(params[name], part) if name else part for name, part in found])


def layers(eqx: Any, module: Any) -> tuple[list[tuple[str, Any]], Any]:
    """The module flattened down to its layers: [(name, layer) or ("", anything else)], and the tree around them.

    Raises UserError for parameters beside parameterised sub-modules.
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
    """A path of pytree keys as Python writes it, without brackets: layers.0.weight"""
    return ".".join(str(getattr(k, "name", getattr(k, "idx", getattr(k, "key", k)))) for k in path)


def refuse_state(eqx: Any, module: Any) -> None:
    """Raises UserError for batch norm, other layers with state, and weights that are shared by reference."""
    nn = eqx.nn

    def is_refused(part):
        stateful = isinstance(part, nn.StatefulLayer) and not isinstance(part, nn.Sequential)
        return stateful or isinstance(part, nn.StateIndex | nn.Shared)

    for path, part in jax.tree_util.tree_flatten_with_path(module, is_leaf=is_refused)[0]:
        name = f"layer '{dotted(path) or 'this module'}' ({type(part).__name__})"
        if isinstance(part, nn.BatchNorm):
            raise UserError(f"{name} {MIXES}")
        if isinstance(part, nn.Shared):
            raise UserError(f"{name} shares arrays between layers; that is not supported: call one layer twice instead")
        if is_refused(part):
            raise UserError(f"{name} keeps state; a model's outputs may depend on its parameters and inputs only")
