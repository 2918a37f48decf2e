"""Node perturbation and its two relatives: noise on pre-activations, credited by the change of each example's loss."""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp

from nodepert.core import (
    Array,
    Info,
    Loss,
    Model,
    Rule,
    adding,
    expand,
    node_shapes,
    per_example,
    plain,
    pullback,
    recording,
    stateless,
)
from nodepert.registry.ranges import at_least, positive
from nodepert.rules.directional import ROWS_AT_ONCE, Difference, Noise, directional, loss_along, mean_over, scaled
from nodepert.rules.noise import draw
from nodepert.rules.prediction import reward_prediction
from nodepert.rules.replay import replayed


def node_perturbation(
    model: Model,
    loss: Loss,
    *,
    sigma: float = 1e-3,
    samples: int = 1,
    noise: Noise = "gaussian",
    difference: Difference = "forward",
    sharing: Literal["example", "batch"] = "example",
    baseline: Literal["clean", "running"] = "clean",
    presynaptic: Literal["auto", "clean", "noisy"] = "auto",
    replay: bool = False,
) -> Rule:
    """Node perturbation: perturb all pre-activations at once and credit each example's own change of loss.

        s_l[b] = mean_k (dL_b^k / sigma) xi_l^k[b],    g_l = 1/B sum_b s_l[b] z_l[b]^T

    with a_l the pre-activation and z_l the presynaptic activity of node l, xi unit-variance noise on a_l, B the batch
    size, and dL_b/sigma by `difference`:

    - forward: (L_b(a + sigma xi) - L_b(a)) / sigma. One extra forward pass. Biased by O(sigma^2) at most (a relu counts
      as smoothed over sigma); unbiased at any sigma for a quadratic loss on one linear layer.
    - central: (L_b(a + sigma xi) - L_b(a - sigma xi)) / (2 sigma). Two extra passes, O(sigma^2), smaller variance.
    - jvp: the exact directional derivative along xi (the "forward gradient" of activities): unbiased.

    Cost: 3 (a clean and a noisy forward pass, the weight gradients); each further draw, and central, adds 1; running 2.
    Bias: unbiased as sigma -> 0, with an error of O(sigma^2) where the network is smooth; with jvp at once.
    Derivative of the loss: not needed, except by jvp.

    `sigma` is in units of the pre-activation. `samples` = K draws divide the variance by K; their signals are
    averaged before the one pullback. `noise`: gaussian, rademacher (signs), sphere (uniform on the sphere of radius
    sqrt(n_l) in each node of n_l units). Where a pre-activation sits exactly on a kink of what follows (0 before a
    relu: an example that no unit below answers, with zero biases) finite differences see the mean of the two slopes, at
    any sigma, and jvp the one that JAX takes. `sharing="batch"` uses one draw of the noise for all examples: still
    per-example differences, hence still unbiased, with larger variance. Variance grows with the total number n of
    perturbed units: one example's estimate has about n times the squared norm of its gradient.

    `baseline="running"` is the reward-prediction form: one noisy pass, and in place of the clean loss the expectation
    of that example's loss kept in rule state (see rules/prediction.py). `presynaptic="noisy"` credits the activity of
    the noisy pass (of a + sigma xi), all that a network has which never runs without noise; it costs one weight
    gradient per draw. "auto" is clean with a clean baseline, and noisy with a running one.

    `replay=True` gives the same estimate in memory that does not grow with depth (see rules/replay.py): each draw's
    noise is made twice, and one more clean pass is made.

    Raises ValueError for sigma not positive and finite, samples < 1, forms that exclude each other, or a loss that is
    not per example.

    Sources: Werfel, Xie and Seung 2005; Fiete and Seung 2006 (running); Hiratani et al. 2022 (one-sided);
    Ren et al. 2023 (jvp).
    """
    positive("sigma", sigma)
    at_least("samples", samples, 1)
    if baseline == "running":
        if (difference, sharing, replay) != ("forward", "example", False):
            raise ValueError("baseline=running takes difference=forward, sharing=example, replay=False: its noisy "
                             "pass is compared with an expectation that must not share its noise")  # fmt: skip
        return reward_prediction(model, loss, sigma, samples, noise, presynaptic != "clean")
    noisy = presynaptic == "noisy"
    if replay and noisy:
        raise ValueError("replay=True credits the activity of a clean pass: it takes presynaptic=clean")
    if replay:
        return replayed(model, loss, sigma, samples, noise, difference, sharing)
    if noisy and difference == "jvp":
        raise ValueError("presynaptic=noisy needs a finite difference: with jvp the noise is infinitely small")

    def grads(key, state, params, batch):
        x, y = batch
        outputs = model.apply(params, x)
        clean = per_example(loss, outputs, y)  # (B,)
        shapes = node_shapes(model, params, x)
        if sharing == "batch":
            shapes = {name: jax.ShapeDtypeStruct((1, *s.shape[1:]), s.dtype) for name, s in shapes.items()}
        slope = directional(difference, loss_along(model, loss, params, batch), clean, shapes, sigma)

        def one_draw(key):
            xi = draw(key, shapes, noise)
            gain = slope(xi) / len(x)  # (B,)
            signals = {name: expand(gain, n) * n for name, n in xi.items()}
            return pullback(model, params, x, signals, adding(scaled(xi, sigma))) if noisy else signals

        mean = mean_over(one_draw, key, samples, at_once=1 if noisy else max(1, ROWS_AT_ONCE // len(x)))
        return mean if noisy else pullback(model, params, x, mean), state, Info(clean, outputs)

    return Rule(stateless, grads)


def layerwise_perturbation(
    model: Model,
    loss: Loss,
    *,
    sigma: float = 1e-3,
    samples: int = 1,
    noise: Noise = "gaussian",
    difference: Difference = "forward",
) -> Rule:
    """Layer-wise ("iterative") node perturbation, INP: one noisy pass per node, each with noise on that node alone.

        s_l[b] = n_l dL_b^(l) da_l[b] / ||da_l[b]||^2,    g_l = 1/B sum_b s_l[b] z_l[b]^T

    with da_l = sigma xi_l the change of node l in its own pass, n_l its units, and dL^(l) the change of the loss there
    (by `difference`, see `node_perturbation`; with jvp the directional derivative along xi_l). What the noise does
    elsewhere in the network no longer enters: E||g_l||^2 = n_l ||delta_l||^2 ||z_l||^2 for one example.

    Cost: L + 2 for L nodes (a clean and L noisy forward passes, each of them from its node upwards only, and the weight
    gradients); each further draw, and central, adds L.
    Bias: unbiased as sigma -> 0, with an error of O(sigma^2) where the network is smooth; with jvp at once.
    Derivative of the loss: not needed, except by jvp.

    `sigma` is in units of the pre-activation; `samples` draws divide the variance by their number.
    Raises ValueError for sigma not positive and finite, samples < 1, or a loss that is not per example.

    Source: Dalm, van Gerven and Ahmad 2023, "Effective learning with node perturbation in multi-layer neural networks",
    arXiv 2310.00965.
    """
    positive("sigma", sigma)
    at_least("samples", samples, 1)

    def grads(key, state, params, batch):
        x, y = batch
        outputs = model.apply(params, x)
        clean = per_example(loss, outputs, y)
        shapes = node_shapes(model, params, x)
        along = loss_along(model, loss, params, batch)
        slopes = {name: directional(difference, along, clean, {name: s}, sigma) for name, s in shapes.items()}

        def signals(key):
            xi = draw(key, shapes, noise)
            gain = {name: slopes[name]({name: n}) * units(n) / squared_norm(n) for name, n in xi.items()}
            return {name: expand(gain[name] / len(x), n) * n for name, n in xi.items()}

        mean = mean_over(signals, key, samples, at_once=max(1, ROWS_AT_ONCE // len(x)))
        return pullback(model, params, x, mean), state, Info(clean, outputs)

    return Rule(stateless, grads)


def activity_perturbation(
    model: Model,
    loss: Loss,
    *,
    sigma: float = 1e-3,
    samples: int = 1,
    noise: Noise = "gaussian",
    difference: Difference = "forward",
) -> Rule:
    """Activity-based node perturbation, ANP: credit the measured change of every pre-activation, own noise or not.

        s_l[b] = n dL_b da_l[b] / sum_k ||da_k[b]||^2,    g_l = 1/B sum_b s_l[b] z_l[b]^T

    with noise sigma xi on all nodes at once, da_l the total change that is measured at node l (its own noise and what
    arrives from below), n the units of all nodes, and dL_b the change of the loss; all by `difference` (see
    `node_perturbation`; with jvp the directional derivatives along xi). Needs no access to the noise itself.

    Cost: 3 (a clean and a noisy forward pass, the weight gradients); each further draw, and central, adds 1.
    Bias: biased: the mean is along C_l delta_l z_l^T, C_l = sum over k <= l of J_lk J_lk^T with J_lk = da_l/da_k, the
    direction of the gradient at the first node only; still a descent direction.
    Derivative of the loss: not needed, except by jvp.

    `sigma` is in units of the pre-activation; `samples` draws divide the variance by their number.
    Raises ValueError for sigma not positive and finite, samples < 1, or a loss that is not per example.

    Source: Dalm, van Gerven and Ahmad 2023, "Effective learning with node perturbation in multi-layer neural networks",
    arXiv 2310.00965.
    """
    positive("sigma", sigma)
    at_least("samples", samples, 1)

    def grads(key, state, params, batch):
        x, y = batch

        def measured(eps, noisy=True):  # -> (losses (B,), {node: pre-activations}), outputs
            a: dict[str, Array] = {}
            outputs = model.apply(params, x, recording(a, adding(eps) if noisy else plain))
            return (per_example(loss, outputs, y), a), outputs

        clean, outputs = measured({})
        shapes = node_shapes(model, params, x)
        change = directional(difference, lambda eps: measured(eps)[0], clean, shapes, sigma)

        def signals(key):
            dl, da = change(draw(key, shapes, noise))
            n = sum(units(d) for d in da.values())
            gain = n * dl / sum(squared_norm(d) for d in da.values()) / len(x)
            return {name: expand(gain, d) * d for name, d in da.items()}

        mean = mean_over(signals, key, samples, at_once=max(1, ROWS_AT_ONCE // len(x)))
        return pullback(model, params, x, mean), state, Info(clean[0], outputs)

    return Rule(stateless, grads)


def units(a: Any) -> int:
    """Units of one node, for one example: n_l."""
    return a[0].size


def squared_norm(a: Array) -> Array:
    """||a[b]||^2 for every example, (B,), in float32 or better."""
    wide = a if a.dtype == jnp.float64 else a.astype(jnp.float32)
    return jnp.square(wide).reshape(len(a), -1).sum(-1)
