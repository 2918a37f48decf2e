"""The whole idea in one file: nodes, error signals, and one local pullback shared by nearly every rule.

A model sends each learnable operation through a *node*, and the rule decides how a node is interpreted:

    def apply(params, x, node=plain):                     # the one forward definition of a model
        h = relu(node("fc0", dense, params["fc0"], x))    # h: presynaptic activity of the next node
        return node("out", dense, params["out"], h)

A rule finds one *error signal* per node and example, an estimate of dL_b/da_l (a_l: the pre-activation of node l),
and `pullback` turns the signals into a gradient. Everything is a pure function; examples are the leading axis of
every array, and a loss is always one number per example.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

try:
    from jax.extend.core import get_opaque_trace_state
except ImportError:  # jax 0.6.0
    from jax.core import get_opaque_trace_state as _opaque_trace_state

    get_opaque_trace_state = partial(_opaque_trace_state, "nodepert")

from nodepert.arguments import at_least, positive
from nodepert.noise import draw

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
    """What a step knows anyway: the clean per-example loss, (B,), and the clean outputs, (B, ...)."""

    loss: Array
    outputs: Array


class Rule(NamedTuple):
    """A learning rule: `init(key, params, x) -> state`, `grads(key, state, params, batch) -> (grads, state, Info)`.

    `grads` has the structure of `params` and estimates the gradient of the batch-mean loss; `batch` is (x, y).
    """

    init: Callable[[Key, Params, Array], Any]
    grads: Callable[[Key, Any, Params, tuple[Array, Array]], tuple[Params, Any, Info]]


def stateless(key: Key, params: Params, x: Array) -> tuple[()]:
    """`init` of a rule that keeps no state."""
    return ()


# ------------------------------------------------------------------------------------------- nodes


def plain(name: str, op: Op, params: Params, h: Array) -> Array:
    """The node of inference and of backpropagation: just the operation."""
    return op(params, h)


def adding(eps: Signals) -> Node:
    """A node handler that adds eps[name] to the pre-activation of every node."""
    return lambda name, op, params, h: op(params, h) + eps[name]


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


def node_shapes(model: Model, params: Params, x: Array) -> dict[str, jax.ShapeDtypeStruct]:
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


def detached(name: str, op: Op, params: Params, h: Array) -> Array:
    """A node whose presynaptic activity is a constant: no credit flows to the layers below."""
    return op(params, jax.lax.stop_gradient(h))


def pullback(model: Model, params: Params, x: Array, signals: Signals) -> Params:
    """Local weight gradients from error signals: sum_b signals_l[b] . da_l[b]/dtheta, presynaptic activity fixed.

    For a dense node that is sum_b s_b z_b^T: one weight-gradient contraction per node, however many draws went
    into the signals. With signals_l = dL/da_l it is exactly the gradient of L.
    """
    _, vjp = jax.vjp(lambda p: preactivations(model, p, x, detached), params)
    return vjp(signals)[0]


# ------------------------------------------------------------------------------------------ losses


def per_example(loss: Loss, outputs: Array, targets: Array) -> Array:
    """The loss of every example, (B,), in float32 or better. Raises ValueError for a loss of any other shape."""
    losses = loss(outputs if outputs.dtype == jnp.float64 else outputs.astype(jnp.float32), targets)
    if jnp.shape(losses) != outputs.shape[:1]:
        raise ValueError(
            f"a loss must return one number per example, shape {outputs.shape[:1]}; this one returned shape "
            f"{jnp.shape(losses)}. Average over outputs, not over the batch: `.mean(-1)`, not `.mean()`"
        )
    return losses


def expand(v: Array, like: Array) -> Array:
    """(B,) -> (B, 1, ..., 1), to multiply an array of `like`'s rank."""
    return v.reshape(v.shape + (1,) * (like.ndim - 1)).astype(like.dtype)


# ------------------------------------------------------------------------------------------- rules


def backprop(model: Model, loss: Loss) -> Rule:
    """The exact gradient of the batch-mean loss, by reverse-mode differentiation of loss and model."""

    def grads(key, state, params, batch):
        x, y = batch

        def mean_loss(params):
            outputs = model.apply(params, x)
            losses = per_example(loss, outputs, y)
            return losses.mean(), Info(losses, outputs)

        grads, info = jax.grad(mean_loss, has_aux=True)(params)
        return grads, state, info

    return Rule(stateless, grads)


