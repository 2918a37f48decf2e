"""Node perturbation in about the memory of inference: noise and activity are computed twice instead of stored."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp

from nodepert.contract.loops import get_opaque_trace_state, keep, now, stacked_shape
from nodepert.core import (
    Array,
    Info,
    Loss,
    Model,
    Node,
    Rule,
    batchsize,
    expand,
    in_parts,
    node_params,
    recording,
    stateless,
)
from nodepert.rules.credit import Credit, total
from nodepert.rules.directional import Difference, draw_keys
from nodepert.rules.noise import Kind, draw
from nodepert.rules.rounding import precise

NoiseAt = Callable[[Array, str, Array], Array]  # (key data, node, pre-activation) -> noise


def replayed(
    model: Model,
    loss: Loss,
    sigma: float,
    samples: int,
    noise: Kind,
    difference: Difference,
    sharing: Literal["example", "batch"],
    credit: Credit,
) -> Rule:
    """The estimate of node perturbation in two stages: `np(replay=True)`.

    1. Losses: dL_b^k / sigma of each draw k, by passes that store nothing and draw each node's noise when needed.
    2. One more clean pass, which draws each node's noise again, from the same key, and computes the weight gradient
       immediately: sum_b s_l[b] z_l[b]^T with s_l[b] = 1/K sum_k (dL_b^k / sigma) xi_l^k[b].

    At any time, both stages hold activity, noise and gradient of a few nodes only, whatever the depth (plus what the
    network itself passes on, as in a skip connection).
    """

    fine, fine_loss = precise(model, loss, difference, sigma)

    def grads(key, state, params, batch):
        x, y = batch
        keys = jax.random.key_data(draw_keys(key, samples))  # (K, words): a typed key in a conditional counts as reused
        outputs = fine.apply(params, x)
        clean = in_parts(fine_loss, outputs, y)  # (B,), or (B, T)
        noise_at = partial(node_noise, noise, 1 if sharing == "batch" else batchsize(x), jax.random.key_impl(key))

        def losses(key: Array, step: Array | float) -> Array:  # as clean, with step * xi added at all nodes
            return in_parts(fine_loss, fine.apply(params, x, perturbing(key, step, noise_at)), y)

        slope = partial(slope_of, losses, difference, clean, sigma)
        gains = whole(clean, lambda keys: jax.lax.map(slope, keys) / (samples * batchsize(x)), keys)  # (K, B, ...)
        found = {}
        model.apply(params, x, recording({}, crediting(found, gains, keys, noise_at, credit)))
        _, place = jax.vjp(lambda p: node_params(model, p, x), params)
        return place(found)[0], state, Info(total(clean), outputs)

    return Rule(stateless, grads)


def node_noise(noise: Kind, examples: int, generator: Any, data: Array, name: str, a: Array) -> Array:
    """The noise of one node, (examples, ...), as `draw` makes it for all nodes from the key with these data."""
    key = jax.random.wrap_key_data(data, impl=generator)
    key = key if now() is None else jax.random.fold_in(key, now())
    return draw(key, {name: jax.ShapeDtypeStruct((examples, *a.shape[1:]), a.dtype)}, noise)[name]


def perturbing(key: Array, step: Array | float, noise_at: NoiseAt) -> Node:
    """A node handler that adds step * xi to every pre-activation, drawing xi when the node is called."""

    def noisy(name, op, params, h):
        a = op(params, h)
        return a + (step * noise_at(after(key, a), name, a)).astype(a.dtype)

    return noisy


def slope_of(
    losses: Callable[[Array, Array | float], Array], difference: Difference, clean: Array, sigma: float, key: Array
) -> Array:
    """dL_b / sigma of one draw, (B,) or in parts; `losses(key, step)` gives the losses with step * xi added."""
    if difference == "jvp":
        return jax.jvp(lambda step: losses(key, step), (jnp.float32(0),), (jnp.float32(1),))[1]
    if difference == "central":
        upper, lower = jax.lax.map(lambda step: losses(key, step), sigma * jnp.array([1.0, -1.0]))
        return (upper - lower) / (2 * sigma)
    return (losses(key, sigma) - clean) / sigma


def crediting(found: dict[str, Any], gains: Array, keys: Array, noise_at: NoiseAt, credit: Credit) -> Node:
    """A node handler that writes each node's weight gradient into `found`; gains: (K, B, ...), keys: (K, words)."""

    trace = get_opaque_trace_state()

    def crediting_node(name, op, params, h):
        def learn(params, h):
            a, local = jax.vjp(lambda p: op(p, h), params)

            def add(signal, one):
                gain, key = one
                gain = credit(gain, stacked_shape(a))  # (B,), or (B, T)
                gain = gain if gain.ndim == 1 or now() is None else gain[:, now()]
                return signal + expand(gain, a) * noise_at(key, name, a), None

            return a, local(jax.lax.scan(add, jnp.zeros_like(a), (gains, keys))[0])[0]

        a, learned = whole(gains, learn, params, h)
        keep(found, name, learned, trace, summed=True)
        return a

    return crediting_node


def whole(known: Array, f: Callable[..., Any], *arguments: Any) -> Any:
    """f(*arguments), computed as one unit after `known`; NaN if `known` is not finite.

    A conditional shares nothing with the computation around it, and frees its temporaries when it ends. (An
    optimization barrier does the same on a GPU; on CPU it is dropped before the order of computation is chosen.)
    """

    def undefined(*arguments):
        return jax.tree.map(lambda s: jnp.full(s.shape, jnp.nan, s.dtype), jax.eval_shape(f, *arguments))

    return jax.lax.cond(jnp.isfinite(known).all(), f, undefined, *arguments)


def after(data: Array, a: Array) -> Array:
    """The same key data, made to depend on `a`, so that its noise is not drawn early: XLA cannot drop 0 * a."""
    return data + (0 * a.ravel()[0].astype(jnp.float32)).astype(jnp.uint32)
