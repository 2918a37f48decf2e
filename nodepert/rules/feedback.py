"""Feedback rules: errors travel back, but not through the transposed forward weights."""

from __future__ import annotations

from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp

from nodepert.core import (
    Array,
    Info,
    Key,
    Loss,
    Model,
    Node,
    Op,
    Params,
    Rule,
    as_values,
    differentiate,
    node_params,
    per_example,
    pullback,
    recording,
    stateless,
)
from nodepert.registry.ranges import fraction, positive


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def swapped(op: Op, params: Params, feedback: Params, h: Array) -> Array:
    """op(params, h), whose derivative with respect to h is that of op(feedback, h)."""
    return op(params, h)


def _forward(op, params, feedback, h):
    return op(params, h), (params, feedback, h)


def _backward(op, residual, g):
    params, feedback, h = residual
    (to_params,) = jax.vjp(lambda p: op(p, h), params)[1](g)
    (to_h,) = jax.vjp(lambda h: op(feedback, h), h)[1](g)
    return to_params, jax.tree.map(jnp.zeros_like, feedback), to_h


swapped.defvjp(_forward, _backward)


def through(feedback: dict[str, Params]) -> Node:
    """A node handler whose errors travel back through these weights, {node: params}."""
    return lambda name, op, params, h: swapped(op, params, feedback[name], h)


def random_like(key: Key, params: Params, scale: float) -> Params:
    """Normal feedback weights, each leaf with `scale` times the standard deviation of the forward one.

    A leaf of equal values (the zeros of a bias, the ones of a normalisation) is taken over as it is.
    """
    leaves, structure = jax.tree.flatten(params)
    drawn = []
    for i, leaf in enumerate(leaves):
        spread = leaf.std()
        normal = jax.random.normal(jax.random.fold_in(key, i), leaf.shape, leaf.dtype)
        drawn.append(jnp.where(spread > 0, scale * spread * normal, leaf).astype(leaf.dtype))
    return jax.tree.unflatten(structure, drawn)


def feedback_alignment(model: Model, loss: Loss, *, scale: float = 1.0, seed: int = 0) -> Rule:
    """Feedback alignment, FA: backpropagation with fixed random weights B in place of W on the way back.

        delta_l[b] = f'(a_l) B_{l+1}^T delta_{l+1}[b],    g_l = 1/B sum_b delta_l[b] z_l[b]^T

    For any operator, convolution too: the derivative with respect to its input is taken at parameters B.

    Cost: 3 (a forward pass, a backward pass, the weight gradients).
    Bias: biased, but for the output node; forward weights come to align with B, and the update with the gradient.
    Derivative of the loss: needed.

    State: B, shaped as `params`, normal with `scale` times the standard deviation of the initial W (leaf by leaf;
    what is constant at the start, as zero biases, is taken over). `seed` draws another B for the same run seed.
    With B = W it is backpropagation. Raises ValueError for scale not positive and finite.

    Source: Lillicrap, Cownden, Tweed and Akerman 2016.
    """
    positive("scale", scale)

    def init(key, params, x):
        return random_like(jax.random.fold_in(key, seed), params, scale)

    def grads(key, feedback, params, batch):
        back = node_params(model, feedback, batch[0])
        grads, info = differentiate(model, loss, params, batch, through(back))
        return grads, feedback, info

    return Rule(init, grads)


def sign_symmetry(model: Model, loss: Loss, *, scale: float = 0.05) -> Rule:
    """Uniform sign-symmetric feedback, uSF: backpropagation through the signs of the forward weights.

        delta_l[b] = f'(a_l) B_{l+1}^T delta_{l+1}[b],    B = scale sign(W),    g_l = 1/B sum_b delta_l[b] z_l[b]^T

    Cost: 3 (a forward pass, a backward pass, the weight gradients).
    Bias: biased, but for the output node; well aligned with the gradient.
    Derivative of the loss: needed.

    `scale` is the size of every feedback weight; near the standard deviation of W (0.05 suits layers of 500) errors
    keep the size that they have in backpropagation. The paper normalises errors batch-wise instead.
    Raises ValueError for scale not positive and finite.

    Source: Liao, Leibo and Poggio 2016.
    """
    positive("scale", scale)

    def grads(key, state, params, batch):
        signs = jax.tree.map(lambda w: (scale * jnp.sign(w)).astype(w.dtype), params)
        grads, info = differentiate(model, loss, params, batch, through(node_params(model, signs, batch[0])))
        return grads, state, info

    return Rule(stateless, grads)


