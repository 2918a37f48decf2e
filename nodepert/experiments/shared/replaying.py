"""Training that resumes at any update: up to a crash, and again from a checkpoint before it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nodepert.core import Array, Params
from nodepert.errors import UserError
from nodepert.experiments.shared.crashes import DROP, FLOOR, crash_epoch
from nodepert.experiments.shared.looping import followed
from nodepert.experiments.shared.tasks import Task
from nodepert.training import devices
from nodepert.training.group import fetched
from nodepert.training.hyper import Hyper, stacked
from nodepert.training.program import Program, State, task_data


class Pieces(NamedTuple):
    """One run in pieces, compiled. One program advances it by any number of batches, so that a replay batch by batch
    repeats the states of the run, bit for bit. No buffer is donated, so that every state is a checkpoint."""

    init: Callable[[], State]
    order: Callable[[State], Array]  # of the epoch that begins with this state
    advance: Callable[[State, Array, int, int], tuple[State, Array]]  # (state, order, first, count): batches from first
    accuracy: Callable[[Params], float]  # of the test split in per cent; nan where a loss is not finite
    batches: int  # in an epoch
    pure: Program
    hyper: Any  # numbers as arrays
    data: Any


class Course(NamedTuple):
    """The course of a run up to its end."""

    accuracies: list[float]  # of epoch 0, 1, ...
    crash: int | None  # the epoch at which it crashed, and ended
    checkpoint: tuple[int, State]  # the last before the end: after how many epochs, and its state
    end: State


class Moment(NamedTuple):
    """A run before one update."""

    epoch: int  # from 1 on
    batch: int  # of this epoch
    order: Array
    state: State


def in_pieces(task: Task, epochs: int) -> Callable[[Hyper], Pieces]:
    """Runs of this length; those of one structure share a compiled program. Raises UserError unless all
    batches are of one size."""
    batches, rest = divmod(len(task.data.train_y), task.batchsize)
    if rest or not batches:
        raise UserError(f"here batchsize must divide the {len(task.data.train_y):,} training examples; "
                        f"got {task.batchsize}")  # fmt: skip
    pure = Program(task.model, task.loss, batchsize=task.batchsize, epochs=epochs)
    data = jax.device_put(task_data(task.data))
    jit = partial(jax.jit, compiler_options=devices.compiler_options())

    @jit
    def advance(state, numbers, data, order, first, count):
        state, totals = pure.batches((state, pure.totals()), numbers, data, order, first, first + count)
        return state, totals["finite"]

    init, order, evaluate = map(jit, (pure.init, pure.order, pure.evaluate))

    def run(hyper: Hyper) -> Pieces:
        numbers = jax.tree.map(lambda a: jnp.asarray(a[0]), stacked([hyper]))

        def accuracy(params):
            found = fetched(evaluate(params, numbers, data))
            finite = math.isfinite(found["train_loss"] + found["test_loss"])
            return round(float(found["test_acc"]), 4) if finite else math.nan

        return Pieces(
            lambda: init(numbers, data),
            lambda state: order(state.step, numbers, data),
            lambda state, order, first, count: advance(state, numbers, data, order, first, count),
            accuracy, batches, pure, numbers, data,
        )  # fmt: skip

    return run


def at(order: Array, batch: Any, batchsize: int) -> Array:
    """The examples of a batch."""
    return jax.lax.dynamic_slice_in_dim(order, batch * batchsize, batchsize)


def after(run: Pieces, state: State, epoch: int) -> tuple[State, float]:
    """The state after the next epoch, and its test accuracy: nan where a loss was not finite. Before epoch 1: of the
    state as it is."""
    finite: Any = True
    if epoch:
        state, finite = run.advance(state, run.order(state), 0, run.batches)
    return state, run.accuracy(state.params) if finite else math.nan


def epochs_of(run: Pieces, epochs: int, measure: Callable[[State], Any] = lambda state: []) -> Iterator[Any]:
    """(test accuracy, measure(state)) after 0, 1, 2, ... epochs."""

    def epoch(state, number):
        state, accuracy = after(run, state, number)
        return state, (accuracy, measure(state))

    return (found for _, found in followed(epoch, run.init(), range(epochs + 1), "epoch"))


def course(run: Pieces, epochs: int, every: int, drop: float = DROP, floor: float = FLOOR) -> Course:
    """Train until the run crashes, at most `epochs` epochs, with a checkpoint every few."""

    def epoch(carry, number):
        at, checkpoint, state = carry
        if number and (number - 1) % every == 0:
            at, checkpoint = np.int32(number - 1), state
        state, accuracy = after(run, state, number)
        return (at, checkpoint, state), accuracy

    start, accuracies = run.init(), []
    for carry, accuracy in followed(epoch, (np.int32(0), start, start), range(epochs + 1), "epoch"):
        accuracies.append(accuracy)
        crash = crash_epoch(accuracies, drop, floor)
        if crash is not None or len(accuracies) > epochs or math.isnan(accuracy):
            at, checkpoint, end = carry
            return Course(accuracies, crash, (int(at), checkpoint), end)
    raise AssertionError("a run has an end")


def replay(run: Pieces, taken: Course, measure: Callable[[Moment], Any]) -> Iterator[Any]:
    """`measure` of the run before every update, from the checkpoint to the end."""
    start, state = taken.checkpoint
    orders: dict[int, Array] = {}

    def update(state, number):
        epoch, batch = divmod(number - 1, run.batches)
        if epoch not in orders:
            orders.clear()
            orders[epoch] = run.order(state._replace(step=state.step - batch))
        found = measure(Moment(start + 1 + epoch, batch, orders[epoch], state))
        return run.advance(state, orders[epoch], batch, 1)[0], found

    numbers = range(1, (len(taken.accuracies) - 1 - start) * run.batches + 1)
    return (found for _, found in followed(update, state, numbers, "update"))
