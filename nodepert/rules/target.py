"""Difference target propagation: targets, not derivatives, are sent down the network, through learned inverses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from nodepert.core import Array, Info, Key, Loss, Model, Params, Rule, batchsize, per_example, pullback
from nodepert.registry.ranges import at_least, positive
from nodepert.rules.directional import scaled
from nodepert.rules.feedback import random_like
from nodepert.rules.inverses import ACTIVATIONS, Feedback, Pass, between, clean, inverse, inverted
from nodepert.rules.noise import draw
from nodepert.rules.update import started, updated


class Inverses(NamedTuple):
    """Rule state: parameters of the inverses of all nodes but the first and the last, and their optimizer's state."""

    feedback: Feedback
    optimizer: Any


def difference_target_propagation(
    model: Model,
    loss: Loss,
    *,
    step: float = 0.1,
    inverse_lr: float = 1e-3,
    noise: float = 1.0,
    activation: Literal["tanh", "relu", "linear"] = "linear",
    scale: float = 0.01,
    seed: int = 0,
) -> Rule:
    """Difference target propagation, DTP: each node moves the activity of the next one towards its target.

        t_L = z_L - step dL_b/dz_L,    t_l = z_l + q_l(t_{l+1}) - q_l(z_{l+1})
        s_l[b] = (dz_{l+1}/da_l)^T (z_{l+1} - t_{l+1}) / step,    s_L = dL_b/da_L,    g_l = 1/B sum_b s_l[b] z_l[b]^T

    with presynaptic activity z_l and pre-activation a_l of node l, L the last node, and stage l the map from z_l to
    z_{l+1}: the node and what lies between it and the next; dz_{l+1}/da_l is the derivative of the latter alone. For
    1 < l < L the inverse q_l of stage l is learned, by one step of Adam per batch, on noisy activity:

        q_l(z) = activation(op_l(V_l, .)^T z + c_l),    minimise E ||q_l(stage_l(z_l + eps)) - (z_l + eps)||^2

    where op_l(V, .)^T is the transpose of the node's own operator, dense or convolution, with feedback weights V.

    Cost: a forward pass, the weight gradients, two passes through the inverses for the targets; a noisy forward pass, a
    pass through the inverses and their weight gradients to learn them. The last five leave out nodes 1 and L.
    Bias: biased, except for the last two nodes, whose signals are exact; with true inverses the targets are those of
    Gauss-Newton.
    Derivative of the loss: with respect to the last node's pre-activation and presynaptic activity.

    The paper's q has the activation function of its network, tanh; linear also suits ReLU. Unlike in the paper, the
    local loss is divided by `step`, so that signals have the size of errors and learning rates mean the same as for
    other rules, and targets are computed before the batch's step on q.

    Args:
        model: The network to train: a chain, each node fed by the one before it alone, with operators affine in z.
        loss: (outputs, targets) -> losses, (B,).
        step: Distance from activity to target, along the gradient at the top. Matters only for a q that is not linear.
        inverse_lr: Learning rate of Adam for the inverses.
        noise: Standard deviation of eps, in units of activity.
        activation: Activation function of the inverses.
        scale: Standard deviation of the initial V, in units of that of the forward weights (leaf by leaf); small, so
            that an inverse contributes little until it is learned. c starts at zero.
        seed: Selects another V for the same run seed.

    Returns:
        The `Rule`; its state is V, c and the state of Adam.

    Raises:
        ValueError: A number is not positive and finite, or the seed is negative.
        UserError: At the first step: the network is not a chain, or a node to be inverted has another number of units
            than the next one has inputs (pooling).

    Examples:
        >>> import nodepert as npt
        >>> model, loss = npt.make_model("fc(width=20)", (4,), 3), npt.make_loss("mse")
        >>> rule = npt.make_rule("dtp(inverse_lr=1e-2)", model, loss)

    References:
        Lee, Zhang, Fischer and Bengio 2015; Meulemans et al. 2020 (Gauss-Newton).
    """
    for name, value in {"step": step, "inverse_lr": inverse_lr, "noise": noise, "scale": scale}.items():
        positive(name, value)
    at_least("seed", seed, 0)
    act = ACTIVATIONS[activation]
    optimizer = optax.adam(inverse_lr)

    def init(key, params, x):
        feedback = initial_feedback(model, jax.random.fold_in(key, seed), params, x, scale)
        return Inverses(feedback, started(optimizer, feedback))

    def grads(key, state, params, batch):
        x, y = batch
        net = clean(model, params, x)
        above = inverted(model, params, x, net)
        (h, outputs), back = jax.vjp(lambda a: between(model, params, x, a), net.a)
        losses, loss_back = jax.vjp(lambda o: per_example(loss, o, y), outputs)
        (error,) = loss_back(jnp.ones_like(losses))
        nothing = jax.tree.map(jnp.zeros_like, h)
        last = list(net.a)[-1]
        top = input_gradient(net, last, h[last], back((nothing, error))[0][last])
        gap = gaps(net, act, state.feedback, above, h, {last: top}, step)
        (signals,) = back((nothing | gap, error))
        if above:
            state = learned(optimizer, state, reconstruction(model, params, x, net, act, above, key, noise))
        return pullback(model, params, x, scaled(signals, 1 / batchsize(x))), state, Info(losses, outputs)

    return Rule(init, grads)


