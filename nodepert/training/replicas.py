"""Replicas: runs that differ in numbers only, trained together by one compiled program; rows out.

A single run is one replica. Replica i has the rows and parameters that it would have alone: bit for bit where replicas
follow one another in a loop (what CPUs do by default), to rounding where they are vectorised.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from nodepert.core import Loss, Model
from nodepert.data.dataset import Dataset
from nodepert.errors import UserError
from nodepert.registry import inner
from nodepert.rules.exchange import measures
from nodepert.training import devices, processes
from nodepert.training.group import Epoch, Group, OnBatches
from nodepert.training.hyper import Hyper, structure
from nodepert.training.mesh import BATCH, SLOPES, mesh_of, over_batch
from nodepert.training.metrics import Metric, measured
from nodepert.training.program import Program, State, task_data

SPARE = 0.1  # of the free memory, left alone
log = logging.getLogger("nodepert")


def fit_all(
    model: Model,
    loss: Loss,
    data: Dataset,
    hypers: Sequence[Hyper],
    *,
    batchsize: int,
    epochs: int,
    lanes: int | None = None,
    on: Sequence[Any] | None = None,
    exchange: str = "gradients",
    memory: float | None = None,
    metrics: Mapping[str, Metric] | None = None,
    begin: int = 0,
    states: Sequence[State] | None = None,
    on_batches: OnBatches = lambda *_: None,
) -> Iterator[Epoch]:
    """Train replicas together, and yield an `Epoch` before training (epoch 0) and after every epoch.

    When a loss is not finite the row says so (`diverged(row)`) and is that replica's last: its state stays as it is,
    and the others are not affected. Same arguments, same machine: the same bits.

    Args:
        model, loss, data, hypers: The task, and the numbers of each replica.
        batchsize, epochs: Examples per update, and passes over the training set.
        lanes: Replicas that are vectorised on each device; those follow one another. Chosen by the backend by default.
        on: The devices. By default replicas are spread over all, and a single run takes one (given several, it
            spreads each batch over them).
        exchange: What the devices of a single run send each other: gradients, or slopes alone (see rules/exchange.py).
        memory: Bytes for one program on each device, by default what is free. A group that needs more is trained in
            parts, with a warning.
        metrics: What a row has beside `epoch`, by default what is always measured. `epoch_time` is in seconds of
            training and evaluation without compilation, each replica's share of them.
        begin, states: Of replicas that resume after epoch `begin`: their states. They end with the bits that they
            would have had without the break.

    Raises:
        UserError: For a batch size above the number of training examples; for exchange="slopes", a rule that measures
            none.
        ValueError: For replicas of different structure.
    """
    check_task(data, hypers, batchsize)
    metrics = measured(task=data.task) if metrics is None else metrics

    def trained(numbers: Sequence[int]) -> Iterator[Epoch]:
        limit = processes.least(devices.memory_free() * (1 - SPARE) if memory is None else memory)
        mesh = mesh_of(len(numbers), on, SLOPES if exchange == "slopes" else BATCH)
        task = Program(model, loss, batchsize, epochs, over_batch(mesh), metrics)
        chosen = [hypers[i] for i in numbers]
        if exchange == "slopes" and not measures(partial(one_step, task, chosen[0]), task_data(data)):
            raise UserError(f"exchange=slopes needs a rule that measures slopes, as np and wp do; got {hypers[0].rule}")
        width = lanes or (1 if replays(chosen[0].rule) else side_by_side(len(chosen)))
        with devices.one_line_if_full():
            group = Group(task, data, chosen, mesh, width)
            while lanes is None and (fewer := vectorised(group, limit)) < group.lanes:
                group = Group(task, data, chosen, mesh, fewer)
        size = fitting(group, limit)
        if group.count == 1 and group.bytes > processes.least(devices.memory_total()):  # to try might end the process
            raise devices.full(group.bytes)
        if size == len(numbers):
            with devices.one_line_if_full(group.bytes):
                yield from group.train(numbers, epochs, begin, states and [states[i] for i in numbers], on_batches)
            return
        log.warning("%d replicas in one program need %.2g GB of the %.2g GB there are: training %d at a time",
                    len(numbers), group.bytes / 1e9, limit / 1e9, size)  # fmt: skip
        del group
        for start in range(0, len(numbers), size):
            yield from trained(numbers[start : start + size])

    return trained(range(len(hypers)))


def one_step(task: Program, hyper: Hyper, data: Any) -> Any:
    """The first update."""
    return task.step(task.init(hyper, data), hyper, data, jnp.arange(task.batchsize))


def check_task(data: Dataset, hypers: Sequence[Hyper], batchsize: int) -> None:
    """Raises ValueError and UserError as `fit_all`."""
    if len({structure(hyper) for hyper in hypers}) != 1:
        raise ValueError("replicas differ in numbers only: give one or more, of one structure of rule and optimizer")
    if batchsize > len(data.train_y):
        raise UserError(f"batchsize must be at most the {len(data.train_y):,} training examples; got {batchsize}")


def vectorised(group: Group, limit: float) -> int:
    """How many replicas of a group to vectorise within so many bytes: as it does, or fewer if the rest of it fits."""
    room = limit - (group.bytes - group.temporary)
    if group.bytes <= limit or room <= 0 or group.lanes == 1:
        return group.lanes
    fewer = max(1, int(group.lanes * room / group.temporary))
    return math.ceil(group.lanes / math.ceil(group.lanes / fewer))


def fitting(group: Group, limit: float) -> int:
    """How many replicas of a group train at a time within so many bytes: all, or parts of about one size."""
    if group.bytes <= limit or group.count == 1:
        return group.count
    shared = sum(array.nbytes for array in jax.tree.leaves(group.data)) + (group.lanes == 1) * group.temporary
    room = int((limit - shared) * group.count / max(1, group.bytes - shared))
    room = min(max(room, 1), group.count - 1)
    return math.ceil(group.count / math.ceil(group.count / room))


def side_by_side(replicas: int) -> int:
    """How many replicas to vectorise on one device: none on CPU, where a loop is as fast (benchmarks/README.md)."""
    return 1 if jax.default_backend() == "cpu" else replicas


def replays(rule: Any) -> bool:
    """Whether a rule, or one that it wraps, has replay=True. Such replicas follow one another: vectorised, both
    branches of its condition are computed, and no memory is saved."""
    return dict(rule.kwargs).get("replay") is True or any(map(replays, inner("rule", rule)))
