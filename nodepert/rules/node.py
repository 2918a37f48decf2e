"""Node perturbation: noise on pre-activations, credited by the change in each example's loss."""

from __future__ import annotations

from functools import partial
from typing import Literal

import jax

from nodepert.core import (
    Info,
    Loss,
    Model,
    Rule,
    adding,
    batchsize,
    expand,
    in_parts,
    node_shapes,
    pullback,
    stateless,
)
from nodepert.registry import check, make
from nodepert.registry.ranges import at_least, positive
from nodepert.registry.spec import Spec
from nodepert.rules.credit import Credit, total
from nodepert.rules.directional import (
    ROWS_AT_ONCE,
    Difference,
    directional,
    loss_along,
    mean_over_draws,
    scaled,
)
from nodepert.rules.guided import guided
from nodepert.rules.noise import Kind, sparse
from nodepert.rules.prediction import reward_prediction
from nodepert.rules.projected import Estimate, projected
from nodepert.rules.replay import replayed
from nodepert.rules.rounding import precise

Noise = Literal["gaussian", "rademacher", "sphere", "orthogonal", "sparse"]
Sharing = Literal["example", "batch"]
Presynaptic = Literal["auto", "clean", "noisy"]
Head = Literal["perturbed", "evaluated"]


def node_perturbation(
    model: Model,
    loss: Loss,
    *,
    sigma: float = 1e-3,
    samples: int = 1,
    noise: Noise = "gaussian",
    share: float = 0.1,
    difference: Difference = "forward",
    sharing: Sharing = "example",
    baseline: Literal["clean", "running"] = "clean",
    presynaptic: Presynaptic = "auto",
    replay: bool = False,
    active: bool = False,
    head: Head = "perturbed",
    guide: Spec | str = "none",
    credit: Spec | str = "trial",
    estimate: Estimate = "mean",
) -> Rule:
    """Node perturbation: perturb all pre-activations at once, and credit the change in each example's loss.

        s_l[b] = mean_k (dL_b^k / sigma) xi_l^k[b],    g_l = 1/B sum_b s_l[b] z_l[b]^T

    with pre-activation a_l and presynaptic activity z_l of node l, unit-variance noise xi on a_l, and batch size B. The
    slope dL_b/sigma is computed by `difference`:

    - forward: (L_b(a + sigma xi) - L_b(a)) / sigma. One noisy pass. The bias is at most O(sigma^2) (a ReLU acts as if
      smoothed over sigma), and zero at any sigma for a quadratic loss on one linear layer.
    - central: (L_b(a + sigma xi) - L_b(a - sigma xi)) / (2 sigma). Two noisy passes, O(sigma^2), smaller variance.
    - jvp: the exact directional derivative along xi (the "forward gradient" of activities). Unbiased.

    Cost: a clean and a noisy forward pass, the weight gradients; each further draw, and central, adds 1; running
    makes no clean pass.
    Bias: unbiased as sigma -> 0, with an error of O(sigma^2) where the network is smooth; with jvp at any sigma;
        biased with estimate=projected, in length only.
    Derivative of the loss: not needed, except by jvp.

    The variance grows with the number n of perturbed units: the squared norm of one example's estimate is about n
    times that of its gradient. Where a pre-activation is exactly at a kink of the activation function (0 before a ReLU,
    as for an example to which no unit below responds, with zero biases), finite differences give the mean of the two
    slopes at any sigma, and jvp the slope that JAX defines.

    Args:
        model: The network to train.
        loss: (outputs, targets) -> losses, (B,).
        sigma: Standard deviation of the noise, in units of the pre-activation.
        samples: Draws K per step; the variance is divided by K. Signals are averaged before the one pullback.
        noise: gaussian, rademacher (signs), sphere (uniform on the sphere of radius sqrt(n_l) for n_l units), or
            orthogonal: signs whose K draws are orthogonal to each other; K must be a power of 2, and n/K - 1 replaces
            (n - 1)/K in the variance. sparse: gaussian noise on a random `share` of the units, in time at each step
            anew, of variance sigma^2 / share there, so that the mean is the same (Miconi 2017).
        share: With noise=sparse the probability that a unit is perturbed, in (0, 1].
        difference: forward, central or jvp, see above.
        sharing: example: independent noise for every example. batch: one draw for all examples, each credited with its
            own loss difference; unbiased too, with larger variance.
        baseline: clean: the loss of a clean pass. running: no clean pass; the noisy loss is compared with a running
            average of that example's loss, saved in rule state (reward prediction, see rules/prediction.py).
        presynaptic: clean: the activity of the clean pass. noisy: the activity of the noisy pass, as in a network that
            never runs without noise; one weight gradient per draw. auto: clean with baseline=clean, else noisy.
        replay: Compute noise and activity twice instead of storing them: the same estimate, in memory that does not
            grow with depth (see rules/replay.py), for one more clean pass.
        active: Perturb only units that can change what follows (not an inactive ReLU): the true signal of the others
            is 0. The variance falls by their share.
        head: perturbed: the outputs too. evaluated: the error of the outputs is computed from the loss alone, by
            changing each output (see rules/guided.py), and the output node is not perturbed.
        guide: A prediction of the signals, subtracted as a control variate: none, feedback, chain, kp, dfa or
            last (`nodepert list guides`; see rules/guides/guide.py). Unbiased whatever it predicts. Needs
            head=evaluated.
        credit: With a loss in parts, (B, T), which parts answer for the noise of a step: trial (all), future (the same
            step and later ones; future(gamma=0.9) discounts these), or own (see rules/credit.py). trial is unbiased;
            future too, with smaller variance, where no step acts on an earlier one; own where no part acts on another.
        estimate: mean: of the draws. projected: the shortest signals that have all K measured slopes, of which the mean
            is K/n of the true ones: biased in length, not in direction. rescaled: those times n/K, unbiased, with a
            variance of n/K - 1 in place of (n + 1)/K (see rules/projected.py). Both need Gaussian noise.

    Returns:
        The `Rule`; its state is empty, except with baseline=running or a guide.

    Raises:
        ValueError: sigma is not positive and finite, samples < 1, two options exclude each other, or, at the first
            step, the loss is not per example.

    Examples:
        >>> import jax, nodepert as npt
        >>> model, loss = npt.make_model("fc(width=20)", (4,), 3), npt.make_loss("mse")
        >>> rule = npt.node_perturbation(model, loss, sigma=1e-3, samples=4)
        >>> params, x, y = model.init(jax.random.key(0)), jax.numpy.ones((5, 4)), jax.numpy.zeros(5, int)
        >>> grads, state, info = rule.grads(jax.random.key(1), rule.init(jax.random.key(2), params, x), params, (x, y))
        >>> grads["out"]["w"].shape
        (20, 3)

    References:
        Werfel, Xie and Seung 2005; Fiete and Seung 2006 (running); Hiratani et al. 2022 (one-sided); Ren et al. 2023
        (jvp).
    """
    positive("sigma", sigma)
    at_least("samples", samples, 1)
    if noise == "orthogonal" and samples & (samples - 1):
        raise ValueError(f"noise=orthogonal needs a power of 2 as samples; got {samples}")
    if isinstance(share, int | float) and not 0 < share <= 1:
        raise ValueError(f"share is a probability, above 0 and at most 1; got {share}")
    guide, parts = check("guide", guide), check("credit", credit)
    reduced, noisy = active or head == "evaluated" or guide.name != "none", presynaptic == "noisy"
    if (reduced or noise == "orthogonal") and (replay or noisy or baseline == "running"):
        raise ValueError("active, head, guide and noise=orthogonal need a clean pass: leave out replay, baseline and "
                         "presynaptic")  # fmt: skip
    if guide.name != "none" and head != "evaluated":
        raise ValueError("a guide needs head=evaluated: it predicts from the error of the outputs")
    if estimate != "mean":
        if reduced or replay or noisy or (noise, baseline, parts.name) != ("gaussian", "clean", "trial"):
            raise ValueError(f"estimate={estimate} needs noise=gaussian and a clean pass: leave out active, head, "
                             "guide, credit, replay, baseline and presynaptic")  # fmt: skip
        return projected(model, loss, sigma, samples, difference, sharing == "batch", estimate == "rescaled")
    credited = make("credit", parts)
    kind = partial(sparse, share) if noise == "sparse" else noise
    if reduced:
        return guided(model, loss, make("guide", guide, model), sigma=sigma, samples=samples, noise=kind,
                      difference=difference, shared=sharing == "batch", gated=active,
                      evaluated=head == "evaluated", credit=credited)  # fmt: skip
    if baseline == "running":
        if (difference, sharing, replay, parts.name) != ("forward", "example", False, "trial"):
            raise ValueError("baseline=running needs difference=forward, sharing=example, replay=False, credit=trial: "
                             "the noisy loss of an example is compared with a baseline that must not share its noise"
                             )  # fmt: skip
        return reward_prediction(model, loss, sigma, samples, kind, presynaptic != "clean")
    if replay and noisy:
        raise ValueError("replay=True needs presynaptic=clean: it credits the activity of a clean pass")
    if replay:
        return replayed(model, loss, sigma, samples, kind, difference, sharing, credited)
    if noisy and difference == "jvp":
        raise ValueError("presynaptic=noisy needs difference=forward or central: with jvp the noise is infinitesimal")
    return with_clean_pass(model, loss, sigma, samples, kind, difference, sharing, noisy, credited)


