"""Shared by the perturbation rules: the slope of the loss along a direction, and the mean over several draws."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from math import prod
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from nodepert.core import Array, Key, Loss, Model, Params, adding, in_parts
from nodepert.rules.exchange import measured
from nodepert.rules.noise import Kind, draw

Difference = Literal["forward", "central", "jvp"]
Noise = Literal["gaussian", "rademacher", "sphere", "orthogonal"]
Independent = Literal["gaussian", "rademacher", "sphere"]
ROWS_AT_ONCE = 16384  # draws x examples in one pass, which bounds the memory of many draws


def loss_along(model: Model, loss: Loss, params: Params, batch: tuple[Array, Array]) -> Callable[[Any], Array]:
    """The function eps -> losses, in parts, with eps[name] added to the pre-activation of every node in eps."""

    def losses(batch, eps):
        x, y = batch
        return in_parts(loss, model.apply(params, x, adding(eps)), y)

    return partial(measured, losses, batch)


def directional(difference: Difference, f: Callable[[Any], Any], clean: Any, shapes: Any, sigma: float):
    """The map xi -> d/ds f(s xi) at s = 0, exact (jvp) or by finite differences of step sigma.

    Args:
        difference: forward, central or jvp.
        f: A function of one pytree that returns a pytree.
        clean: f(0), used by forward.
        shapes: Shapes and dtypes of xi, used by jvp.
        sigma: Step of the finite differences.
    """

    def at(xi, step):
        return f(scaled(xi, step))

    def quotient(upper, lower, step):
        return jax.tree.map(lambda u, v: (u - v) / step, upper, lower)

    if difference == "jvp":
        return jax.linearize(f, jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes))[1]
    if difference == "central":
        return lambda xi: quotient(at(xi, sigma), at(xi, -sigma), 2 * sigma)
    return lambda xi: quotient(at(xi, sigma), clean, sigma)


def scaled(xi: Any, step: Any) -> Any:
    """step * xi, leaf by leaf, in the leaf's own dtype."""
    return jax.tree.map(lambda n: (step * n).astype(n.dtype), xi)


def draw_keys(key: Key, samples: int) -> Key:
    """The keys of the draws of `mean_over`, (samples,)."""
    return key[None] if samples == 1 else keys_from(key, 0, samples)


def keys_from(key: Key, first: Any, count: int) -> Key:
    """fold_in(key, i) for i = first, ..., first + count - 1."""
    return jax.vmap(partial(jax.random.fold_in, key))(first + jnp.arange(count))


def mean_over(f: Callable[[Key], Any], key: Key, samples: int, at_once: int = 1) -> Any:
    """The mean of f over independent keys, `at_once` per pass; what does not depend on the key is computed once."""
    return f(key) if samples == 1 else mean_of(f, partial(keys_from, key), samples, at_once)


def mean_of(f: Callable[[Any], Any], numbered: Callable[[Any, int], Any], samples: int, at_once: int = 1) -> Any:
    """The mean of f over `samples` arguments; `numbered(first, count)` gives some of them, stacked."""

    def total(first, count):
        return jax.tree.map(lambda s: s.sum(0), jax.vmap(f)(numbered(first, count)))

    def add(sums, i):
        return jax.tree.map(jnp.add, sums, total(i * at_once, at_once)), None

    full, rest = divmod(samples, at_once)
    sums = total(full * at_once, rest)  # zeros if rest == 0
    sums = jax.lax.scan(add, sums, jnp.arange(full))[0] if full else sums
    return jax.tree.map(lambda s: s / samples, sums)


def mean_over_draws(
    f: Callable[[dict[str, Array]], Any], key: Key, shapes: Mapping[str, Any], noise: Kind, samples: int, at_once: int
) -> Any:
    """The mean of f(xi) over the draws of a step, {node: xi}, independent or orthogonal."""
    if noise != "orthogonal":
        return mean_over(lambda key: f(draw(key, shapes, noise)), key, samples, at_once)
    rows = orthogonal(key, shapes, samples)
    return mean_of(lambda i: f(rows(i)), lambda first, count: first + jnp.arange(count), samples, at_once)


def orthogonal(key: Key, shapes: Mapping[str, Any], samples: int) -> Callable[[Any], dict[str, Array]]:
    """Orthogonal draws xi_k of all nodes together, k = 0, ..., K - 1, each of length sqrt(n) for n units:

        xi_k[i] = r_i H[k, i mod K]

    with H a Hadamard matrix of K rows (a power of 2) and r one draw of random signs. The sum over k of xi_k xi_k^T is K
    on the diagonal, and r_i r_j K where i = j modulo K: two units are confused only if they share a column. For n a
    multiple of K the squared error of an estimate is n/K - 1 times that of its signal, and 0 for K >= n; independent
    signs have (n - 1)/K.
    """
    from scipy.linalg import hadamard  # late: it takes a third of a second

    matrix, column = jnp.asarray(hadamard(samples), jnp.float32), columns(shapes, samples)
    signs = draw(key, shapes, "rademacher")
    return lambda k: {name: r * matrix[k][column[name]].astype(r.dtype) for name, r in signs.items()}


def columns(shapes: Mapping[str, Any], samples: int) -> dict[str, np.ndarray]:
    """{node: the column of H of each unit}, i mod K."""
    found, start = {}, 0
    for name, shape in shapes.items():
        units = prod(shape.shape[1:])
        found[name] = ((start + np.arange(units)) % samples).reshape(shape.shape[1:])
        start += units
    return found
