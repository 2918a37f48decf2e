"""Examples never mix: tested at the first use of a loss or a network, on stand-in values.

A rule credits every example with its own loss, so neither may look from one example at another: if some examples of a
small batch are exchanged, nothing may change for the others. The test costs one small program; losses and networks of
NodePert have tests of their own, and skip it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np

from nodepert.contract.loops import get_opaque_trace_state, keep
from nodepert.contract.stand_ins import Examples, parameter
from nodepert.contract.tested import ALL, cases

SIZE = 3  # examples of a stand-in batch; the real number for what accepts no other
SAME = 1e-4  # relative: the same program on the same values
ALONE = 1e-2  # relative: a batch of one may round otherwise
LARGEST = 10**8  # parameters of a network that is tested, and numbers in a batch
OTHERS, BATCHSIZE = "other examples", "batch size"  # what an example may depend on, and must not


def check_loss(loss: Callable[..., Any], outputs: jax.Array, targets: Any) -> None:
    """Raises ValueError if a loss mixes examples, at its first use on these shapes. It is not differentiated."""
    n = outputs.shape[-1] if outputs.ndim > 1 else 1

    def test(examples):
        return _dependence(lambda pair: loss(*pair), examples, alone=True, below=max(2, n), positive=True)

    found = _judged(loss, ((outputs, targets), len(outputs), n), test)
    if found == OTHERS:
        raise ValueError(
            "a loss must be that of each example alone; this one mixes the examples of a batch: the loss of one "
            "changes with the others. Give outputs and targets one shape, and take means over the last axis only"
        )
    if found == BATCHSIZE:
        raise ValueError(
            "a loss must be that of each example alone; this one changes with the number of examples, as one that is "
            "divided by the batch size; return each example's own loss"
        )


def check_network(model: Any, x: Any) -> None:
    """Raises ValueError if a `Model` mixes the examples of a batch, at its first use on inputs of this shape.

    Inputs may be a pytree, whose first array says how many examples there are.
    """

    def test(examples):
        shapes = jax.eval_shape(model.init, jax.random.key(0))
        if sum(s.size for s in jax.tree.leaves(shapes)) > LARGEST:
            return ""
        random = np.random.default_rng(0)
        params = jax.tree.map(lambda s: parameter(random, s), shapes)
        return _dependence(partial(observed, model.apply), examples, (params,))

    sizes = [a.shape[0] for a in jax.tree.leaves(x) if getattr(a, "shape", ())]
    if sizes and _judged(model.apply, (x, sizes[0]), test):
        raise ValueError(
            "this network mixes the examples of a batch: the activity of one changes with the others, and per-example "
            "credit would be wrong. Compute nothing over the first axis, such as batch norm or h.mean(0); LayerNorm "
            "and GroupNorm normalise each example"
        )


def _judged(function: Callable[..., Any], given: tuple[Any, ...], test: Callable[[Examples], str]) -> str:
    """What a function makes an example depend on, tested at its first use in this case.

    What fails on stand-in values is not judged, and tested again at the next use.
    """
    passed = cases(function)
    if ALL in passed:
        return ""
    try:
        examples = Examples.of(*given)
        case = examples.case
        if case in passed:
            return ""
        # whatever guards the user's own computation
        with jax.transfer_guard("allow"), jax.debug_nans(False), jax.debug_infs(False):
            found = test(examples)
    except Exception:
        return ""
    if not found:
        passed.add(case)
    return found


def _dependence(
    f: Callable[..., Any], examples: Examples, fixed: tuple[Any, ...] = (), alone: bool = False, **options: Any
) -> str:
    """`dependence` on a small batch, or else on one of the real size. Raises if f works on neither."""

    def at(size):
        batches = examples.batches(size, **options)
        return dependence(lambda *args: f(*args[:-1], examples.joined(args[-1])), batches, fixed, alone)

    try:
        return at(SIZE)
    except Exception:
        per_one = sum(np.prod(a.shape[1:]) for a, own in zip(examples.leaves, examples.own, strict=True) if own)
        if examples.size in (1, SIZE) or examples.size * per_one > LARGEST:
            raise
        return at(examples.size)


def observed(apply: Callable[..., Any], params: Any, x: Any) -> Any:
    """Outputs, and activity below and above each node: above a node whose weights are 0 nothing shows."""
    seen, trace = {}, get_opaque_trace_state()

    def node(name, op, own, h):
        a = op(own, h)
        keep(seen, name, (h, a), trace)
        return a

    return apply(params, x, node), seen


def dependence(f: Callable[..., Any], batches: list[Any], fixed: tuple[Any, ...] = (), alone: bool = False) -> str:
    """What a row of what f returns depends on beside its own example: OTHERS, BATCHSIZE or "".

    Args:
        f: A function (*fixed, batch) of arrays, (B, ...), that returns arrays, (B, ...).
        batches: The first is compared with mixtures of it and each of the others.
        fixed: The other arguments of f.
        alone: Whether f is also compared for the first example in a batch of one.

    Raises:
        ValueError: The first array that f returns is not (B, ...).
    """
    batch, *others = batches
    size = len(jax.tree.leaves(batch)[0])

    def exchanged(k, other):
        return jax.tree.map(lambda a, b: np.concatenate([a[:k], b[k : k + 1], a[k + 1 :]]), batch, other)

    with jax.ensure_compile_time_eval():  # also while a step is traced
        run = partial(jax.jit(f), *fixed)
        whole = run(batch)
        if not _has_rows(whole, size):
            raise ValueError("no row for each example")
        if _differ(run(batch), whole, slice(None), SAME):  # it draws at random, so that nothing can be said
            return ""
        for k, rest in (0, slice(1, None)), (size - 1, slice(size - 1)):
            if any(_differ(run(exchanged(k, other)), whole, rest, SAME) for other in others):
                return OTHERS
        return BATCHSIZE if alone and _differs_alone(run, batch, whole) else ""


def _differs_alone(run: Callable[[Any], Any], batch: Any, whole: Any) -> bool:
    """Whether the first row is another one in a batch of one, where there can be such a batch."""
    try:
        one = run(jax.tree.map(lambda a: a[:1], batch))
    except Exception:
        return False
    return _has_rows(one, 1) and _differ(one, whole, slice(1), ALONE)


def _has_rows(found: Any, size: int) -> bool:
    return np.shape(jax.tree.leaves(found)[0])[:1] == (size,)


def _differ(found: Any, expected: Any, rows: slice, tolerance: float) -> bool:
    """Whether arrays, (B, ...) in what is expected, differ in these rows by more than rounding."""
    size = len(jax.tree.leaves(expected)[0])

    def off(a, b):
        if np.shape(b)[:1] != (size,):
            return False
        a, b = (np.asarray(v, np.complex128) for v in (a, b))
        largest = np.abs(b[np.isfinite(b)]).max(initial=0)
        return not np.allclose(a[rows], b[rows], rtol=0, atol=tolerance * largest, equal_nan=True)

    return any(map(off, *map(jax.tree.leaves, (found, expected))))
