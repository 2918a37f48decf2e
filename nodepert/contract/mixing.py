"""Examples never mix: tested at the first use of a loss or a network, on stand-in values.

A rule credits every example with its own loss, so neither may look from one example at another: if some examples of a
small batch are exchanged, nothing may change for the others. The test costs one small program; losses and networks of
NodePert have tests of their own, and skip it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

SIZE = 3  # examples of a stand-in batch
DRAWS = (0, 1, -1)  # batches without a common example: of middle, larger and smaller values
SAME = 1e-4  # relative: the same program on the same values
ALONE = 1e-2  # relative: a batch of one may round otherwise
LARGEST = 10**8  # parameters of a network that is tested

_tested: dict[int, tuple[Any, set[Any]]] = {}  # id of a function -> a weak reference to it, the cases that it passed


def accept(function: Callable[..., Any]) -> None:
    """Exempt a loss, or the `apply` of a network, from the test that examples do not mix."""
    _passed(function).add("all")


def check_loss(loss: Callable[..., Any], outputs: jax.Array, targets: Any) -> None:
    """Raises ValueError if a loss mixes examples, at its first use on these shapes. It is not differentiated."""
    arrays, tree = jax.tree.flatten((outputs, targets))
    case = tree, *((jnp.shape(a)[1:], jnp.result_type(a)) for a in arrays)
    classes = max(2, *outputs.shape[-1:]) if outputs.ndim > 1 else 2

    def batch(draw):
        return jax.tree.unflatten(tree, [stand_in((draw, i), *kind, below=classes, positive=True)
                                         for i, kind in enumerate(case[1:])])  # fmt: skip

    if _found(loss, case, lambda: mixes(lambda pair: loss(*pair), [batch(draw) for draw in DRAWS], alone=True)):
        raise ValueError(
            "a loss must be that of each example alone; this one mixes the examples of a batch: the loss of one "
            "changes with the others. Give outputs and targets one shape, and take means over the last axis only"
        )


def check_network(model: Any, x: Any) -> None:
    """Raises ValueError if a `Model` mixes the examples of a batch, at its first use on inputs of this shape."""
    case = tuple(x.shape[1:]), jnp.result_type(x.dtype)

    def mixing():
        shapes = jax.eval_shape(model.init, jax.random.key(0))
        if sum(s.size for s in jax.tree.leaves(shapes)) > LARGEST:
            return False
        random = np.random.default_rng(0)
        params = jax.tree.map(lambda s: parameter(random, s), shapes)
        return mixes(partial(observed, model.apply), [stand_in((draw, 0), *case) for draw in DRAWS], (params,))

    if _found(model.apply, case, mixing):
        raise ValueError(
            "this network mixes the examples of a batch: the activity of one changes with the others, and per-example "
            "credit would be wrong. Compute nothing over the first axis, such as batch norm or h.mean(0); LayerNorm "
            "and GroupNorm normalise each example"
        )


def observed(apply: Callable[..., Any], params: Any, x: Any) -> Any:
    """Outputs, and activity below and above each node: above a node whose weights are 0 nothing shows."""
    seen = []

    def node(name, op, own, h):
        seen.append((h, op(own, h)))
        return seen[-1][1]

    return apply(params, x, node), seen


def mixes(f: Callable[..., Any], batches: list[Any], fixed: tuple[Any, ...] = (), alone: bool = False) -> bool:
    """Whether a row of what f returns depends on another example than its own.

    Args:
        f: A function (*fixed, batch) of arrays, (3, ...), that returns arrays, (3, ...).
        batches: The first is compared with mixtures of it and each of the others.
        fixed: The other arguments of f.
        alone: Whether f is also compared for the first example in a batch of one.
    """
    batch, *others = batches

    def exchanged(k, other):
        return jax.tree.map(lambda a, b: np.concatenate([a[:k], b[k : k + 1], a[k + 1 :]]), batch, other)

    with jax.ensure_compile_time_eval():  # also while a step is traced
        run = partial(jax.jit(f), *fixed)
        whole = run(batch)
        if _differ(run(batch), whole, slice(None), SAME):  # it draws at random, so that nothing can be said
            return False
        for k, rest in (0, slice(1, None)), (SIZE - 1, slice(SIZE - 1)):
            if any(_differ(run(exchanged(k, other)), whole, rest, SAME) for other in others):
                return True
        return alone and _differ(run(jax.tree.map(lambda a: a[:1], batch)), whole, slice(1), ALONE)


def _differ(found: Any, expected: Any, rows: slice, tolerance: float) -> bool:
    """Whether arrays, (3, ...) in what is expected, differ in these rows by more than rounding."""

    def off(a, b):
        if np.shape(b)[:1] != (SIZE,):
            return False
        a, b = (np.asarray(v, np.complex128) for v in (a, b))
        size = np.abs(b[np.isfinite(b)]).max(initial=0)
        return not np.allclose(a[rows], b[rows], rtol=0, atol=tolerance * size, equal_nan=True)

    return any(map(off, *map(jax.tree.leaves, (found, expected))))


def stand_in(draw: tuple[int, int], shape: Any, dtype: Any, *, below: int = 2, positive: bool = False) -> Any:
    """A batch of inputs, outputs or targets that are not known yet.

    Args:
        draw: Which batch, one of DRAWS, and which of its arrays.
        shape: Of one example.
        dtype: Their type.
        below: Integers are in 0..below-1.
        positive: Whether floats are fractions, (0, 1), which losses may take for probabilities, and not normal.
    """
    which, array = draw
    if not jnp.issubdtype(dtype, jnp.inexact):
        label = np.arange(SIZE).reshape(SIZE, *(1 for _ in shape))
        return ((label + which + np.random.default_rng(array).integers(below, size=shape)) % below).astype(dtype)
    random = np.random.default_rng((which % SIZE, array))
    values = random.uniform(0.4, 0.6, (SIZE, *shape)) if positive else random.normal(size=(SIZE, *shape))
    return (values + which * (0.3 if positive else 3)).astype(dtype)


def parameter(random: np.random.Generator, like: Any) -> Any:
    """Weights of a size that keeps activity finite, and positive gains and biases: those of `init` may be 0."""
    if len(like.shape) < 2:
        return np.asarray(random.uniform(0.1, 0.9, size=like.shape)).astype(like.dtype)
    return (random.normal(size=like.shape) / max(1, np.prod(like.shape[:-1])) ** 0.5).astype(like.dtype)


def _found(function: Callable[..., Any], case: Any, mixing: Callable[[], bool]) -> bool:
    """Whether a function mixes examples, tested at its first use in this case. What fails there is not judged."""
    passed = _passed(function)
    if "all" in passed or case in passed:
        return False
    try:
        mixed = mixing()
    except Exception:
        mixed = False
    if not mixed:
        passed.add(case)
    return mixed


def _passed(function: Callable[..., Any]) -> set[Any]:
    """The cases in which a function was tested, or "all"; not saved for one that has no weak reference."""
    key = id(function)  # it may have no hash
    if key not in _tested or _tested[key][0]() is not function:
        try:
            _tested[key] = weakref.ref(function, lambda _: _tested.pop(key, None)), set()
        except TypeError:
            return set()
    return _tested[key][1]
