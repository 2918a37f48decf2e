"""The main idea in one file: nodes, error signals, and one local pullback shared by nearly every rule.

A model calls each learnable operation through a *node*, and the rule decides how a node is interpreted:

    def apply(params, x, node=plain):                     # the one forward definition of a model
        h = relu(node("fc0", dense, params["fc0"], x))    # h: presynaptic activity of the next node
        return node("out", dense, params["out"], h)

A rule computes one *error signal* per node and example, an estimate of dL_b/da_l (a_l: the pre-activation of node l),
and `pullback` turns the signals into a gradient. All functions are pure; examples are the leading axis of every array,
and a loss is one number per example, or one per output of each example, (B, T), as for time steps. The rules are in
`rules/`; start with `rules/node.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax

from nodepert.contract.loops import at_step, get_opaque_trace_state, keep
from nodepert.contract.losses import as_values as as_values
from nodepert.contract.losses import in_parts as in_parts
from nodepert.contract.losses import per_example as per_example

Array: TypeAlias = jax.Array
Key: TypeAlias = jax.Array  # of jax.random.key
Params: TypeAlias = Any  # a pytree of arrays, keyed by node
Op = Callable[[Params, Array], Array]  # (params, h: (B, ...)) -> a: (B, ...)
Node = Callable[[str, Op, Params, Array], Array]
Loss = Callable[[Array, Array], Array]  # (outputs, targets) -> (B,), or the parts of each example's loss, (B, ...)
Signals = dict[str, Array]  # node name -> (B, ...), shaped as its pre-activation


class Model(NamedTuple):
    """A network, as a pair of pure functions.

    Every learnable operation is a call node(name, op, params[name], h) inside `apply`, and every learnable leaf enters
    through one. Examples never mix: no batch norm.
    """

    init: Callable[[Key], Params]  # (key) -> params, a pytree keyed by node
    apply: Callable[..., Array]  # (params, x, node=plain) -> outputs; x: (B, ...)
    module: Callable[[Params], Any] | None = None  # (params) -> the Flax or Equinox object with them


class Info(NamedTuple):
    """By-products of a step's clean pass (or of the noisy one if it has no other): loss (B,), outputs (B, ...)."""

    loss: Array
    outputs: Array


class Rule(NamedTuple):
    """A learning rule, as a pair of pure functions.

    The gradients estimate those of the batch-mean loss and have the structure of `params`, ready for optax. State is
    what is needed to learn; what is needed to predict belongs in `params`. A rule that adds parameters to the network
    (decorrelate) has `model(x)`, the network that it trains, for an input batch x; and `optimizer(optimizer)`, which
    wraps a run's optimizer to update the parameters that it adds.
    """

    init: Callable[[Key, Params, Array], Any]  # (key, params, x) -> state
    grads: Callable[[Key, Any, Params, tuple[Array, Array]], tuple[Params, Any, Info]]  # (key, state, params, (x, y))
    model: Callable[[Array], Model] | None = None
    optimizer: Callable[[Any], Any] = lambda optimizer: optimizer


def stateless(key: Key, params: Params, x: Array) -> tuple[()]:
    """The `init` of a rule without state."""
    return ()


def plain(name: str, op: Op, params: Params, h: Array) -> Array:
    """The node handler of inference and backpropagation: the operation itself; h: (B, ...) -> (B, ...)."""
    return op(params, h)


def adding(eps: Signals) -> Node:
    """A node handler that adds eps[name] to the pre-activation of every node named in `eps`."""
    return lambda name, op, params, h: op(params, h) + at_step(eps[name]) if name in eps else op(params, h)


def recording(record: dict[str, Array], inner: Node = plain) -> Node:
    """A node handler that writes every pre-activation into `record`; of nodes inside `npt.scan`, (B, T, ...).

    Raises ValueError for two nodes of one name, and for a node called under a transformation inside the model, where
    a value written by a side effect would be stale and gradients silently wrong.
    """
    trace = get_opaque_trace_state()

    def node(name: str, op: Op, params: Params, h: Array) -> Array:
        a = inner(name, op, params, h)
        keep(record, name, a, trace)
        return a

    return node


def preactivations(model: Model, params: Params, x: Array, inner: Node = plain) -> Signals:
    """All pre-activations, {node: (B, ...)}, of one forward pass through the handler `inner`."""
    record: Signals = {}
    model.apply(params, x, recording(record, inner))
    return record


