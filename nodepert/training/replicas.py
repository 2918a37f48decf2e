"""Replicas: runs that differ in numbers only, trained together by one compiled program; rows out.

A single run is one replica. Replica i has the rows and parameters that it would have alone: bit for bit where replicas
follow one another in a loop (what CPUs do by default), to rounding where they are vectorised.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nodepert.core import Loss, Model
from nodepert.data.dataset import Dataset
from nodepert.errors import UserError
from nodepert.registry.spec import Spec
from nodepert.training import devices, processes
from nodepert.training.hyper import Hyper, stacked, structure
from nodepert.training.metrics import Metric, Row, diverged, measured
from nodepert.training.program import Program, State, task_data

SPARE = 0.1  # of the free memory, left alone
log = logging.getLogger("nodepert")


class Epoch(NamedTuple):
    """{replica: its row} of those that took part in this epoch, the state of any, until the next is asked for, and the
    seconds that it took (of epoch 0, the evaluation alone)."""

    rows: dict[int, Row]
    state: Callable[[int], State]
    seconds: float = 0.0


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
    memory: float | None = None,
    metrics: Mapping[str, Metric] | None = None,
    begin: int = 0,
    states: Sequence[State] | None = None,
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
        memory: Bytes for one program on each device, by default what is free. A group that needs more is trained in
            parts, with a warning.
        metrics: What a row has beside `epoch`, by default what is always measured. `epoch_time` is in seconds of
            training and evaluation without compilation, each replica's share of them.
        begin, states: Of replicas that resume after epoch `begin`: their states. They end with the bits that they
            would have had without the break.

    Raises:
        UserError: For a batch size above the number of training examples.
        ValueError: For replicas of different structure.
    """
    check_task(data, hypers, batchsize)
    metrics = measured() if metrics is None else metrics

    def trained(numbers: Sequence[int]) -> Iterator[Epoch]:
        limit = processes.least(devices.memory_free() * (1 - SPARE) if memory is None else memory)
        mesh = devices.mesh(len(numbers), on)
        task = Program(model, loss, batchsize, epochs, devices.over_batch(mesh), metrics)
        chosen = [hypers[i] for i in numbers]
        width = lanes or (1 if replays(chosen[0].rule) else side_by_side(len(chosen)))
        with devices.one_line_if_full():
            group = Group(task, data, chosen, mesh, width)
        size = fitting(group, limit)
        if group.count == 1 and group.bytes > processes.least(devices.memory_total()):  # to try might end the process
            raise devices.full(group.bytes)
        if size == len(numbers):
            with devices.one_line_if_full(group.bytes):
                yield from group.train(numbers, epochs, begin, states and [states[i] for i in numbers])
            return
        log.warning("%d replicas in one program need %.2g GB of the %.2g GB there are: training %d at a time",
                    len(numbers), group.bytes / 1e9, limit / 1e9, size)  # fmt: skip
        del group
        for start in range(0, len(numbers), size):
            yield from trained(numbers[start : start + size])

    return trained(range(len(hypers)))


def check_task(data: Dataset, hypers: Sequence[Hyper], batchsize: int) -> None:
    """Raises ValueError and UserError as `fit_all`."""
    if len({structure(hyper) for hyper in hypers}) != 1:
        raise ValueError("replicas differ in numbers only: give one or more, of one structure of rule and optimizer")
    if batchsize > len(data.train_y):
        raise UserError(f"batchsize must be at most the {len(data.train_y):,} training examples; got {batchsize}")


def fitting(group: Group, limit: float) -> int:
    """How many replicas of a group train at a time within so many bytes: all, or parts of about one size."""
    if group.bytes <= limit or group.count == 1:
        return group.count
    shared = sum(array.nbytes for array in jax.tree.leaves(group.data))
    room = int((limit - shared) * group.count / max(1, group.bytes - shared))
    room = min(max(room, 1), group.count - 1)
    return math.ceil(group.count / math.ceil(group.count / room))


def side_by_side(replicas: int) -> int:
    """How many replicas to vectorise on one device: none on CPU, where a loop is as fast (benchmarks/README.md)."""
    return 1 if jax.default_backend() == "cpu" else replicas


def replays(rule: Any) -> bool:
    """Whether a rule, or one that it wraps, has replay=True. Such replicas follow one another: vectorised, both
    branches of its condition are computed, and no memory is saved."""
    inner = [v for v in (*rule.args, *dict(rule.kwargs).values()) if isinstance(v, Spec)]
    return dict(rule.kwargs).get("replay") is True or any(map(replays, inner))