def with_clean_pass(
    model: Model, loss: Loss, sigma: float, samples: int, noise: Kind, difference: Difference,
    sharing: Sharing, noisy: bool, credit: Credit,
) -> Rule:  # fmt: skip
    """Node perturbation with baseline=clean; `noisy`: credit the presynaptic activity of the noisy pass."""

    fine, fine_loss = precise(model, loss, difference, sigma)

    def grads(key, state, params, batch):
        x, y = batch
        outputs = fine.apply(params, x)
        clean = in_parts(fine_loss, outputs, y)  # (B,), or (B, T)
        shapes = node_shapes(model, params, x)
        if sharing == "batch":
            shapes = {name: jax.ShapeDtypeStruct((1, *s.shape[1:]), s.dtype) for name, s in shapes.items()}
        slope = directional(difference, loss_along(fine, fine_loss, params, batch), clean, shapes, sigma)

        def one_draw(xi):
            gain = slope(xi) / batchsize(x)  # as the loss
            signals = {name: expand(credit(gain, n), n) * n for name, n in xi.items()}
            return pullback(model, params, x, signals, adding(scaled(xi, sigma))) if noisy else signals

        at_once = 1 if noisy else max(1, ROWS_AT_ONCE // batchsize(x))
        mean = mean_over_draws(one_draw, key, shapes, noise, samples, at_once)
        return mean if noisy else pullback(model, params, x, mean), state, Info(total(clean), outputs)

    return Rule(stateless, grads)
