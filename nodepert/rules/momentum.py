"""Momentum feedback: direct feedback that is the running mean of what noise on the units does to the outputs."""

from __future__ import annotations

from math import prod
from typing import Literal

import jax.numpy as jnp

from nodepert.contract.loops import at_step
from nodepert.core import Array, Info, Loss, Model, Rule, Signals, batchsize, per_example, plain, pullback
from nodepert.registry.ranges import fraction, positive
from nodepert.rules.between import active, between
from nodepert.rules.direct import common, matrix_shapes, sent
from nodepert.rules.directional import Independent, directional, scaled
from nodepert.rules.guided import output_error
from nodepert.rules.noise import draw
from nodepert.rules.rounding import precise


def momentum_feedback(
    model: Model,
    loss: Loss,
    *,
    sigma: float = 0.1,
    momentum: float = 0.99,
    noise: Independent = "gaussian",
    difference: Literal["forward", "central", "jvp", "single"] = "forward",
) -> Rule:
    """Momentum feedback, as in OPZO: direct feedback through matrices that learn what noise does to the outputs.

        M_l <- lambda M_l + (1 - lambda) 1/B sum_b xi_l[b] do[b]^T / sigma,    s_l[b] = phi_l[b] M_l e[b]

    with unit-variance noise xi_l on pre-activation a_l, the change of the outputs do, (B, outputs), the error of the
    outputs e = dL_b/do, from the loss alone (see rules/guided.py), and phi_l = 1 for a unit that can change what
    follows, else 0 (an inactive ReLU). The gradients are those of `np`, sum_b s_l[b] z_l[b]^T / B; a node that only
    reaches the outputs has its exact signal. The change of the outputs is computed by `difference`:

    - forward, central, jvp: from a clean pass and noise on active units, as the slope of `node_perturbation`.
    - single: no clean pass; do is the noisy output itself, and e, z and phi are those of the noisy pass. The mean is
      the same, but each term has a variance of o^2/sigma^2: it calls for a larger sigma, about 1.

    E M_l is the transposed Jacobian of the outputs with respect to a_l, averaged over the examples and the recent past
    (as sigma -> 0; at any sigma on a linear network). Noise is averaged over B / (1 - lambda) examples before it meets
    an error, which removes most of the variance of node perturbation.

    Into the last hidden layer M_l comes to be W_out^T: weight transport that is learned from noise.

    Cost: a clean and a noisy forward pass, the weight gradients; central adds 1, single makes no clean pass.
    Bias: biased, except for the output node: examples share M_l, and it lags behind the weights. On a linear network
        with constant weights the mean is the gradient.
    Derivative of the loss: not needed.

    Args:
        model: The network to train.
        loss: (outputs, targets) -> losses, (B,).
        sigma: Standard deviation of the noise, in units of the pre-activation.
        momentum: lambda, weight of the past in M_l, at least 0 and below 1.
        noise: gaussian, rademacher (signs) or sphere, as for `node_perturbation`.
        difference: forward, central, jvp or single, see above.

    Returns:
        The `Rule`; its state is {node: M_l, (outputs, *units of the node)}, at first 0; in time, M_l is the effect on
        the outputs of the same step, and shared by all steps.

    Raises:
        ValueError: sigma is not positive and finite, or momentum not in [0, 1).

    Examples:
        >>> import nodepert as npt
        >>> model, loss = npt.make_model("fc(width=20)", (4,), 3), npt.make_loss("mse")
        >>> rule = npt.make_rule("opzo(difference=single, sigma=1.0)", model, loss)

    References:
        Xiao, Meng, Zhang, He and Lin 2026 (OPZO; one pass, spiking networks).
    """
    positive("sigma", sigma)
    fraction("momentum", momentum)
    fine, _ = precise(model, loss, difference, sigma)

    def init(key, params, x):
        shapes = matrix_shapes(model, params, x)
        return {name: jnp.zeros(s.shape, s.dtype) for name, s in shapes.items()}

    def noise_and_change(key, params, x):
        """(the network, its pass cut at the nodes, noise, change of the outputs, which units are active)."""
        clean = between(fine, params, x)
        xi = draw(key, clean.a, noise)
        if difference == "single":
            run = noisy(model, scaled(xi, sigma))
            cut = between(run, params, x)
            return run, cut, xi, cut.outputs / sigma, active(cut)
        gates = active(clean)
        xi = {name: n * gates[name] for name, n in xi.items()}
        slope = directional(difference, lambda eps: noisy(fine, eps).apply(params, x), clean.outputs, clean.a, sigma)
        return model, clean, xi, slope(xi), gates

    def grads(key, feedback, params, batch):
        x, y = batch
        run, cut, xi, change, gates = noise_and_change(key, params, x)
        feedback = {name: (momentum * m + (1 - momentum) * effect(xi[name], change)).astype(m.dtype)
                    for name, m in feedback.items()}  # fmt: skip
        e = output_error(loss, cut.outputs, y) / batchsize(x)
        exact = cut.back({}, e)
        signals = {name: exact[name] if name in cut.last else gates[name] * sent(e, m, cut.a[name])
                   for name, m in feedback.items()}  # fmt: skip
        return pullback(run, params, x, signals), feedback, Info(per_example(loss, cut.outputs, y), cut.outputs)

    return Rule(init, grads)


def noisy(model: Model, eps: Signals) -> Model:
    """The network with eps[name] added to the pre-activation of every node."""

    def apply(params, x, node=plain):
        def perturbed(name, op, params, h):
            return node(name, lambda p, h: op(p, h) + at_step(eps[name]), params, h)

        return model.apply(params, x, perturbed)

    return model._replace(apply=apply)


def effect(xi: Array, change: Array) -> Array:
    """The mean of xi do^T over the examples, and the steps where both have time: (outputs, *units)."""
    axes = common(change, xi)
    rows = prod(xi.shape[:axes])
    return jnp.tensordot(change.reshape(rows, -1), xi.reshape(rows, *xi.shape[axes:]), (0, 0)) / rows
