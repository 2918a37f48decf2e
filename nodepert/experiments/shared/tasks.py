"""What experiments that train share: a task by name, replicas of one rule, learning curves."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from nodepert.core import Loss, Model
from nodepert.data.dataset import Dataset
from nodepert.errors import UserError
from nodepert.experiments.experiment import Load, Row
from nodepert.registry import full, make, make_loss
from nodepert.registry.catalogue import TASKS
from nodepert.registry.ranges import check_numbers
from nodepert.training.hyper import Hyper
from nodepert.training.rehearsal import rehearse
from nodepert.training.replicas import Epoch, fit_all


class Task(NamedTuple):
    """Data, and the network that learns them."""

    model: Model
    loss: Loss
    data: Dataset
    batchsize: int


def make_task(load: Load, dataset: str, network: str, loss: str = "mse", batchsize: int = 100) -> Task:
    """Build what the specs name. Raises UserError, also for a data set without classes."""
    data = load(dataset)
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


def train(task: Task, hypers: Sequence[Hyper], epochs: int) -> Iterator[Epoch]:
    """The epochs of replicas (`replicas.fit_all`)."""
    data = task.data
    rehearse(task.model, task.loss, hypers, data.train_x.shape[1:], classes=data.classes)  # complain now
    return fit_all(task.model, task.loss, task.data, hypers, batchsize=task.batchsize, epochs=epochs)


def curves(task: Task, hypers: Sequence[Hyper], epochs: int) -> list[list[Row]]:
    """The rows of every replica, epoch by epoch; those of a diverged one end early."""
    found: list[list[Row]] = [[] for _ in hypers]
    for epoch in train(task, hypers, epochs):
        for i, row in epoch.rows.items():
            found[i].append(row)
    return found


def log_spaced(low: float, high: float, count: int) -> list[float]:
    """`count` numbers from low to high, equally far apart on a logarithmic axis, to three digits."""
    step = math.log10(high / low) / max(count - 1, 1)
    return [float(f"{low * 10 ** (step * i):.3g}") for i in range(count)]
