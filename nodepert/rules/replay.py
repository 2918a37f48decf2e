"""Node perturbation in about the memory of inference: noise and activity are computed again instead of kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from nodepert.core import Array, Info, Key, Loss, Model, Rule, expand, node_params, per_example, recording, stateless
from nodepert.rules.directional import Difference, Noise, draw_keys
from nodepert.rules.noise import draw


def whole(known: Array, f: Callable[..., Any], *arguments: Any) -> Any:
    """f(*arguments), computed after `known`, at one go; NaN where `known` is not finite.

    A conditional shares nothing with what is computed around it, and what it needs for itself is gone after it. (An
    optimization barrier does the same on a GPU; on CPU it is dropped before the order of computation is chosen.)
    """

    def undefined(*arguments):
        return jax.tree.map(lambda s: jnp.full(s.shape, jnp.nan, s.dtype), jax.eval_shape(f, *arguments))

    return jax.lax.cond(jnp.isfinite(known).all(), f, undefined, *arguments)


def after(key: Key, a: Array) -> Key:
    """The same key, but not there before `a` is, so that its noise is not made early: 0 * v cannot be left out."""
    data = jax.random.key_data(key) + (0 * a.ravel()[0].astype(jnp.float32)).astype(jnp.uint32)
    return jax.random.wrap_key_data(data, impl=jax.random.key_impl(key))


def replayed(
    model: Model,
    loss: Loss,
    sigma: float,
    samples: int,
    noise: Noise,
    difference: Difference,
    sharing: Literal["example", "batch"],
) -> Rule:
    """The estimate of node perturbation, in two stages: `np(replay=True)`.

    1. The losses: dL_b^k / sigma of each draw k, by passes that keep nothing and draw a node's noise when it is due.
    2. One clean pass more, which draws a node's noise again, from its key, and takes its weight gradient at once:
       sum_b s_l[b] z_l[b]^T with s_l[b] = 1/K sum_k (dL_b^k / sigma) xi_l^k[b].

    Neither stage holds more than a few nodes' activity, noise and gradient at a time, whatever the depth (but for what
    the network itself hands on, as a skip connection does).
    """

    def grads(key, state, params, batch):
        x, y = batch
        keys = draw_keys(key, samples)  # (K,)
        outputs = model.apply(params, x)
        clean = per_example(loss, outputs, y)  # (B,)

        def noise_at(key: Key, name: str, a: Array) -> Array:
            shape = jax.ShapeDtypeStruct((1 if sharing == "batch" else len(x), *a.shape[1:]), a.dtype)
            return draw(key, {name: shape}, noise)[name]

        def losses(key: Key, step: Array | float) -> Array:  # (B,), with step * xi added everywhere
            def noisy(name, op, params, h):
                a = op(params, h)
                return a + (step * noise_at(after(key, a), name, a)).astype(a.dtype)

            return per_example(loss, model.apply(params, x, noisy), y)

        def slope(key: Key) -> Array:  # dL_b / sigma, (B,)
            if difference == "jvp":
                return jax.jvp(lambda step: losses(key, step), (jnp.float32(0),), (jnp.float32(1),))[1]
            if difference == "central":
                upper, lower = jax.lax.map(lambda step: losses(key, step), sigma * jnp.array([1.0, -1.0]))
                return (upper - lower) / (2 * sigma)
            return (losses(key, sigma) - clean) / sigma

        gains = whole(clean, lambda keys: jax.lax.map(slope, keys) / (samples * len(x)), keys)  # (K, B)
        found = {}

        def credit(name, op, params, h):
            def learn(params, h):
                a, local = jax.vjp(lambda p: op(p, h), params)

                def add(signal, one):
                    gain, key = one
                    return signal + expand(gain, a) * noise_at(key, name, a), None

                return a, local(jax.lax.scan(add, jnp.zeros_like(a), (gains, keys))[0])[0]

            a, found[name] = whole(gains, learn, params, h)
            return a

        model.apply(params, x, recording({}, credit))
        _, place = jax.vjp(lambda p: node_params(model, p, x), params)
        return place(found)[0], state, Info(clean, outputs)

    return Rule(stateless, grads)
