"""Noise on weights: which weights can act on an example, and low-rank noise with orthogonal factors."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import jax
import jax.numpy as jnp

from nodepert.contract.loops import get_opaque_trace_state, keep
from nodepert.core import Array, Key, Model, Op, Params, recording
from nodepert.errors import UserError
from nodepert.models.layers import Affine
from nodepert.rules.noise import draw


def active_inputs(model: Model, params: Params, x: Array) -> dict[str, Array]:
    """{leaf: 1 where an example has an input of that weight that is not 0, else 0}, (B, *inputs, 1), of the weights of
    dense layers and convolutions; of others, nothing."""
    gates, rank, trace = {}, {}, get_opaque_trace_state()

    def node(name: str, op: Op, params: Params, h: Array) -> Array:
        if isinstance(op, Affine):
            rank[name] = params["w"].ndim + 1
            keep(gates, name, jax.vmap(lambda h: reached(op, params["w"], h))(h), trace)
        return op(params, h)

    model.apply(params, x, recording({}, node))
    return {f"{name}['w']": g.max(tuple(range(1, 1 + g.ndim - rank[name]))) for name, g in gates.items()}  # over time


def reached(op: Affine, w: Array, h: Array) -> Array:
    """1 where a weight has an input that is not 0 at some position of one example, (*inputs, 1)."""
    one = w[..., :1]  # every output has the same inputs

    def summed(w):
        return op({"w": w, "b": jnp.zeros_like(w[(0,) * (w.ndim - 1)])}, jnp.abs(h)[None]).sum()

    return (jax.grad(summed)(one) != 0).astype(w.dtype)


def factors(key: Key, shapes: Mapping[str, Any], noise: str, low: tuple[str, ...]) -> dict[str, Array]:
    """Noise {leaf: (draws, ...)}; with noise=orthogonal, columns of a factor that are orthogonal to each other and of
    length sqrt(m), (draws, m, rank), uniform over all of these, and signs for leaves that are no factor."""
    if noise != "orthogonal":
        return draw(key, shapes, noise)
    normal = draw(key, {name: s for name, s in shapes.items() if name in low}, "gaussian")
    signs = draw(key, {name: s for name, s in shapes.items() if name not in low}, "rademacher")
    return signs | {name: orthogonal_columns(name, n) for name, n in normal.items()}


def orthogonal_columns(name: str, normal: Array) -> Array:
    """Orthogonal columns from Gaussian ones, (draws, ..., rank); the signs make them uniform."""
    rows, rank = prod(normal.shape[1:-1]), normal.shape[-1]
    if rank > rows:
        raise UserError(f"noise=orthogonal needs a rank of at most {rows}, the inputs or outputs of {name}; got {rank}")
    q, r = jnp.linalg.qr(normal.reshape(-1, rows, rank).astype(jnp.float32))
    signs = jnp.sign(jnp.diagonal(r, axis1=1, axis2=2))[:, None]
    return (rows**0.5 * q * signs).reshape(normal.shape).astype(normal.dtype)
