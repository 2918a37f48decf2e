"""Shared by the adapters: a call of a layer becomes a node, and networks that would get wrong credit are refused."""

from __future__ import annotations

import importlib
import inspect
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nodepert.contract.loops import get_opaque_trace_state, reached, scan
from nodepert.contract.mixing import check_network
from nodepert.core import Array, Model, Node, Op, Params
from nodepert.errors import UserError
from nodepert.models.wiring import wiring

MIXES = "mixes the examples of a batch: per-example credit would be wrong; use LayerNorm or GroupNorm, or none"
RECIPE = "a model with npt.scan (documentation, 'Your own model')"
HIDDEN = (
    "inside the network, where no error signal reaches it; use a Python loop over plain layers, for time steps the RNN "
    f"of flax or {RECIPE}, and transform the whole model"
)
AVERAGES = ", or batch norm on its running averages (use_running_average=True)"


class Calls:
    """The calls of layers in one forward pass, each of them a node."""

    def __init__(self, node: Node, x: Array):
        self.node, self.size = node, len(x)
        self.trace = get_opaque_trace_state()
        self.count: Counter[str] = Counter()

    def __call__(self, name: str, op: Op, own: Params, h: Array) -> Array:
        """The pre-activation of a call. The second call of a layer (shared weights) is the node "name:1".

        Raises UserError for a call under a transformation inside the network, and for h without a batch axis.
        """
        if not reached(self.trace):
            raise UserError(f"layer '{name}' is called under jit, scan, vmap, grad or checkpoint (remat) {HIDDEN}")
        if h.shape[:1] != (self.size,):
            raise UserError(
                f"the input of layer '{name}' has shape {h.shape}; its first axis must be the {self.size} examples"
            )
        call = self.count[name]
        self.count[name] += 1
        return self.node(f"{name}:{call}" if call else name, op, own, h)

    def scan(self, step: Callable[[Any, Any], tuple[Any, Any]], carry: Any, xs: Any) -> tuple[Any, Any]:
        """`npt.scan` over a step (carry, x_t) -> (carry, y_t) that calls layers: at each step the same nodes."""
        before = self.count

        def once(node: Node, carry: Any, x: Any) -> tuple[Any, Any]:
            self.count = before.copy()
            return step(carry, x)

        return scan(once, self.node, carry, xs)


def presynaptic(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Array, tuple[Any, ...]]:
    """The input of a layer, and its other positional arguments. Raises UserError for several inputs or none."""
    h, *others = args or (None,)
    if not isinstance(h, jax.Array | np.ndarray):
        raise UserError(f"layer '{name}' must be called with one array, its input, as the first positional argument")
    if any(
        isinstance(v, jax.Array) and jnp.issubdtype(v.dtype, jnp.inexact) for v in jax.tree.leaves((others, kwargs))
    ):
        raise UserError(f"layer '{name}' is called with several arrays of activity; a node has one input. For a "
                        f"recurrent cell, join them in {RECIPE}")  # fmt: skip
    return jnp.asarray(h), tuple(others)


def one_array(what: str, value: Any) -> Array:
    """`value`. Raises UserError if it is not an array."""
    if not isinstance(value, jax.Array):
        raise UserError(f"{what} returns {type(value).__name__}; it must return one array, (B, ...)")
    return value


def bypasses(parameter: str) -> UserError:
    """The error for a parameter that is used outside a layer of its own."""
    return UserError(
        f"parameter '{parameter}' is used outside a layer of its own, where no error signal reaches it and its "
        "gradient would silently be zero; move it, with the operation that uses it, into a module without sub-modules"
    )


def example_batch(example: Any) -> Array:
    """One example, (1, ...): the first of a batch, or zeros of the given shape. Raises UserError for anything else."""
    if isinstance(example, tuple | list) and all(isinstance(n, int) for n in example):
        return jnp.zeros((1, *example))
    if not (hasattr(example, "dtype") and getattr(example, "shape", ())):
        raise UserError(
            "from_flax needs an example, which determines the parameters' shapes: a batch of inputs, (B, ...), or the "
            f"shape of one input, as in (28, 28, 1); got {type(example).__name__}"
        )
    if isinstance(example, jax.ShapeDtypeStruct):
        return jnp.zeros((1, *example.shape[1:]), example.dtype)
    return jnp.asarray(example[:1])


def verify(model: Model, params: Params, x: Array) -> None:
    """Trace the model for two batch sizes, and test that it keeps examples apart.

    Raises UserError if a node has no batch axis, a parameter no node, or if examples mix.
    """
    for size in (2, 3):  # another axis than the batch has the same length in both
        try:
            found = wiring(model, params, jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype))  # pyright: ignore[reportArgumentType]
        except UserError:
            raise
        except ValueError as error:
            raise UserError(f"this network cannot be adapted: {error}") from error
        if found.bypassing:
            raise bypasses(found.bypassing[0])
    try:
        check_network(model, x)
    except ValueError as error:
        raise UserError(str(error)) from error


def needed(library: str, by: str) -> Any:
    """Import an optional library. Raises UserError if it is not installed."""
    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise UserError(f"{by} needs {library}: pip install 'nodepert[{library}]'") from error


def build(factory: Callable[..., Any], argument: str, value: Any) -> Any:
    """Call a factory with its one argument: by name if it has that name, else by position."""
    signed = factory.__init__ if isinstance(factory, type) else factory  # a metaclass may hide a class's signature
    named = argument in inspect.signature(signed).parameters
    return factory(**{argument: value}) if named else factory(value)


def fresh(params: Params) -> Params:
    """A copy, so that a training step that donates its buffers does not destroy the user's module."""
    return jax.tree.map(jnp.array, params)


def shape_of(array: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(array.shape, array.dtype)


class StandIn:
    """Replaces a layer in a copy of the network: has its attributes and type, but forwards every call.

    Its parameters cannot be read, since used outside the layer's call they would bypass the node.
    """

    def __init__(
        self,
        layer: Any,
        name: str,
        call: Callable[..., Array],  # (method, *args, **kwargs)
        holds_parameters: Callable[[Any], bool],
    ):
        self._node_layer, self._node_name = layer, name
        self._node_call, self._node_holds_parameters = call, holds_parameters

    def __call__(self, *args: Any, **kwargs: Any) -> Array:
        return self._node_call("__call__", *args, **kwargs)

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("_node_"):  # read before __init__, by copy or pickle
            raise AttributeError(attribute)
        value = getattr(self._node_layer, attribute)
        if callable(getattr(type(self._node_layer), attribute, None)):
            return partial(self._node_call, attribute)
        if self._node_holds_parameters(value):
            raise bypasses(f"{self._node_name}.{attribute}")
        return value

    @property
    def __class__(self) -> type:  # for isinstance(layer, nnx.Conv) in the network
        return type(self._node_layer)
