"""What experiments that train share: a task by name, replicas of one rule, learning curves."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from nodepert.core import Loss, Model
from nodepert.data.dataset import Dataset
from nodepert.errors import UserError
from nodepert.experiments.experiment import Load, Row
from nodepert.experiments.session import begin
from nodepert.registry import full, make, make_loss
from nodepert.registry.entry import TASKS
from nodepert.registry.ranges import check_numbers
from nodepert.training.hyper import Hyper, stacked
from nodepert.training.metrics import diverged
from nodepert.training.program import Program, State, task_data
from nodepert.training.rehearsal import rehearse
from nodepert.training.replicas import Epoch, fit_all

RUNNING, OVER = 1, 2  # a replica that has started, and one that has finished or diverged


class Task(NamedTuple):
    """Data, and the network that learns them."""

    model: Model
    loss: Loss
    data: Dataset
    batchsize: int


def make_task(
    load: Load, dataset: str, network: str, loss: str = "mse", batchsize: int = 100, any_target: bool = False
) -> Task:
    """Build what the specs name. Raises UserError, also for a data set without classes, unless with `any_target`."""
    data = load(dataset)
    if not any_target:
        check_classes(data)
    return Task(make("network", network, data.train_x.shape[1:], data.classes), make_loss(loss), data, batchsize)


def check_classes(data: Dataset) -> None:
    """Raises UserError for data of another task: experiments measure accuracies."""
    if data.task != "classes":
        raise UserError(f"experiments take data sets of classes; the targets of {data.name} are "
                        f"{TASKS[data.task].targets}")  # fmt: skip


def make_hyper(rule: str, lr: float, seed: int = 0, optimizer: str = "sgd", wd: float = 0.0) -> Hyper:
    """What differs between replicas; those that differ in numbers only train together."""
    check_numbers(lr, wd, seed)
    return Hyper(full("rule", rule), full("optimizer", optimizer), float(lr), float(wd), int(seed))


def _rows(epoch: Epoch) -> list[tuple[int, Row]]:
    return list(epoch.rows.items())


def train(task: Task, hypers: Sequence[Hyper], epochs: int, found: Callable[[Epoch], Any] = _rows) -> Iterator[Any]:
    """`found(epoch)` of replicas, by default their rows, before training and after every epoch (`replicas.fit_all`):
    plain values and arrays, in lists and dictionaries. A loop that can be stopped and resumed (session.py)."""
    data = task.data
    rehearse(task.model, task.loss, hypers, data.train_x.shape[1:], "", data.outputs, data.task, data.steps)
    loop, status, states = begin("epoch", epochs), np.zeros(len(hypers), np.int8), []
    if loop.leaves:
        like = blank_state(task, hypers[0], epochs)
        saved = loop.state((status, [like] * int((loop.leaves[0] == RUNNING).sum())))
        status, states = saved if saved else (status, states)

    def follow(numbers: Sequence[int], start: int, states: Sequence[State]) -> Iterator[Epoch]:
        def report(_: Any, done: int, of: int, seconds: float) -> None:
            loop.under_way(loop.done + done / of, seconds)

        chosen = [hypers[i] for i in numbers]
        for rows, state, seconds, _ in fit_all(task.model, task.loss, task.data, chosen, batchsize=task.batchsize,
                                            epochs=epochs, begin=start, states=states, on_batches=report):  # fmt: skip
            yield Epoch(
                {numbers[k]: row for k, row in rows.items()}, lambda i, state=state: state(numbers.index(i)), seconds
            )

    try:
        yield from list(loop.found)
        resumed, fresh = (np.flatnonzero(status == s).tolist() for s in (RUNNING, 0))
        for numbers, start, given in ((resumed, loop.done, states), (fresh, 0, [])):
            for epoch in follow(numbers, start, given) if numbers and not loop.complete else ():
                for i, row in epoch.rows.items():
                    status[i] = OVER if diverged(row) or row["epoch"] == epochs else RUNNING
                number, new = next(iter(epoch.rows.values()))["epoch"], found(epoch)
                loop.record(number, partial(_state, status, epoch), new)
                yield new
    finally:
        loop.end()


def _state(status: np.ndarray, epoch: Epoch) -> tuple[np.ndarray, list[State]]:
    """What `train` resumes from."""
    return status, [epoch.state(i) for i in np.flatnonzero(status == RUNNING).tolist()]


def blank_state(task: Task, hyper: Hyper, epochs: int) -> State:
    """The state of one replica: shapes and dtypes."""
    program = Program(task.model, task.loss, task.batchsize, epochs)
    one = jax.tree.map(lambda a: a[0], stacked([hyper]))
    return jax.eval_shape(program.init, one, jax.eval_shape(lambda: task_data(task.data)))


def curves(task: Task, hypers: Sequence[Hyper], epochs: int) -> list[list[Row]]:
    """The rows of every replica, epoch by epoch; those of a diverged one end early."""
    found: list[list[Row]] = [[] for _ in hypers]
    for rows in train(task, hypers, epochs):
        for i, row in rows:
            found[i].append(row)
    return found


def log_spaced(low: float, high: float, count: int) -> list[float]:
    """`count` numbers from low to high, equally far apart on a logarithmic axis, to three digits."""
    step = math.log10(high / low) / max(count - 1, 1)
    return [float(f"{low * 10 ** (step * i):.3g}") for i in range(count)]
