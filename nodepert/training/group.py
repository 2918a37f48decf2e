"""Replicas in one compiled program: a loop over epochs on the host, each of them in parts of about a second."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from nodepert.data.dataset import Dataset
from nodepert.training import devices
from nodepert.training.hyper import Hyper, stacked
from nodepert.training.mesh import everywhere, one_of, over_replicas, placed, shares, spread
from nodepert.training.metrics import Row, diverged
from nodepert.training.parts import Parts
from nodepert.training.program import Program, State, task_data

OnBatches: TypeAlias = Callable[[list[int], int, int, float], None]


class Epoch(NamedTuple):
    """{replica: its row} of those that took part in this epoch, the state of any, until the next is asked for, and the
    seconds that it took (of epoch 0, the evaluation alone)."""

    rows: dict[int, Row]
    state: Callable[[int], State]
    seconds: float = 0.0
    end: Callable[[int], None] = lambda _: None  # a replica takes no part in later epochs, as one that has diverged


class Group:
    """Replicas of one compiled program, on a mesh of devices."""

    def __init__(self, task: Program, data: Dataset, hypers: Sequence[Hyper], mesh: Any, lanes: int):
        self.count, self.metrics, self.of_updates = len(hypers), task.metrics, task.of_updates
        self._spread, self._copy = share, copy = spread(mesh), everywhere(mesh)
        filled = [*hypers, *[hypers[-1]] * (-self.count % shares(mesh))]  # the same number on every device
        self.lanes = min(lanes, len(filled) // shares(mesh))
        self.hyper = placed(stacked(filled), share)
        self.alive = placed(np.arange(len(filled)) < self.count, share)
        self.data = placed(task_data(data), copy)
        self.steps = task.steps(self.data)
        self.parts = Parts(1 if jax.process_count() == 1 else self.steps)  # several processes would not agree
        program = partial(compiled, mesh, self.lanes)
        states = jax.eval_shape(jax.vmap(task.init, (0, None)), self.hyper, self.data)
        common, totals = (self.hyper, self.alive), self.totals(0.0)
        self._init = program(task.init, self.hyper, self.data)
        self._batches = program(
            partial(batches_if_alive, task), states, totals, *common, (self.data, self.span(0, 0)), updated=2
        )
        self._evaluate = program(
            partial(evaluate_if_alive, task), states.params, *common, totals, self.data, outputs=(copy, share)
        )
        self._take = partial(one_of, on=mesh)
        beside = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(states._replace(params=()))) // shares(
            mesh
        )
        needed = devices.memory_needed(self._batches), devices.memory_needed(self._evaluate, beside)
        self.bytes, self.temporary = max(needed)
        devices.trim()

    def train(
        self,
        numbers: Sequence[int],
        epochs: int,
        begin: int = 0,
        states: Sequence[State] | None = None,
        on_batches: OnBatches = lambda *_: None,
    ) -> Iterator[Epoch]:
        """Train, under these numbers, from the start or from states, until all have finished or diverged."""
        if states:
            filled = [*states, *[states[-1]] * (len(self.alive) - self.count)]
            self.states = placed(jax.tree.map(lambda *each: np.stack(each), *filled), self._spread)
        else:
            self.states = self._init(self.hyper, self.data)
        running, ended = list(range(self.count)), set()

        def state(number):
            return self._take(self.states, numbers.index(number))

        def end(number):
            ended.add(numbers.index(number))

        for number in range(begin + 1 if states else 0, epochs + 1):
            start = time.perf_counter()
            at = [numbers[i] for i in running]
            totals = self.epoch(partial(on_batches, at)) if number else self.totals(np.nan)
            found, self.alive = self._evaluate(self.states.params, self.hyper, self.alive, totals, self.data)
            found = fetched(found)
            seconds = time.perf_counter() - start
            share = seconds / len(running) if number else 0.0
            rows = {i: self.row(number, share, {name: m[i] for name, m in found.items()}) for i in running}
            yield Epoch({numbers[i]: row for i, row in rows.items()}, state, seconds, end)
            running = [i for i in running if not diverged(rows[i]) and i not in ended]
            if not running:
                return
            if ended:
                ended.clear()
                self.alive = placed(np.isin(np.arange(len(self.alive)), running), self._spread)

    def epoch(self, report: Callable[[int, int, float], None]) -> dict[str, Any]:
        """Train one epoch in parts of about a second; its totals. Between two parts reports the batches done."""
        totals, done, start = self.totals(0.0), 0, time.perf_counter()
        while True:
            part, began = min(self.parts.steps, self.steps - done), time.perf_counter()
            shared = self.data, self.span(done, done + part)
            self.states, totals = self._batches(self.states, totals, self.hyper, self.alive, shared)
            done += part
            if done == self.steps:  # not waited for: the evaluation is queued meanwhile
                return totals
            ready(totals)
            now = time.perf_counter()
            self.parts.took(part, now - began)
            report(done, self.steps, now - start)

    def totals(self, sum_: float) -> dict[str, Any]:
        """The totals of an epoch without a batch; of epoch 0, nan."""
        shape = self.alive.shape
        sums = {name: np.full((*shape, *m.shape), sum_, np.float32) for name, m in self.of_updates.items()}
        return placed({"finite": np.ones(shape, bool)} | sums, self._spread)

    def span(self, first: int, last: int) -> Any:
        """Batches first to last - 1, as the program takes them."""
        return placed((np.int32(first), np.int32(last)), self._copy)

    def row(self, epoch: int, seconds: float, found: dict[str, Any]) -> Row:
        """The row of one replica."""
        values = {"epoch_time": seconds} | {name: float(value) for name, value in found.items()}
        return {"epoch": epoch} | {name: m.value(values.get(name, math.nan)) for name, m in self.metrics.items()}


def compiled(
    mesh: Any, lanes: int, f: Callable[..., Any], *arguments: Any, outputs: Any = None, updated: int = 0
) -> Any:
    """`f` of every replica, compiled for these arguments, of which the last is shared. Not compiled for a debugger.

    Args:
        mesh, lanes: Where, and how many at a time on each device.
        f: A function of one replica.
        arguments: Arrays, or their shapes.
        outputs: Their sharding, by default a share on each device.
        updated: Number of first arguments whose new values are the outputs, in the same memory.
    """
    together, share = over_replicas(f, mesh, lanes, updated), spread(mesh)
    if devices.eager():
        return lambda *a: together(a[:-1], a[-1])
    jitted = jax.jit(
        lambda *a: together(a[:-1], a[-1]),
        in_shardings=(share,) * (len(arguments) - 1) + (everywhere(mesh),),
        out_shardings=outputs or share,
        donate_argnums=tuple(range(updated)),
        compiler_options=devices.compiler_options(),
    )
    return jitted.lower(*arguments).compile()


def batches_if_alive(
    task: Program, state: State, totals: dict[str, Any], hyper: Hyper, alive: Any, shared: Any
) -> tuple[State, dict[str, Any]]:
    """`task.batches`; of a replica that has diverged the state as it is. `shared`: the data, first and last batch."""
    data, (first, last) = shared

    def updated():
        order = task.order(state.step - first, hyper, data)
        return task.batches((state, totals), hyper, data, order, first, last)

    nothing = {"finite": jnp.bool_(False)} | task.sums(data).filled(jnp.nan)
    return jax.lax.cond(alive, updated, lambda: (state, nothing))


def evaluate_if_alive(
    task: Program, params: Any, hyper: Hyper, alive: Any, totals: dict[str, Any], data: Any
) -> tuple[dict[str, Any], Any]:
    """All metrics of an epoch, and whether the replica is alive after it."""
    nothing = dict.fromkeys(task.of_examples, jnp.zeros(()))
    metrics = jax.lax.cond(alive, lambda: task.evaluate(params, hyper, data), lambda: nothing)
    metrics["train_loss"] = jnp.where(totals["finite"], metrics["train_loss"], jnp.nan)
    metrics |= task.sums(data).means(totals)
    return metrics, alive & jnp.isfinite(metrics["train_loss"] + metrics["test_loss"])


def fetched(tree: Any) -> Any:
    """Bring results to the host: the one transfer of an epoch."""
    ready(tree)
    return jax.tree.map(np.asarray, jax.device_get(tree))


def ready(tree: Any) -> None:
    """Wait for results, in Python, where Ctrl-C is heard."""
    while not all(leaf.is_ready() for leaf in jax.tree.leaves(tree)):
        time.sleep(0.001)
