"""The whole idea in one file: nodes, error signals, and one local pullback shared by nearly every rule.

A model sends each learnable operation through a *node*, and the rule decides how a node is interpreted:

    def apply(params, x, node=plain):                     # the one forward definition of a model
        h = relu(node("fc0", dense, params["fc0"], x))    # h: presynaptic activity of the next node
        return node("out", dense, params["out"], h)

A rule finds one *error signal* per node and example, an estimate of dL_b/da_l (a_l: the pre-activation of node l),
and `pullback` turns the signals into a gradient. Everything is a pure function; examples are the leading axis of
every array, and a loss is always one number per example. The rules are in `rules/`; begin with `rules/node.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

try:
    from jax.extend.core import get_opaque_trace_state
except ImportError:  # jax 0.6.0
    from jax.core import get_opaque_trace_state as _opaque_trace_state

    get_opaque_trace_state = partial(_opaque_trace_state, "nodepert")

Array: TypeAlias = jax.Array
Key: TypeAlias = jax.Array  # of jax.random.key
Params: TypeAlias = Any  # a pytree of arrays, keyed by node
Op = Callable[[Params, Array], Array]  # (params, h: (B, ...)) -> a: (B, ...)
Node = Callable[[str, Op, Params, Array], Array]
Loss = Callable[[Array, Array], Array]  # (outputs, targets) -> (B,)
Signals = dict[str, Array]  # node name -> (B, ...), shaped as its pre-activation


class Model(NamedTuple):
    """A network: `init(key) -> params` and `apply(params, x, node=plain) -> outputs`, x: (B, ...)."""

    init: Callable[[Key], Params]
    apply: Callable[..., Array]


class Info(NamedTuple):
    """What a step knows anyway: per-example loss, (B,), and outputs, (B, ...), of its clean pass (the noisy one if it
    has no other)."""

    loss: Array
    outputs: Array


class Rule(NamedTuple):
    """A learning rule: `init(key, params, x) -> state`, `grads(key, state, params, batch) -> (grads, state, Info)`.

    `grads` has the structure of `params` and estimates the gradient of the batch-mean loss; `batch` is (x, y).

    A rule that adds parameters to the network it is given (decorrelate) has `model`, of an input batch x: the network
    that it trains; and `optimizer`, which wraps a run's optimizer so that what it adds goes its own way.
    """

    init: Callable[[Key, Params, Array], Any]
    grads: Callable[[Key, Any, Params, tuple[Array, Array]], tuple[Params, Any, Info]]
    model: Callable[[Array], Model] | None = None
    optimizer: Callable[[Any], Any] = lambda optimizer: optimizer


def stateless(key: Key, params: Params, x: Array) -> tuple[()]:
    """`init` of a rule that keeps no state."""
    return ()


# ------------------------------------------------------------------------------------------- nodes


def plain(name: str, op: Op, params: Params, h: Array) -> Array:
    """The node of inference and of backpropagation: just the operation."""
    return op(params, h)


def adding(eps: Signals) -> Node:
    """A node handler that adds eps[name] to the pre-activation of every node named in `eps`."""
    return lambda name, op, params, h: op(params, h) + eps[name] if name in eps else op(params, h)


def recording(record: dict[str, Array], inner: Node = plain) -> Node:
    """A node handler that writes every pre-activation into `record`, and guards what such a side effect needs.

    Raises ValueError for two nodes of one name, and for a node called under a transformation inside the model:
    values written there would be stale, and gradients silently wrong.
    """
    trace = get_opaque_trace_state()

    def node(name: str, op: Op, params: Params, h: Array) -> Array:
        if get_opaque_trace_state() != trace:
            raise ValueError(
                f"node '{name}' is called under jit, scan, vmap, grad or checkpoint inside the model; "
                "call nodes directly in `apply` (a Python loop over layers), and transform from outside"
            )
        if name in record:
            raise ValueError(f"two nodes are named '{name}'; every node of a model needs a name of its own")
        record[name] = inner(name, op, params, h)
        return record[name]

    return node


def preactivations(model: Model, params: Params, x: Array, inner: Node = plain) -> Signals:
    """All pre-activations {node: (B, ...)} of one forward pass through handler `inner`."""
    record: Signals = {}
    model.apply(params, x, recording(record, inner))
    return record


def node_shapes(model: Model, params: Params, x: Array | jax.ShapeDtypeStruct) -> dict[str, jax.ShapeDtypeStruct]:
    """Shape and dtype of every node's pre-activation, without computing anything.

    Raises ValueError for a model without nodes, and for a node whose leading axis is not the batch.
    """
    shapes = jax.eval_shape(lambda p, x: preactivations(model, p, x), params, x)
    if not shapes:
        raise ValueError("this model has no nodes; call each operation as node(name, operation, params[name], h)")
    for name, shape in shapes.items():
        if shape.shape[:1] != x.shape[:1]:
            raise ValueError(f"node '{name}' has shape {shape.shape}; its first axis must be the {len(x)} examples")
    return shapes


def node_params(model: Model, params: Params, x: Array) -> dict[str, Params]:
    """{node: the part of `params` that the model gives it}; of any pytree shaped as params, gradients too.

    The map is linear, so that its transpose brings what was found node by node back into the shape of `params`.
    """
    parts: dict[str, Params] = {}

    def node(name, op, params, h):
        parts[name] = params
        return op(params, h)

    model.apply(params, x, recording({}, node))
    return parts


def detached(inner: Node = plain) -> Node:
    """A node handler for which presynaptic activity is a constant: no credit flows to the layers below."""
    return lambda name, op, params, h: inner(name, op, params, jax.lax.stop_gradient(h))


def pullback(model: Model, params: Params, x: Array, signals: Signals, inner: Node = plain) -> Params:
    """Local weight gradients from error signals: sum_b signals_l[b] . da_l[b]/dtheta, presynaptic activity fixed.

    For a dense node that is sum_b s_b z_b^T: one weight-gradient contraction per node, however many draws went
    into the signals. With signals_l = dL/da_l it is exactly the gradient of L. z_b is the presynaptic activity of the
    pass through handler `inner`. Raises ValueError for a signal that is not shaped as its node's pre-activation.
    """
    a, vjp = jax.vjp(lambda p: preactivations(model, p, x, detached(inner)), params)
    for name in {**a, **signals}:
        due, got = (f"{t[name].dtype}{list(t[name].shape)}" if name in t else "nothing" for t in (a, signals))
        if due != got:
            raise ValueError(f"the error signal of node '{name}' must be like its pre-activation, {due}; it is {got}")
    return vjp(signals)[0]


def restricted(model: Model, names: Collection[str]) -> Model:
    """The same network where only these nodes can be perturbed, credited or learned; the others are fixed parts."""

    def apply(params, x, node=plain):
        def chosen(name, op, params, h):
            return node(name, op, params, h) if name in names else op(jax.lax.stop_gradient(params), h)

        return model.apply(params, x, chosen)

    return model._replace(apply=apply)


# ------------------------------------------------------------------------------------------ losses


def per_example(loss: Loss, outputs: Array, targets: Array) -> Array:
    """The loss of every example, (B,), in float32 or better. Raises ValueError for a loss of any other shape."""
    losses = loss(outputs if outputs.dtype == jnp.float64 else outputs.astype(jnp.float32), targets)
    if losses is None or callable(losses):
        raise ValueError(f"a loss must return one number per example; this one returned {type(losses).__name__}")
    losses = jnp.asarray(losses)
    if jnp.shape(losses) != outputs.shape[:1]:
        raise ValueError(
            f"a loss must return one number per example, shape {outputs.shape[:1]}; this one returned shape "
            f"{jnp.shape(losses)}. Average over outputs, not over the batch: `.mean(-1)`, not `.mean()`"
        )
    if not jnp.issubdtype(losses.dtype, jnp.floating):
        raise ValueError(f"a loss must be a real number per example; this one returned {losses.dtype}")
    return losses


def as_values(targets: Array, outputs: Array) -> Array:
    """Class indices as one-hot rows; values as they are."""
    if jnp.issubdtype(targets.dtype, jnp.integer):
        return jax.nn.one_hot(targets, outputs.shape[-1], dtype=outputs.dtype)
    return targets


def expand(v: Array, like: Array) -> Array:
    """(B,) -> (B, 1, ..., 1), to multiply an array of `like`'s rank."""
    return v.reshape(v.shape + (1,) * (like.ndim - 1)).astype(like.dtype)


# ------------------------------------------------------------------------------------------- rules


def differentiate(model: Model, loss: Loss, params: Params, batch: tuple[Array, Array], node: Node = plain):
    """(gradient of the batch-mean loss, Info) by reverse-mode differentiation of the pass through handler `node`."""
    x, y = batch

    def mean_loss(params):
        outputs = model.apply(params, x, node)
        losses = per_example(loss, outputs, y)
        return losses.mean(), Info(losses, outputs)

    return jax.grad(mean_loss, has_aux=True)(params)


def backprop(model: Model, loss: Loss) -> Rule:
    """Backpropagation: the exact gradient, by reverse-mode differentiation of loss and model.

        g_l = 1/B sum_b delta_l[b] z_l[b]^T,    delta_l[b] = dL_b/da_l = f'(a_l) W_{l+1}^T delta_{l+1}[b]

    Cost: 3 (a forward pass, a backward pass, the weight gradients).
    Bias: exact.
    Derivative of the loss: needed.

    Source: Rumelhart, Hinton and Williams 1986.
    """

    def grads(key, state, params, batch):
        grads, info = differentiate(model, loss, params, batch)
        return grads, state, info

    return Rule(stateless, grads)
