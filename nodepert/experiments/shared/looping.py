"""Loops of an experiment that can be watched, stopped and resumed: compiled ones, and ones on the host.

Each part of a session (session.py) has any number of them, one after another. However a loop is divided, and wherever
it is stopped and resumed, its bits are the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nodepert.core import Array
from nodepert.experiments.session import begin
from nodepert.training.group import ready
from nodepert.training.parts import Parts

Advance = Callable[[Any, Any, Any], Any]  # (carry, first, last) -> carry after steps first to last - 1
Measure = Callable[[Any], Any]


def looped(
    advance: Advance, carry: Any, steps: int, unit: str = "update", result: Measure = lambda carry: carry
) -> Any:
    """`result(carry)` after so many steps, computed in parts of about a second.

    Args:
        advance: A compiled function whose bounds are traced.
        carry: A pytree of arrays.
        steps: Their number.
        unit: What a step is called.
        result: What is needed of the last carry.
    """
    loop = begin(unit, steps)
    if loop.complete and (found := loop.state(jax.eval_shape(result, carry))) is not None:
        return found
    saved = loop.state(carry)
    carry = advance(carry if saved is None else saved, np.int32(loop.done), np.int32(loop.done))  # compiles
    ready(carry)
    loop.under_way(loop.done)
    parts = Parts()
    while loop.done < steps:
        last, start = min(loop.done + parts.steps, steps), time.perf_counter()
        carry = advance(carry, np.int32(loop.done), np.int32(last))
        ready(carry)
        parts.took(last - loop.done, time.perf_counter() - start)
        loop.record(last, lambda carry=carry: carry)
    found = result(carry)
    loop.end(found)
    return found


def followed(
    step: Callable[[Any, int], tuple[Any, Any]], state: Any, numbers: range, unit: str, known: bool = True
) -> Iterator[tuple[Any, Any]]:
    """(state, found) of each step on the host, until these numbers or the caller end.

    Steps that were saved come first; of these only the last has its state, the others None.

    Args:
        step: (state, number) -> (state, found). A state is a pytree of arrays; what is found are plain values and
            arrays, in lists and dictionaries.
        state: The state before the first step.
        numbers: Of the steps.
        unit: What a step is called.
        known: Whether the last number is where the loop ends, as far as can be told.
    """
    loop = begin(unit, numbers[-1] if known else 0)
    saved = loop.state(state)
    state = state if saved is None else saved
    try:
        earlier = list(loop.found)
        for found in earlier[:-1]:
            yield None, found
        yield from [(state, found) for found in earlier[-1:]]
        for number in numbers[len(earlier) :]:
            state, found = step(state, number)
            loop.record(number, lambda state=state: state, found)
            yield state, found
    finally:
        loop.end(state)


def simulated(task: Callable[[Any, Any], tuple[Any, Any, Measure]]) -> Callable[[Sequence[int], Any, Any], Any]:
    """`run(at, shared, each)`: measurements of replicas after each number of updates in `at` (rising, from 0 on), a
    pytree of arrays (replicas, times, ...).

    `task(shared, own)`, with `own` one of `each`, gives (first state, `step(t, state)`, `measure(state)`).
    """

    @jax.jit
    def start(at, shared, each):
        def one(own):
            state, _, measure = task(shared, own)
            shapes = jax.eval_shape(measure, state)
            return state, jax.tree.map(lambda shape: jnp.zeros((len(at), *shape.shape), shape.dtype), shapes)

        return jax.vmap(one)(each)

    @jax.jit
    def advance(at, shared, each, carry, first, last):
        def one(own, carry):
            _, step, measure = task(shared, own)
            return _along(step, measure, at)(carry, first, last)

        return jax.vmap(one)(each, carry)

    def run(at: Sequence[int], shared: Any, each: Any) -> Any:
        times = jnp.asarray(at, jnp.int32)

        def some(carry, first, last):
            return advance(times, shared, _again(each), carry, first, last)

        return looped(some, start(times, shared, _again(each)), at[-1], result=lambda carry: carry[1])

    return run


def _along(step: Callable[[Any, Any], Any], measure: Measure, at: Array) -> Advance:
    """Updates of the carry (state, measurements)."""
    starts = jnp.concatenate([at[:1], at[:-1]])

    def advance(carry: Any, first: Any, last: Any) -> Any:
        def until(i: Any, carry: Any) -> Any:
            state, found = carry
            state = jax.lax.fori_loop(jnp.maximum(first, starts[i]), jnp.minimum(last, at[i]), step, state)
            found = jax.lax.cond(
                (first <= at[i]) & (at[i] <= last),
                lambda: jax.tree.map(lambda every, one: every.at[i].set(one), found, measure(state)),
                lambda: found,
            )
            return state, found

        return jax.lax.fori_loop(0, len(at), until, carry)

    return advance


def _again(tree: Any) -> Any:
    """The same keys for another part, on purpose."""
    return jax.tree.map(lambda a: jax.random.clone(a) if jnp.issubdtype(a.dtype, jax.dtypes.prng_key) else a, tree)