def node_shapes(model: Model, params: Params, x: Array | jax.ShapeDtypeStruct) -> dict[str, jax.ShapeDtypeStruct]:
    """Shape and dtype of every node's pre-activation. Raises ValueError if a model has no nodes, or a node no batch."""
    shapes = jax.eval_shape(lambda p, x: preactivations(model, p, x), params, x)
    if not shapes:
        raise ValueError("this model has no nodes; call each operation as node(name, operation, params[name], h)")
    for name, shape in shapes.items():
        if shape.shape[:1] != (batchsize(x),):
            raise ValueError(
                f"node '{name}' has shape {shape.shape}; its first axis must be the {batchsize(x)} examples"
            )
    return shapes


def batchsize(x: Any) -> int:
    """The number of examples of a batch of inputs: of an array, (B, ...), or of the first one in a pytree."""
    return next(leaf.shape[0] for leaf in jax.tree.leaves(x) if getattr(leaf, "shape", ()))


def node_params(model: Model, params: Params, x: Array) -> dict[str, Params]:
    """{node: the part of `params` that the model passes to it}; a linear map, whose transpose puts gradients that were
    computed node by node into the structure of `params`."""
    parts: dict[str, Params] = {}

    def node(name, op, params, h):
        parts[name] = params
        return op(params, h)

    model.apply(params, x, recording({}, node))
    return parts


def detached(inner: Node = plain) -> Node:
    """A node handler that treats presynaptic activity as constant: no credit flows to the layers below."""
    return lambda name, op, params, h: inner(name, op, params, jax.lax.stop_gradient(h))


def pullback(model: Model, params: Params, x: Array, signals: Signals, inner: Node = plain) -> Params:
    """Compute local weight gradients from error signals, with presynaptic activity held fixed.

        g_l = sum_b s_l[b] . da_l[b]/dtheta_l,    for a dense node    sum_b s_l[b] z_l[b]^T

    One contraction per node, however many draws were averaged in s_l. With s_l = dL/da_l, g_l is the gradient of L.

    Args:
        model: The network.
        params: Its parameters.
        x: Inputs, (B, ...).
        signals: {node: error signal}, shaped as the pre-activations; divide by B for the gradient of the mean loss.
        inner: Node handler of the forward pass that gives z.

    Returns:
        Gradients with the structure of `params`.

    Raises:
        ValueError: A signal is missing, or differs from its node's pre-activation in shape or dtype.

    Examples:
        >>> import jax, nodepert as npt
        >>> model, x = npt.make_model("fc(depth=0)", (4,), 3), jax.numpy.ones((5, 4))
        >>> grads = npt.pullback(model, model.init(jax.random.key(0)), x, {"out": jax.numpy.ones((5, 3))})
    """
    a, vjp = jax.vjp(lambda p: preactivations(model, p, x, detached(inner)), params)
    for name in {**a, **signals}:
        expected, got = (f"{t[name].dtype}{list(t[name].shape)}" if name in t else "nothing" for t in (a, signals))
        if expected != got:
            raise ValueError(f"the error signal of node '{name}' must be {expected}, as its pre-activation; got {got}")
    return vjp(signals)[0]


def expand(v: Array, like: Array) -> Array:
    """(B,) -> (B, 1, ..., 1), to multiply an array of `like`'s rank; (B, T) -> (B, T, 1, ..., 1)."""
    return v.reshape(v.shape + (1,) * (like.ndim - v.ndim)).astype(like.dtype)


def differentiate(model: Model, loss: Loss, params: Params, batch: tuple[Array, Array], node: Node = plain):
    """(gradient of the batch-mean loss, Info), by reverse-mode differentiation through the handler `node`."""
    x, y = batch

    def mean_loss(params):
        outputs = model.apply(params, x, node)
        losses = per_example(loss, outputs, y)
        return losses.mean(), Info(losses, outputs)

    return jax.grad(mean_loss, has_aux=True)(params)


def backprop(model: Model, loss: Loss) -> Rule:
    """Backpropagation: the exact gradient, by reverse-mode differentiation of loss and model.

        g_l = 1/B sum_b delta_l[b] z_l[b]^T,    delta_l[b] = dL_b/da_l = f'(a_l) W_{l+1}^T delta_{l+1}[b]

    Cost: a forward pass, a backward pass, the weight gradients.
    Bias: exact.
    Derivative of the loss: needed.

    Args:
        model: The network to train.
        loss: (outputs, targets) -> losses, (B,).

    Returns:
        The `Rule`, without state.

    Raises:
        ValueError: At the first step, the loss is not per example.

    Examples:
        >>> import nodepert as npt
        >>> rule = npt.backprop(npt.make_model("fc(width=20)", (4,), 3), npt.make_loss("mse"))

    References:
        Rumelhart, Hinton and Williams 1986.
    """

    def grads(key, state, params, batch):
        grads, info = differentiate(model, loss, params, batch)
        return grads, state, info

    return Rule(stateless, grads)
