"""Node perturbation without a clean pass: the noisy loss is compared with that example's expected loss."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
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
    node_shapes,
    per_example,
    plain,
    pullback,
)
from nodepert.registry.ranges import at_least, positive
from nodepert.rules.directional import Independent, mean_over, scaled
from nodepert.rules.noise import Kind, draw
from nodepert.rules.rounding import precise

SLOTS = 2**20  # 4 MiB; two of 60,000 examples share a slot with probability 6%
RATE = 0.5  # in np, the weight of the newest loss in an expectation


class Expected(NamedTuple):
    """Expected losses by slot, (SLOTS,); inf where none is known."""

    loss: Array


def reward_prediction(
    model: Model, loss: Loss, sigma: float, samples: int, noise: Kind, noisy: bool, contexts: int = SLOTS,
    rate: float = RATE,
) -> Rule:  # fmt: skip
    """The reward-prediction form of node perturbation: `np(baseline=running)`.

        s_l[b] = mean_k (L_b(a + sigma xi^k) - Lbar_b) / sigma xi_l^k[b],    Lbar_b <- Lbar_b + 1/2 (L_b - Lbar_b)

    Lbar_b is a running average of the loss of example b, in rule state. Examples are identified by a hash of input and
    target, in any order and batch (two that share a slot have a less accurate Lbar_b). A new example is compared with
    the mean loss of the others in its batch. Both baselines are independent of the example's noise, so that the
    estimate has no more bias than with a clean baseline; the variance increases by (L_b - Lbar_b)^2 / sigma^2, which
    calls for a larger sigma, about 0.1.

    Args:
        model: The network to train.
        loss: (outputs, targets) -> losses, (B,).
        sigma: Standard deviation of the noise, in units of the pre-activation.
        samples: Draws per step.
        noise: Distribution of the noise.
        noisy: Credit the presynaptic activity of the noisy pass, so that there is no clean pass; else of a clean one.
        contexts: Number of expected losses; with 1 it is the same for all examples.
        rate: Weight of the newest loss in an expectation.

    Returns:
        The `Rule`; its info holds the noisy loss and outputs, averaged over draws.
    """

    fine, fine_loss = precise(model, loss, "forward", sigma)

    def init(key, params, x):
        return Expected(jnp.full(contexts, jnp.inf, jnp.float32))

    def grads(key, state, params, batch):
        x, y = batch
        shapes = node_shapes(model, params, x)
        slot = slots(x, y) % contexts
        expected = state.loss[slot]

        def one_draw(key):
            xi = draw(key, shapes, noise)
            handler = adding(scaled(xi, sigma))
            outputs = fine.apply(params, x, handler)
            losses = per_example(fine_loss, outputs, y)
            others = (losses.sum() - losses) / max(batchsize(x) - 1, 1)
            surprise = losses - jnp.where(jnp.isinf(expected), others, expected)
            signals = {name: expand(surprise / (sigma * batchsize(x)), n) * n for name, n in xi.items()}
            return pullback(model, params, x, signals, handler if noisy else plain), Info(losses, outputs)

        mean, info = mean_over(one_draw, key, samples)
        return mean, Expected(updated(state.loss, slot, info.loss, rate)), info

    return Rule(init, grads)


def reinforce(
    model: Model, loss: Loss, *, sigma: float = 0.1, samples: int = 1, noise: Independent = "gaussian",
    rate: float = 0.1,
) -> Rule:  # fmt: skip
    """REINFORCE for units with Gaussian noise: the noise of a unit is its exploration, and reward is minus the loss.

        g_l = 1/B sum_b (L_b(a + sigma xi) - Lbar) / sigma xi_l[b] z_l[b]^T,    Lbar <- Lbar + rate (<L> - Lbar)

    xi / sigma is the derivative of the log probability density of a noisy pre-activation (the score), and z_l the
    presynaptic activity of the noisy pass: there is no other. The estimate is `np(baseline=running)`, but for the
    baseline, which is one number: it knows nothing of the example.

    Cost: a noisy forward pass, the weight gradients; each further draw adds both.
    Bias: unbiased for the loss smoothed by the noise; as sigma -> 0 for the loss itself.
    Derivative of the loss: not needed.

    The variance is that of np plus (L_b - Lbar)^2 / sigma^2 times the number of units, which calls for a large sigma.

    Args:
        model: The network to train.
        loss: (outputs, targets) -> losses, (B,).
        sigma: Standard deviation of the noise, in units of the pre-activation.
        samples: Draws K per step.
        noise: gaussian, rademacher or sphere; the score is that of gaussian.
        rate: Weight of the newest mean loss in the baseline, in (0, 1].

    Returns:
        The `Rule`; its state is the baseline, its info has the noisy loss and outputs, averaged over draws.

    Raises:
        ValueError: sigma is not positive and finite, samples < 1, or rate is not in (0, 1].

    Examples:
        >>> import nodepert as npt
        >>> model = npt.make_model("fc(width=20)", (4,), 3)
        >>> rule = npt.make_rule("reinforce(sigma=0.1)", model, npt.make_loss("zero-one"))

    References:
        Williams 1992, Machine Learning 8.
    """
    positive("sigma", sigma)
    at_least("samples", samples, 1)
    if isinstance(rate, int | float) and not 0 < rate <= 1:
        raise ValueError(f"rate must be above 0 and at most 1; got {rate}")
    return reward_prediction(model, loss, sigma, samples, noise, True, contexts=1, rate=rate)


def slots(x: Array, y: Array) -> Array:
    """The slot of every example, (B,): a hash of the bits of its input and target."""
    code = jnp.zeros(batchsize(x), jnp.uint32)
    for a in (x, y):
        words = bits(a)
        place = jnp.arange(words.shape[1], dtype=jnp.uint32) * jnp.uint32(0x9E3779B9) | 1
        mixed = (words ^ (words >> 16)) * place
        code = (code ^ mixed.sum(1, dtype=jnp.uint32)) * jnp.uint32(0x85EBCA6B)
        code = code ^ (code >> 15)
    return (code % SLOTS).astype(jnp.int32)


def bits(a: Array) -> Array:
    """The bits of every example as 32-bit words, (B, words)."""
    a = a.reshape(len(a), -1)
    if jnp.issubdtype(a.dtype, jnp.floating):
        return jax.lax.bitcast_convert_type(a.astype(jnp.float32) + 0.0, jnp.uint32)  # + 0.0: -0 is 0
    return a.astype(jnp.uint32)


def updated(table: Array, slot: Array, losses: Array, rate: Any = RATE) -> Array:
    """Move expectations towards the newest losses; examples that share a slot use their mean."""
    order = jnp.sort(slot)
    first, last = (
        jnp.searchsorted(order, slot, side=side) for side in ("left", "right")
    )  # a slot's place in the batch
    mean = jnp.zeros_like(losses).at[first].add(losses)[first] / (last - first).astype(losses.dtype)
    old = jnp.where(jnp.isinf(table[slot]), mean, table[slot])
    return table.at[slot].set(old + rate * (mean - old))
