"""Moments of a rule's estimates about the exact gradient, node by node, accumulated on the device.

Estimates come in GROUPS groups of equally many draws. The unit is the norm of the exact gradient g of a node.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nodepert.core import Array

GROUPS = 20
FEWEST = 5 * GROUPS  # draws

Vectors = dict[str, Array]  # node -> all its parameters in one vector, float32 or better


class Moments(NamedTuple):
    """Of one node, or of all: products of K draws g_k, and of the means m_i of their groups; r: see `mixed`."""

    along: np.ndarray  # (K,) <g_k, g>
    square: np.ndarray  # (K,) ||g_k||^2
    mixed: np.ndarray  # (K,) <g_k, r>
    change: np.ndarray  # (K,) ||g_k - g_{k-1}||^2, the first one 0: all are exactly 0 where there is no noise
    gram: np.ndarray  # (GROUPS, GROUPS) <m_i - g, m_j - g>
    r_along: float  # <r, g>
    r_square: float  # ||r||^2
    norm: float  # ||g||, in its own units


def vector(tree: Any) -> Array:
    """All leaves of a pytree, one after another, in float32 or better."""
    leaves = [leaf.ravel() for leaf in jax.tree.leaves(tree)]
    return jnp.concatenate([leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32)) for leaf in leaves])


def sample(
    draw: Callable, given: Any, exact: Vectors, mix: Vectors, size: int, progress: Callable
) -> dict[str, Moments]:
    """{node: Moments} of GROUPS groups of `size` draws; draw(given, k) is the estimate {node: vector} of draw k.

    One compiled scan per group; a group's mean then goes to the host, and the device holds five gradients.
    """
    norm = {name: float(np.linalg.norm(np.asarray(g, np.float64))) for name, g in exact.items()}
    scale = {name: n or 1.0 for name, n in norm.items()}  # a gradient of zero: units of the loss
    unit, r = ({name: g / scale[name] for name, g in vectors.items()} for vectors in (exact, mix))

    @jax.jit
    def group(given, unit, r, first, last):
        def add(carry, k):
            sums, last = carry
            h = {name: v / scale[name] for name, v in draw(given, k).items() if name in unit}
            step = jax.tree.map(jnp.subtract, h, last)
            found = {n: jnp.stack([h[n] @ unit[n], h[n] @ h[n], h[n] @ r[n], step[n] @ step[n]]) for n in h}
            return (jax.tree.map(jnp.add, sums, h), h), found

        zeros = jax.tree.map(jnp.zeros_like, unit)
        (sums, last), figures = jax.lax.scan(add, (zeros, last), first + jnp.arange(size))
        return jax.tree.map(lambda s: s / size, sums), last, figures

    means, drawn, last = [], [], jax.tree.map(jnp.zeros_like, unit)
    for i in range(GROUPS):
        mean, last, found = group(given, unit, r, i * size, last)
        means.append(jax.device_get(mean))
        drawn.append(jax.device_get(found))
        progress((i + 1) * size, GROUPS * size)
    moments = {}
    for name, g in unit.items():
        g, ours = np.asarray(g, np.float64), np.asarray(r[name], np.float64)
        d = np.stack([m[name] for m in means]) - g
        along, square, mixed, change = np.concatenate([f[name] for f in drawn]).T.astype(np.float64)
        change[0] = 0  # nothing was drawn before
        moments[name] = Moments(along, square, mixed, change, d @ d.T, float(ours @ g), float(ours @ ours), norm[name])
    return moments


def together(nodes: dict[str, Moments]) -> Moments:
    """The moments of all nodes' estimates as one vector."""
    norm = math.hypot(*(m.norm for m in nodes.values()))
    share = [((m.norm or 1.0) / (norm or 1.0)) ** 2 for m in nodes.values()]

    def total(field: str) -> Any:
        return sum(s * getattr(m, field) for s, m in zip(share, nodes.values(), strict=True))

    return Moments(*map(total, Moments._fields[:-1]), norm=norm)