def initial_feedback(model: Model, key: Key, params: Params, x: Array, scale: float) -> Feedback:
    """{node: (V, c)} of the inverses at the start."""
    net = clean(model, params, x)
    feedback: Feedback = {}
    for i, name in enumerate(inverted(model, params, x, net)):
        h, own = net.h[name], random_like(jax.random.fold_in(key, i), net.params[name], scale)
        feedback[name] = own, jnp.zeros(h.shape[-1], h.dtype)
    return feedback


def input_gradient(net: Pass, name: str, h: Array, signal: Array) -> Array:
    """The derivative of a node's operator with respect to its input, applied to a signal."""
    return jax.vjp(lambda h: net.op[name](net.params[name], h), h)[1](signal)[0]


def gaps(
    net: Pass, act: Any, feedback: Feedback, above: dict[str, str], h: dict[str, Array], top: dict[str, Array],
    step: float,
) -> dict[str, Array]:  # fmt: skip
    """{node: (z_l - t_l) / step} from the top down: the counterpart of dL_b/dz_l in backpropagation."""
    gap = dict(top)
    for name in reversed(above):
        q, reached = inverse(net, act, name, feedback), h[above[name]]
        difference = q(reached) - q(reached - scaled(gap[above[name]], step))
        gap[name] = scaled(difference, 1 / step)
    return gap


def reconstruction(
    model: Model, params: Params, x: Array, net: Pass, act: Any, above: dict[str, str], key: Key, noise: float
) -> Callable[[Feedback], Any]:
    """The loss of the inverses: the squared error of reconstructing noisy activity, summed over nodes."""
    eps = scaled(draw(key, {name: net.h[name] for name in above}), noise)
    noisy = {name: net.h[name] + e for name, e in eps.items()}
    a = net.a | {name: net.op[name](net.params[name], h) for name, h in noisy.items()}
    reached, _ = between(model, params, x, a)

    def error(feedback):
        q = {name: inverse(net, act, name, feedback)(reached[up]) for name, up in above.items()}
        return sum(jnp.square(q[name] - noisy[name]).sum() for name in q) / batchsize(x)

    return error


def learned(optimizer: optax.GradientTransformation, state: Inverses, loss_of: Callable[[Feedback], Any]) -> Inverses:
    """The inverses after one step on their loss."""
    feedback, _, opt = updated(optimizer, jax.grad(loss_of)(state.feedback), state.optimizer, state.feedback)
    return Inverses(feedback, opt)