def kolen_pollack(model: Model, loss: Loss, *, decay: float = 1e-3, scale: float = 1.0, seed: int = 0) -> Rule:
    """Kolen-Pollack learning, KP: feedback alignment whose B receives the increments of W, and equal decay.

        W <- W + dW - decay W,    B <- B + dW - decay B,    hence    B - W <- (1 - decay) (B - W)

    with dW what the optimizer adds for the FA gradient g_l = 1/B sum_b delta_l[b] z_l[b]^T, delta by B (see
    `feedback_alignment`). B and W meet, and the update becomes the gradient.

    Cost: 3 (a forward pass, a backward pass, the weight gradients).
    Bias: biased at first, but for the output node; vanishing as (1 - decay)^t.
    Derivative of the loss: needed.

    State: the difference B - W, shaped as `params`: equal increments leave it alone, and so it is exact for any
    optimizer. As the rule cannot see the run's own decay, the paper's shrinking of W is the run's `wd`; without it B is
    drawn to W at the same rate. B starts as in `feedback_alignment` (`scale`, `seed`).
    Raises ValueError for scale not positive and finite, or decay outside 0 <= decay < 1.

    Sources: Kolen and Pollack 1994; Akrout et al. 2019.
    """
    positive("scale", scale)
    fraction("decay", decay)

    def init(key, params, x):
        return jax.tree.map(jnp.subtract, random_like(jax.random.fold_in(key, seed), params, scale), params)

    def grads(key, difference, params, batch):
        feedback = jax.tree.map(jnp.add, params, difference)
        grads, info = differentiate(model, loss, params, batch, through(node_params(model, feedback, batch[0])))
        return grads, jax.tree.map(lambda d: ((1 - decay) * d).astype(d.dtype), difference), info

    return Rule(init, grads)


ERRORS = {
    "linear": lambda outputs: outputs,
    "sigmoid": jax.nn.sigmoid,
    "softmax": jax.nn.softmax,
}


def direct_feedback_alignment(
    model: Model,
    loss: Loss,
    *,
    error: Literal["loss", "linear", "sigmoid", "softmax"] = "loss",
    scale: float = 1.0,
    seed: int = 0,
) -> Rule:
    """Direct feedback alignment, DFA: the output error reaches every node by a fixed random matrix of its own.

        s_l[b] = B_l e[b],    g_l = 1/B sum_b s_l[b] z_l[b]^T

    with e the output error, (B, outputs). The node whose pre-activation is the output has e itself for its signal, so
    that a network of one layer learns as by backpropagation. Unlike the paper's, s_l is not multiplied by f'(a_l):
    nodes are credited in their pre-activation by the signal alone, whatever follows them.

    Cost: 2 (a forward pass and the weight gradients).
    Bias: biased, but for the output node; forward weights come to align with the feedback.
    Derivative of the loss: that with respect to the outputs; none with error=linear, sigmoid or softmax.

    `error`: loss, e = dL_b/do; or the error as such, e = f(o) - y with f the identity (linear), sigmoid or softmax.
    State: {node: B_l, (outputs, *units of the node)}, normal with `scale` times the Xavier deviation
    sqrt(2 / (outputs + units)); `seed` draws others for the same run seed.
    Raises ValueError for scale not positive and finite.

    Source: Nøkland 2016.
    """
    positive("scale", scale)

    def init(key, params, x):
        key = jax.random.fold_in(key, seed)
        outputs, shapes = jax.eval_shape(lambda p, x: observed(model, p, x), params, x)
        drawn = {}
        for i, (name, s) in enumerate(shapes.items()):
            shape = (outputs.size // len(x), *s.shape[1:])
            deviation = (2 / (shape[0] + s.size // len(x))) ** 0.5
            drawn[name] = scale * deviation * jax.random.normal(jax.random.fold_in(key, i), shape, s.dtype)
        return drawn

    def grads(key, feedback, params, batch):
        x, y = batch
        outputs, a = observed(model, params, x)
        losses = per_example(loss, outputs, y)
        if error == "loss":
            e = jax.grad(lambda o: per_example(loss, o, y).sum())(outputs)
        else:
            e = ERRORS[error](outputs) - as_values(y, outputs)
        e = e / len(x)
        signals = {n: e if a[n] is outputs else jnp.tensordot(flat(e), feedback[n], 1) for n in a}
        return pullback(model, params, x, signals), feedback, Info(losses, outputs)

    return Rule(init, grads)


def observed(model: Model, params: Params, x: Array) -> tuple[Array, dict[str, Array]]:
    """(outputs, {node: pre-activation}) of one clean pass."""
    a: dict[str, Array] = {}
    return model.apply(params, x, recording(a)), a


def flat(e: Array) -> Array:
    """(B, ...) -> (B, units)."""
    return e.reshape(len(e), -1)
