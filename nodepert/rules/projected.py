"""Node perturbation from several slopes at once: the error signal that fits them best."""

from __future__ import annotations

from math import prod
from typing import Literal

import jax
import jax.numpy as jnp

from nodepert.core import Array, Info, Loss, Model, Rule, batchsize, node_shapes, per_example, pullback, stateless
from nodepert.errors import UserError
from nodepert.rules.directional import Difference, directional, draw_keys, loss_along
from nodepert.rules.noise import draw
from nodepert.rules.rounding import precise

Estimate = Literal["mean", "projected", "rescaled"]


def projected(
    model: Model, loss: Loss, sigma: float, samples: int, difference: Difference, shared: bool, rescaled: bool
) -> Rule:
    """The projection form of node perturbation: `np(samples=K, estimate=projected)`.

        s[b] = V (V^T V)^-1 c[b],    V = (xi^1, ..., xi^K) over all n units,    c_k = dL_b^k / sigma

    The shortest signal that has the K measured slopes: the projection of delta on the K directions, so that it is never
    longer than delta, and delta itself for K = n. With Gaussian noise its mean is K/n delta; `rescaled` multiplies it
    by n/K. Then E||s - delta||^2 = (n/K - 1) ||delta||^2, against (n + 1)/K for the mean of K draws.

    Args:
        model: The network to train.
        loss: (outputs, targets) -> losses, (B,).
        sigma: Standard deviation of the noise, in units of the pre-activation.
        samples: Draws K per step, all in memory.
        difference: forward, central or jvp.
        shared: One draw for all examples.
        rescaled: Multiply by n/K.

    Returns:
        The `Rule`, without state.

    Raises:
        UserError: At the first step, there are fewer units than draws.
    """

    fine, fine_loss = precise(model, loss, difference, sigma)

    def grads(key, state, params, batch):
        x, y = batch
        outputs = fine.apply(params, x)
        clean = per_example(fine_loss, outputs, y)
        shapes = node_shapes(model, params, x)
        units = sum(prod(s.shape[1:]) for s in shapes.values())
        if samples > units:
            raise UserError(f"samples must be at most the number of perturbed units, {units}; got {samples}")
        if shared:
            shapes = {name: jax.ShapeDtypeStruct((1, *s.shape[1:]), s.dtype) for name, s in shapes.items()}
        losses = loss_along(fine, lambda o, y: per_example(fine_loss, o, y), params, batch)
        slope = directional(difference, losses, clean, shapes, sigma)
        xi = jax.vmap(lambda key: draw(key, shapes, "gaussian"))(draw_keys(key, samples))
        c = jax.vmap(slope)(xi).T[..., None]  # (B, K, 1)
        weights = jnp.linalg.solve(gram(xi), c.astype(jnp.float32))[..., 0]  # (B, K)
        factor = (units / samples if rescaled else 1) / batchsize(x)
        signals = {name: (factor * jnp.einsum("bk,kb...->b...", weights, n)).astype(n.dtype) for name, n in xi.items()}
        return pullback(model, params, x, signals), state, Info(clean, outputs)

    return Rule(stateless, grads)


def gram(xi: dict[str, Array]) -> Array:
    """V^T V of each example, (B, K, K), over the units of all nodes, in float32 or better."""
    flat = [n.reshape(*n.shape[:2], -1).astype(jnp.float32) for n in xi.values()]
    return sum((jnp.einsum("kbn,jbn->bkj", v, v) for v in flat), jnp.float32(0))