class Group:
    """Replicas of one compiled program, on a mesh of devices."""

    def __init__(self, task: Program, data: Dataset, hypers: Sequence[Hyper], mesh: Any, lanes: int):
        self.count, self.metrics = len(hypers), task.metrics
        spread, copy = devices.spread(mesh), devices.everywhere(mesh)
        filled = [*hypers, *[hypers[-1]] * (-self.count % devices.shares(mesh))]  # the same number on every device
        self.hyper = devices.placed(stacked(filled), spread)
        self.alive = devices.placed(np.arange(len(filled)) < self.count, spread)
        self.data = devices.placed(task_data(data), copy)
        self._spread, program = spread, partial(compiled, mesh, lanes)
        states = jax.eval_shape(jax.vmap(task.init, (0, None)), self.hyper, self.data)
        flags, numbers = (jax.ShapeDtypeStruct(self.alive.shape, dtype) for dtype in (bool, np.float32))
        updates = {"finite": flags} | dict.fromkeys(task.of_updates, numbers)
        self._init = program(task.init, self.hyper, self.data)
        self._epoch = program(partial(epoch_if_alive, task), states, self.hyper, flags, self.data, donate=0)
        self._evaluate = program(
            partial(evaluate_if_alive, task),
            states.params,
            self.hyper,
            flags,
            updates,
            self.data,
            outputs=(copy, spread),
        )
        unmeasured = dict.fromkeys(task.of_updates, np.full(self.alive.shape, np.nan, np.float32))
        self._before = {"finite": self.alive} | devices.placed(unmeasured, spread)  # epoch 0 has no updates
        self._take = jax.jit(lambda states, i: jax.tree.map(lambda a: a[i], states), out_shardings=copy)
        self.bytes = devices.memory_needed(self._epoch)

    def train(
        self, numbers: Sequence[int], epochs: int, begin: int = 0, states: Sequence[State] | None = None
    ) -> Iterator[Epoch]:
        """Train, under these numbers, from the start or from states, until all have finished or diverged."""
        if states:
            filled = [*states, *[states[-1]] * (len(self.alive) - self.count)]
            self.states = devices.placed(jax.tree.map(lambda *each: np.stack(each), *filled), self._spread)
        else:
            self.states = self._init(self.hyper, self.data)
        running, updates = list(range(self.count)), self._before

        def state(number):
            return self._take(self.states, numbers.index(number))

        for number in range(begin + 1 if states else 0, epochs + 1):
            start = time.perf_counter()
            if number:
                self.states, updates = self._epoch(self.states, self.hyper, self.alive, self.data)
            found, self.alive = self._evaluate(self.states.params, self.hyper, self.alive, updates, self.data)
            found = fetched(found)
            seconds = time.perf_counter() - start
            share = seconds / len(running) if number else 0.0
            rows = {i: self.row(number, share, {name: m[i] for name, m in found.items()}) for i in running}
            yield Epoch({numbers[i]: row for i, row in rows.items()}, state, seconds)
            running = [i for i in running if not diverged(rows[i])]
            if not running:
                return

    def row(self, epoch: int, seconds: float, found: dict[str, Any]) -> Row:
        """The row of one replica; shares in per cent to what float32 counts allow, all else in full precision."""
        values = {"epoch_time": seconds} | {name: float(value) for name, value in found.items()}
        return {"epoch": epoch} | {
            name: round(values.get(name, math.nan), 4) if metric.unit == "%" else values.get(name, math.nan)
            for name, metric in self.metrics.items()
        }


def compiled(
    mesh: Any, lanes: int, f: Callable[..., Any], *arguments: Any, outputs: Any = None, donate: Any = ()
) -> Any:
    """`f` of every replica, compiled for these arguments, of which the last is shared. Not compiled for a debugger.

    Args:
        mesh, lanes: Where, and how many at a time on each device.
        f: A function of one replica.
        arguments: Arrays, or their shapes.
        outputs: Their sharding, by default a share on each device.
        donate: Arguments whose memory may be used for the outputs.
    """
    together, spread = devices.over_replicas(f, mesh, lanes), devices.spread(mesh)
    if devices.eager():
        return lambda *a: together(a[:-1], a[-1])
    jitted = jax.jit(
        lambda *a: together(a[:-1], a[-1]),
        in_shardings=(spread,) * (len(arguments) - 1) + (devices.everywhere(mesh),),
        out_shardings=outputs or spread,
        donate_argnums=donate,
        compiler_options=devices.compiler_options(),
    )
    return jitted.lower(*arguments).compile()


def epoch_if_alive(task: Program, state: State, hyper: Hyper, alive: Any, data: Any) -> tuple[State, dict[str, Any]]:
    """`task.epoch`; of a replica that has diverged the state as it is."""
    unchanged = state, {"finite": jnp.bool_(False)} | dict.fromkeys(task.of_updates, jnp.float32(jnp.nan))
    return jax.lax.cond(alive, lambda: task.epoch(state, hyper, data), lambda: unchanged)


def evaluate_if_alive(
    task: Program, params: Any, hyper: Hyper, alive: Any, updates: dict[str, Any], data: Any
) -> tuple[dict[str, Any], Any]:
    """All metrics of an epoch, and whether the replica is alive after it."""
    nothing = dict.fromkeys(task.of_examples, jnp.zeros(()))
    metrics = jax.lax.cond(alive, lambda: task.evaluate(params, hyper, data), lambda: nothing)
    metrics["train_loss"] = jnp.where(updates["finite"], metrics["train_loss"], jnp.nan)
    metrics |= {name: updates[name] for name in task.of_updates}
    return metrics, alive & jnp.isfinite(metrics["train_loss"] + metrics["test_loss"])


def fetched(tree: Any) -> Any:
    """Bring results to the host: the one transfer of an epoch. Waits in Python, where Ctrl-C is heard."""
    while not all(leaf.is_ready() for leaf in jax.tree.leaves(tree)):
        time.sleep(0.001)
    return jax.tree.map(np.asarray, jax.device_get(tree))