def node_perturbation(
    model: Model,
    loss: Loss,
    *,
    sigma: float = 1e-3,
    samples: int = 1,
    noise: Literal["gaussian", "rademacher"] = "gaussian",
    difference: Literal["forward", "central", "jvp"] = "forward",
    sharing: Literal["example", "batch"] = "example",
) -> Rule:
    """Node perturbation: perturb all pre-activations at once and credit each example's own change of loss.

        s_l[b] = mean_k (dL_b^k / sigma) xi_l^k[b],    g_l = 1/B sum_b s_l[b] z_l[b]^T

    with a_l the pre-activation and z_l the presynaptic activity of node l, xi unit-variance noise on a_l, B the batch
    size, and dL_b/sigma by `difference`:

    - forward: (L_b(a + sigma xi) - L_b(a)) / sigma. One extra forward pass. Biased by O(sigma^2) at most; unbiased
      at any sigma for a quadratic loss on one linear layer.
    - central: (L_b(a + sigma xi) - L_b(a - sigma xi)) / (2 sigma). Two extra passes, O(sigma^2), smaller variance.
    - jvp: the exact directional derivative along xi (the "forward gradient" of activities): unbiased. It
      differentiates the loss; the other two never do.

    `sigma` is in units of the pre-activation. `samples` = K draws divide the variance by K; their signals are
    averaged before the one pullback. `sharing="batch"` uses one draw of the noise for all examples: still per-example
    differences, hence still unbiased, with larger variance. Variance grows with the total number of perturbed units.

    Raises ValueError for sigma not positive and finite, samples < 1, or a loss that is not per example.
    Sources: Werfel, Xie and Seung 2005; Hiratani et al. 2022 (one-sided); Ren et al. 2023 (jvp).
    """
    positive("sigma", sigma)
    at_least("samples", samples, 1)

    def grads(key, state, params, batch):
        x, y = batch
        outputs = model.apply(params, x)
        clean = per_example(loss, outputs, y)  # (B,)
        shapes = node_shapes(model, params, x)
        if sharing == "batch":
            shapes = {name: jax.ShapeDtypeStruct((1, *s.shape[1:]), s.dtype) for name, s in shapes.items()}

        def perturbed(eps):  # {node: (B, ...)} -> (B,)
            return per_example(loss, model.apply(params, x, adding(eps)), y)

        slope = directional(difference, perturbed, clean, shapes, sigma)

        def signals(key):
            xi = draw(key, shapes, noise)
            gain = slope(xi) / len(x)  # (B,)
            return {name: expand(gain, n) * n for name, n in xi.items()}

        averaged = mean_over(signals, key, samples, at_once=max(1, ROWS_AT_ONCE // len(x)))
        return pullback(model, params, x, averaged), state, Info(clean, outputs)

    return Rule(stateless, grads)


def directional(difference: str, f: Callable[[Signals], Array], clean: Array, shapes: Any, sigma: float):
    """The map xi -> d/ds f(s xi) at s = 0, (B,), exactly or by finite differences of step sigma; clean = f(0)."""

    def at(xi, scale):
        return f(jax.tree.map(lambda n: (scale * n).astype(n.dtype), xi))

    if difference == "jvp":
        return jax.linearize(f, jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes))[1]
    if difference == "central":
        return lambda xi: (at(xi, sigma) - at(xi, -sigma)) / (2 * sigma)
    return lambda xi: (at(xi, sigma) - clean) / sigma


ROWS_AT_ONCE = 16384  # draws x examples in one pass: bounds the memory of many draws


def mean_over(f: Callable[[Key], Signals], key: Key, samples: int, at_once: int) -> Signals:
    """The mean of f over independent keys, `at_once` in one pass; what f computes without its key is computed once."""
    if samples == 1:
        return f(key)
    keys = jax.random.split(key, samples)
    draws = jax.vmap(f)(keys) if samples <= at_once else jax.lax.map(f, keys, batch_size=at_once)
    return jax.tree.map(lambda s: s.mean(0), draws)
