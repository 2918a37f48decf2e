"""A linear student learns from a linear teacher, one example per update: for mismatch and width-scaling."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nodepert.core import Array, Key, Model, plain
from nodepert.experiments.shared.looping import simulated
from nodepert.registry import make

try:
    from jax import enable_x64
except ImportError:  # before jax 0.8
    from jax.experimental import enable_x64  # pyright: ignore[reportAttributeAccessIssue]


class Learned(NamedTuple):
    """Errors and norms of the students, (replicas, times); not finite for a student that has diverged."""

    error: np.ndarray  # ||W - W*||^2 / 2: the expected loss against the teacher without noise
    norm: np.ndarray  # sqrt(sum_l ||W_l||^2), of the student's weights


def student(sizes: Sequence[int]) -> Model:
    """Linear layers without biases, Xavier-normal; nodes fc0, fc1, ..., out."""
    names = [*(f"fc{i}" for i in range(len(sizes) - 2)), "out"]

    def init(key):
        keys = jax.random.split(key, len(names))
        return {name: xavier(k, m, n) for name, k, (m, n) in zip(names, keys, pairwise(sizes), strict=True)}

    def apply(params, x, node=plain):
        for name in names:
            x = node(name, lambda w, h: h @ w, params[name], x)
        return x

    return Model(init, apply)


def xavier(key: Key, m: int, n: int) -> Array:
    """Weights of variance 2 / (m + n)."""
    return math.sqrt(2 / (m + n)) * jax.random.normal(key, (m, n))


def example(key: Key, t: Any, teacher: Array, noise: Any) -> tuple[Array, Array]:
    """The t-th example, a batch of one: x ~ N(0, I), and the teacher's output with noise of that standard deviation."""
    inputs, target = jax.random.split(jax.random.fold_in(key, t))
    x = jax.random.normal(inputs, (1, teacher.shape[0]))
    return x, x @ teacher + noise * jax.random.normal(target, (1, teacher.shape[1]))


def squared_error(outputs: Array, targets: Array) -> Array:
    """L_b = ||e_b||^2 / 2."""
    return jnp.square(outputs - targets).sum(-1) / 2


def learn(rule: str, sizes: Sequence[int], lr: float, noise: float, at: Sequence[int], keys: Key) -> Learned:
    """Students of these sizes, one for each key, after each number of updates in `at` (rising, from 0 on)."""
    error, norm = _students(rule, tuple(sizes))(at, (lr, noise), keys)
    return Learned(np.asarray(error, np.float64), np.asarray(norm, np.float64))


@cache
def _students(rule: str, sizes: tuple[int, ...]) -> Any:
    """Compiled once for all learning rates."""
    model = student(sizes)
    estimate = make("rule", rule, model, squared_error)

    def one(shared, key):
        lr, noise = shared
        teacher_key, weights, examples, perturbations = jax.random.split(key, 4)
        teacher = xavier(teacher_key, sizes[0], sizes[-1])

        def step(t, params):
            own = jax.random.fold_in(perturbations, t)
            grads, _, _ = estimate.grads(own, (), params, example(examples, t, teacher, noise))
            return jax.tree.map(lambda w, g: w - lr * g, params, grads)

        def measure(params):
            whole = model.apply(params, jnp.eye(sizes[0]))
            squares = sum(jnp.square(w).sum() for w in jax.tree.leaves(params))
            return jnp.square(whole - teacher).sum() / 2, jnp.sqrt(squares)

        return model.init(weights), step, measure

    return simulated(one)


def in_float64(wanted: bool) -> Any:
    """A context in which floats have 64 bits, if wanted."""
    return enable_x64(True) if wanted else contextlib.nullcontext()


def times(steps: int, count: int = 60) -> list[int]:
    """Numbers of updates from 0 to `steps`, equally far apart on a logarithmic axis but for the first."""
    return sorted({0, *(round(steps ** (i / count)) for i in range(count + 1))})
