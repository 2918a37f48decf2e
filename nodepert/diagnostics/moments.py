"""Moments of a rule's estimate about the exact gradient, node by node, and what may be concluded from them.

Estimates come in GROUPS groups of equally many draws. All is in units of the norm of the exact gradient g of a node.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nodepert.core import Array
from nodepert.diagnostics.verdict import ALL

GROUPS = 20
ALPHA = 1e-3  # how often a check of a rule without bias may find one
FLIPS = 2**17

Vectors = dict[str, Array]  # node -> all its parameters in one vector, float32 or better


class Moments(NamedTuple):
    """Of one node, or of all: figures of K draws g_k, and of the means m_i of their groups; r: see `mixed`."""

    along: np.ndarray  # (K,) <g_k, g>
    square: np.ndarray  # (K,) ||g_k||^2
    mixed: np.ndarray  # (K,) <g_k, r>
    change: np.ndarray  # (K,) ||g_k - g_{k-1}||^2, the first one 0: all are exactly 0 where there is no noise
    gram: np.ndarray  # (GROUPS, GROUPS) <m_i - g, m_j - g>
    r_along: np.ndarray  # () <r, g>
    r_square: np.ndarray  # () ||r||^2
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
        moments[name] = Moments(along, square, mixed, change, d @ d.T, ours @ g, ours @ ours, norm[name])
    return moments


def together(nodes: dict[str, Moments]) -> Moments:
    """The moments of all nodes' estimates as one vector."""
    norm = math.hypot(*(m.norm for m in nodes.values()))
    share = [((m.norm or 1.0) / (norm or 1.0)) ** 2 for m in nodes.values()]

    def total(field: str) -> Any:
        return sum(s * getattr(m, field) for s, m in zip(share, nodes.values(), strict=True))

    return Moments(*map(total, Moments._fields[:-1]), norm=norm)


def figures(m: Moments, level: float, tolerance: float) -> dict[str, Any]:
    """The columns of a row of `nodepert.check`, and its verdict; `level`: probability of a false alarm in each test."""
    draws, root = len(m.along), len(m.along) ** 0.5
    if m.norm == 0:
        return dict.fromkeys(COLUMNS, math.nan) | {"verdict": "no gradient"}
    cosine = m.along / np.where(m.square > 0, np.sqrt(m.square), 1)
    gain, gain_error = m.along.mean(), m.along.std(ddof=1) / root
    mixing, mixing_error = mixed_up(m, tolerance)
    variance = m.change.sum() / (2 * (draws - 1))
    apart = m.gram.mean()  # ||m - g||^2, noise and all
    length = math.sqrt(max(apart + 2 * gain - 1, 0))  # ||m||
    square, error = off_diagonal(m.gram)
    still = variance <= (0.1 * tolerance) ** 2 * m.square.mean()
    if still:
        variance, gain_error, mixing_error, square, error = 0.0, 0.0, 0.0, apart, 0.0
        verdict = "exact" if apart < tolerance**2 else "biased"
    else:
        off = [(gain - 1, gain_error), (mixing, mixing_error)]
        unlikely = any(math.erfc(abs(x) / (s * 2**0.5)) < level for x, s in off if s > 0)
        unlikely = unlikely or chance(m.gram) < max(level, 1 / FLIPS)
        matters = max(abs(gain - 1), math.sqrt(max(square, 0))) > tolerance
        verdict = "biased" if unlikely and matters else "unbiased"
    low, mid, high = (math.sqrt(max(s, 0)) for s in (square - 2 * error, square, max(square, 0) + 2 * error))
    values = (
        *(cosine.mean(), cosine.std(ddof=1) / root, gain / length if length else 0.0),
        *(gain, gain_error, mixing, mixing_error, mid, low, high, variance, math.sqrt(m.square.mean())),
        half(gain, square, variance) if verdict == "biased" else half(1, 0, variance),
    )
    return {k: float(v) for k, v in zip(COLUMNS, values, strict=True)} | {"verdict": verdict}


COLUMNS = ("cosine", "cosine_error", "cosine_mean", "gain", "gain_error", "mixing", "mixing_error", "bias", "bias_low",
           "bias_high", "variance", "norm_ratio", "draws_to_half")  # fmt: skip


def mixed_up(m: Moments, tolerance: float) -> tuple[float, float]:
    """The component of m - g along r, less what of r is along g, and its standard error; r itself has 1.

    nan where r is as good as along g: all examples are alike, or there is but one.
    """
    across = m.r_square - m.r_along**2
    if across < tolerance**2:
        return math.nan, math.nan
    each = (m.mixed - m.r_along * m.along) / across
    return each.mean(), each.std(ddof=1) / len(each) ** 0.5


def off_diagonal(gram: np.ndarray) -> tuple[float, float]:
    """Mean of the products of different groups, which estimates ||m - g||^2 without bias; its jackknife error."""
    n = len(gram)
    rows = gram.sum(1) - np.diag(gram)
    left_out = (rows.sum() - 2 * rows) / ((n - 1) * (n - 2))
    return rows.sum() / (n * (n - 1)), math.sqrt((n - 1) / n * np.square(left_out - left_out.mean()).sum())


def chance(gram: np.ndarray) -> float:
    """Probability that groups without bias would have products as large as these.

    A group's mean error is then as likely as its negative, whatever its covariance: so the sum of the off-diagonal
    products is compared with what it is under random signs of the groups.
    """
    products = gram - np.diag(np.diag(gram))
    total, spread = products.sum(), math.sqrt(2 * np.square(products).sum())  # the standard deviation under the signs
    if total < 2 * spread:
        return 1.0  # not unlikely, and not worth the time
    sums = np.einsum("fi,fi->f", signs() @ (products / spread).astype(np.float32), signs())
    return float((1 + (sums >= total / spread - 1e-4).sum()) / (1 + FLIPS))


@cache
def signs() -> np.ndarray:
    """Random signs, (FLIPS, GROUPS), the same at every call."""
    return np.random.default_rng(0).choice(np.array([-1, 1], np.float32), (FLIPS, GROUPS))


def half(gain: float, bias2: float, variance: float) -> float:
    """Draws K whose mean has cosine 1/2 with g: <m, g> / sqrt(||m||^2 + variance / K) = 1/2.

    Here ||m||^2 = bias^2 + 2 gain - 1.
    """
    square = max(max(bias2, 0) + 2 * gain - 1, gain**2)
    room = 4 * gain**2 - square
    if gain <= 0 or room < 0 or (room == 0 and variance > 0):
        return math.inf
    return max(1.0, math.ceil(variance / room)) if variance else 1.0


def judged(nodes: dict[str, Moments], tolerance: float) -> dict[str, dict[str, Any]]:
    """{node: figures}, and last those of all nodes: biased where one node is.

    Gain, mixing and bias of every node and of all nodes are tested, each at ALPHA over the number of tests.
    """
    level = ALPHA / (3 * (len(nodes) + 1))
    found = {name: figures(m, level, tolerance) for name, m in nodes.items()}
    total = figures(together(nodes), level, tolerance)
    if any(f["verdict"] == "biased" for f in found.values()):
        total["verdict"] = "biased"
    return found | {ALL: total}
