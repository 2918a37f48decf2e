"""Feedback through the layers as a guide: the backward pass of feedback alignment, whose weights learn."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from nodepert.contract.loops import at_step, get_opaque_trace_state, keep
from nodepert.core import Array, Model, Params, Signals, node_params, recording
from nodepert.registry.ranges import fraction, positive
from nodepert.rules.feedback import random_like, swapped
from nodepert.rules.guides.guide import Clean, Guide
from nodepert.rules.update import started, updated

START = 0.1  # standard deviation of the first feedback weights, in units of that of the weights


def chain(model: Model, *, rate: float = 3e-4) -> Guide:
    """Learned feedback through the layers: errors pass back through weights B in place of W.

        d_l = J_l^T B_{l+1}^T d_{l+1},    from the output error,    B_{l+1} <- Adam of -d/dB <d_{l+1}, B_{l+1} J_l r_l>

    with r_l = s_l - d_l, the residual at node l, and J_l the derivative of the activity that follows it. The update is
    minus the gradient of ||s_l - d_l||^2 / 2 with respect to B_{l+1}, at d_{l+1} as it is: the local weight gradient of
    the node above, with J_l r_l as presynaptic activity and d_{l+1} as signal. A convolution shares B over positions.

    B comes to be W^T: weight transport that is learned from noise.

    Args:
        model: The network.
        rate: Learning rate of B, by Adam.

    Returns:
        The `Guide`; its state is B, shaped as the parameters, and that of Adam.

    References:
        Lillicrap et al. 2016 (feedback alignment); Akrout et al. 2019, Lansdell et al. 2020 (learned feedback).
    """
    positive("rate", rate)
    optimizer = optax.adam(rate)

    def init(key, clean):
        weights = random_like(key, clean.params, START)
        return weights, started(optimizer, weights)

    def signals(state, clean):
        return sent_back(model, state[0], clean)

    def learn(state, clean, predicted, residual):
        weights, adam = state
        changes, _ = clean.cut.forward(residual)
        through, pull = jax.vjp(lambda weights: passed(model, weights, clean, changes), weights)
        grads = jax.tree.map(jnp.negative, pull({name: predicted[name] for name in through})[0])
        weights, _, adam = updated(optimizer, grads, adam, weights)
        return weights, adam

    return Guide(init, signals, learn)


def kolen_pollack(model: Model, *, decay: float = 1e-3) -> Guide:
    """Feedback through the layers by weights B that receive the updates of W, and decay with them (Kolen-Pollack).

        d_l = J_l^T B_{l+1}^T d_{l+1},    from the output error,    B - W <- (1 - decay) (B - W)

    An update of W is presynaptic activity times error signal; the synapse back, between the same two units, has both at
    hand. Equal updates leave B - W as it is, and decay removes it: B comes to be W^T within a few times 1/decay steps,
    whatever the noise. (Of W itself, decay is the run's `wd`; without it B approaches W at the same rate.)

    Args:
        model: The network.
        decay: Share of B - W that each step removes, at least 0 and below 1.

    Returns:
        The `Guide`; its state is B - W, shaped as the parameters.

    References:
        Kolen and Pollack 1994; Akrout et al. 2019.
    """
    fraction("decay", decay)

    def init(key, clean):
        return jax.tree.map(jnp.subtract, random_like(key, clean.params, START), clean.params)

    def signals(difference, clean):
        return sent_back(model, jax.tree.map(jnp.add, clean.params, difference), clean)

    def learn(difference, clean, predicted, residual):
        return jax.tree.map(lambda d: ((1 - decay) * d).astype(d.dtype), difference)

    return Guide(init, signals, learn)


def sent_back(model: Model, weights: Params, clean: Clean) -> Signals:
    """The error signals of all nodes, were these the weights on the way back."""
    back = node_params(model, weights, clean.x)

    def outputs(eps):
        def node(name, op, params, h):
            a: Array = swapped(op, params, back[name], h)
            return a + at_step(eps[name])

        return model.apply(clean.params, clean.x, recording({}, node))

    return jax.vjp(outputs, jax.tree.map(jnp.zeros_like, clean.cut.a))[1](clean.error)[0]


def passed(model: Model, weights: Params, clean: Clean, changes: dict[str, Array]) -> dict[str, Array]:
    """{node: how its pre-activation would change with its input, were these its weights}."""
    own, found, trace = node_params(model, weights, clean.x), {}, get_opaque_trace_state()

    def node(name, op, params, h):
        if name in changes:
            passed_on = jax.jvp(lambda h: op(own[name], h), (h,), (at_step(changes[name]),))[1]
            keep(found, name, passed_on, trace)
        return at_step(clean.cut.a[name])

    model.apply(clean.params, clean.x, recording({}, node))
    return found
