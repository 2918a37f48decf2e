"""Feedback rules: errors are sent back, but not through the transposed forward weights."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp

from nodepert.core import Array, Key, Loss, Model, Node, Op, Params, Rule, differentiate, node_params, stateless
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
    """A node handler that sends errors back through these weights, {node: params}."""
    return lambda name, op, params, h: swapped(op, params, feedback[name], h)


def random_like(key: Key, params: Params, scale: float) -> Params:
    """Normal feedback weights, each leaf with `scale` times the standard deviation of the forward weights.

    A constant leaf (the zeros of a bias, the ones of a normalisation) is copied.
    """
    leaves, structure = jax.tree.flatten(params)
    drawn = []
    for i, leaf in enumerate(leaves):
        spread = leaf.std()
        normal = jax.random.normal(jax.random.fold_in(key, i), leaf.shape, leaf.dtype)
        drawn.append(jnp.where(spread > 0, scale * spread * normal, leaf).astype(leaf.dtype))
    return jax.tree.unflatten(structure, drawn)


def feedback_alignment(model: Model, loss: Loss, *, scale: float = 1.0, seed: int = 0) -> Rule:
    """Feedback alignment, FA: backpropagation with fixed random weights B in place of W in the backward pass.

        delta_l[b] = f'(a_l) B_{l+1}^T delta_{l+1}[b],    g_l = 1/B sum_b delta_l[b] z_l[b]^T

    For any operator, including convolution: the derivative with respect to its input is taken at parameters B. With
    B = W this is backpropagation.

    Cost: a forward pass, a backward pass, the weight gradients.
    Bias: biased, except for the output node; the forward weights align with B, and the update with the gradient.
    Derivative of the loss: needed.

    Args:
        model: The network to train.
        loss: (outputs, targets) -> losses, (B,).
        scale: Standard deviation of B, in units of that of the initial W (leaf by leaf; a constant leaf, such as zero
            biases, is copied).
        seed: Selects another B for the same run seed.

    Returns:
        The `Rule`; its state is B, shaped as the parameters.

    Raises:
        ValueError: scale is not positive and finite.

    Examples:
        >>> import nodepert as npt
        >>> model, loss = npt.make_model("fc(width=20)", (4,), 3), npt.make_loss("mse")
        >>> rule = npt.make_rule("fa(scale=0.5)", model, loss)

    References:
        Lillicrap, Cownden, Tweed and Akerman 2016.
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

    The paper normalises errors batch-wise instead of by a fixed scale.

    Cost: a forward pass, a backward pass, the weight gradients.
    Bias: biased, except for the output node; well aligned with the gradient.
    Derivative of the loss: needed.

    Args:
        model: The network to train.
        loss: (outputs, targets) -> losses, (B,).
        scale: Size of every feedback weight. Near the standard deviation of W (0.05 suits layers of 500 units), errors
            have the size that they have in backpropagation.

    Returns:
        The `Rule`, without state.

    Raises:
        ValueError: scale is not positive and finite.

    Examples:
        >>> import nodepert as npt
        >>> model, loss = npt.make_model("fc(width=20)", (4,), 3), npt.make_loss("mse")
        >>> rule = npt.make_rule("usf(scale=0.1)", model, loss)

    References:
        Liao, Leibo and Poggio 2016.
    """
    positive("scale", scale)

    def grads(key, state, params, batch):
        signs = jax.tree.map(lambda w: (scale * jnp.sign(w)).astype(w.dtype), params)
        grads, info = differentiate(model, loss, params, batch, through(node_params(model, signs, batch[0])))
        return grads, state, info

    return Rule(stateless, grads)


def kolen_pollack(model: Model, loss: Loss, *, decay: float = 1e-3, scale: float = 1.0, seed: int = 0) -> Rule:
    """Kolen-Pollack learning, KP: feedback alignment whose B receives the updates of W, with equal decay.

        W <- W + dW - decay W,    B <- B + dW - decay B,    hence    B - W <- (1 - decay) (B - W)

    with dW the optimizer's update for the FA gradient g_l = 1/B sum_b delta_l[b] z_l[b]^T, delta by B (see
    `feedback_alignment`). B converges to W, and the update to that of the gradient.

    The rule's state is B - W, which equal updates do not change, so that it is exact for any optimizer. Decay of W
    itself is the run's `wd`, which a rule cannot see; without it, B approaches W at the same rate.

    Cost: a forward pass, a backward pass, the weight gradients.
    Bias: biased at first, except for the output node; vanishes as (1 - decay)^t.
    Derivative of the loss: needed.

    Args:
        model: The network to train.
        loss: (outputs, targets) -> losses, (B,).
        decay: Share of B - W that each update removes.
        scale: Standard deviation of the initial B, in units of that of the initial W (see `feedback_alignment`).
        seed: Selects another B for the same run seed.

    Returns:
        The `Rule`; its state is B - W, shaped as the parameters.

    Raises:
        ValueError: scale is not positive and finite, or decay is outside 0 <= decay < 1.

    Examples:
        >>> import nodepert as npt
        >>> model, loss = npt.make_model("fc(width=20)", (4,), 3), npt.make_loss("mse")
        >>> rule = npt.make_rule("kp(decay=1e-2)", model, loss)

    References:
        Kolen and Pollack 1994; Akrout et al. 2019.
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
