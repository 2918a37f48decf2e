"""Two variants of node perturbation that credit a change in activity, relative to its size: INP and ANP."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from nodepert.core import (
    Array,
    Info,
    Loss,
    Model,
    Rule,
    adding,
    batchsize,
    expand,
    in_parts,
    node_shapes,
    plain,
    pullback,
    recording,
    stateless,
)
from nodepert.registry import check, make
from nodepert.registry.ranges import at_least, positive
from nodepert.registry.spec import Spec
from nodepert.rules.credit import total
from nodepert.rules.directional import ROWS_AT_ONCE, Difference, Independent, directional, loss_along, mean_over
from nodepert.rules.noise import draw
from nodepert.rules.rounding import precise


def layerwise_perturbation(
    model: Model,
    loss: Loss,
    *,
    sigma: float = 1e-3,
    samples: int = 1,
    noise: Independent = "gaussian",
    difference: Difference = "forward",
    credit: Spec | str = "trial",
) -> Rule:
    """Layer-wise ("iterative") node perturbation, INP: one noisy pass per node, with noise on that node alone.

        s_l[b] = n_l dL_b^(l) da_l[b] / ||da_l[b]||^2,    g_l = 1/B sum_b s_l[b] z_l[b]^T

    with the change da_l = sigma xi_l of node l in its own pass, its number of units n_l, and the change dL^(l) of the
    loss in that pass. No other noise enters: E||g_l||^2 = n_l ||delta_l||^2 ||z_l||^2 for one example.

    Cost: L + 2 forward passes per step for L nodes (a clean pass, L noisy ones, each from its node upwards only, and
    the weight gradients); each further draw, and central, adds L.
    Bias: unbiased as sigma -> 0, with an error of O(sigma^2) where the network is smooth; with jvp at any sigma.
    Derivative of the loss: not needed, except by jvp.

    Args:
        model: The network to train.
        loss: (outputs, targets) -> losses, (B,).
        sigma: Standard deviation of the noise, in units of the pre-activation.
        samples: Draws per step; the variance is divided by their number.
        noise: gaussian, rademacher (signs), or sphere (uniform on the sphere of radius sqrt(n_l) for n_l units).
        difference: forward, central or jvp, see `node_perturbation`.
        credit: With a loss in parts, (B, T), which of them answer for the noise of a step, see `node_perturbation`.

    Returns:
        The `Rule`, without state.

    Raises:
        ValueError: sigma is not positive and finite, samples < 1, or, at the first step, the loss is not per example.

    Examples:
        >>> import nodepert as npt
        >>> model, loss = npt.make_model("fc(width=20)", (4,), 3), npt.make_loss("mse")
        >>> rule = npt.make_rule("inp(samples=4)", model, loss)

    References:
        Dalm, van Gerven and Ahmad 2023, "Effective learning with node perturbation in multi-layer neural networks",
        arXiv 2310.00965.
    """
    positive("sigma", sigma)
    at_least("samples", samples, 1)
    credited = make("credit", check("credit", credit))
    fine, fine_loss = precise(model, loss, difference, sigma)

    def grads(key, state, params, batch):
        x, y = batch
        outputs = fine.apply(params, x)
        clean = in_parts(fine_loss, outputs, y)
        shapes = node_shapes(model, params, x)
        along = loss_along(fine, fine_loss, params, batch)
        slopes = {name: directional(difference, along, clean, {name: s}, sigma) for name, s in shapes.items()}

        def signals(key):
            xi = draw(key, shapes, noise)
            gain = {name: credited(slopes[name]({name: n}), n) for name, n in xi.items()}
            scale = {name: units(n) / squared_norm(n) / batchsize(x) for name, n in xi.items()}
            return {name: expand(gain[name], n) * expand(scale[name], n) * n for name, n in xi.items()}

        mean = mean_over(signals, key, samples, at_once=max(1, ROWS_AT_ONCE // batchsize(x)))
        return pullback(model, params, x, mean), state, Info(total(clean), outputs)

    return Rule(stateless, grads)


def activity_perturbation(
    model: Model,
    loss: Loss,
    *,
    sigma: float = 1e-3,
    samples: int = 1,
    noise: Independent = "gaussian",
    difference: Difference = "forward",
    credit: Spec | str = "trial",
) -> Rule:
    """Activity-based node perturbation, ANP: credit every measured change in activity, whatever caused it.

        s_l[b] = n dL_b da_l[b] / sum_k ||da_k[b]||^2,    g_l = 1/B sum_b s_l[b] z_l[b]^T

    with noise sigma xi on all nodes at once, the total change da_l measured at node l (its own noise and the effect of
    the noise below), the number n of units of all nodes, and the change dL_b of the loss. The rule does not use xi
    itself. With difference=jvp the changes are directional derivatives along xi.

    Cost: a clean and a noisy forward pass, the weight gradients; each further draw, and central, adds 1.
    Bias: biased: the mean is along C_l delta_l z_l^T, C_l = sum over k <= l of J_lk J_lk^T with J_lk = da_l/da_k: the
    direction of the gradient at the first node only, and a descent direction at every node.
    Derivative of the loss: not needed, except by jvp.

    Args:
        model: The network to train.
        loss: (outputs, targets) -> losses, (B,).
        sigma: Standard deviation of the noise, in units of the pre-activation.
        samples: Draws per step; the variance is divided by their number.
        noise: gaussian, rademacher (signs), or sphere (uniform on the sphere of radius sqrt(n_l) for n_l units).
        difference: forward, central or jvp, see `node_perturbation`.
        credit: With a loss in parts, (B, T), which of them answer for the noise of a step, see `node_perturbation`.

    Returns:
        The `Rule`, without state.

    Raises:
        ValueError: sigma is not positive and finite, samples < 1, or, at the first step, the loss is not per example.

    Examples:
        >>> import nodepert as npt
        >>> model, loss = npt.make_model("fc(width=20)", (4,), 3), npt.make_loss("mse")
        >>> rule = npt.make_rule("anp(samples=4)", model, loss)

    References:
        Dalm, van Gerven and Ahmad 2023, "Effective learning with node perturbation in multi-layer neural networks",
        arXiv 2310.00965.
    """
    positive("sigma", sigma)
    at_least("samples", samples, 1)
    credited = make("credit", check("credit", credit))
    fine, fine_loss = precise(model, loss, difference, sigma)

    def grads(key, state, params, batch):
        x, y = batch

        def measured(eps, noisy=True):  # -> ((losses in parts, {node: pre-activation}), outputs)
            a: dict[str, Array] = {}
            outputs = fine.apply(params, x, recording(a, adding(eps) if noisy else plain))
            return (in_parts(fine_loss, outputs, y), a), outputs

        clean, outputs = measured({})
        shapes = node_shapes(model, params, x)
        change = directional(difference, lambda eps: measured(eps)[0], clean, shapes, sigma)

        def signals(key):
            dl, da = change(draw(key, shapes, noise))
            n = sum(units(d) for d in da.values())
            norm = jnp.stack([squared_norm(d) for d in da.values()]).sum(0)
            gain = n * dl / expand(norm, dl) / batchsize(x)
            return {name: expand(credited(gain, d), d) * d for name, d in da.items()}

        mean = mean_over(signals, key, samples, at_once=max(1, ROWS_AT_ONCE // batchsize(x)))
        return pullback(model, params, x, mean), state, Info(total(clean[0]), outputs)

    return Rule(stateless, grads)


def units(a: Any) -> int:
    """Number of units of a node: n_l."""
    return a[0].size


def squared_norm(a: Array) -> Array:
    """||a[b]||^2 for every example, (B,), in float32 or better."""
    wide = a if a.dtype == jnp.float64 else a.astype(jnp.float32)
    return jnp.square(wide).reshape(len(a), -1).sum(-1)
