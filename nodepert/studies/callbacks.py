"""What happens while runs train: the methods of a `Callback` are called at each run's start, epochs and end.

class Show(npt.Callback):
    def on_epoch(self, run, row, state):
        print(run.rule, row["epoch"], row["test_acc"])

npt.train(runs, callbacks=[Show()])
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from nodepert.errors import UserError
from nodepert.studies.run import Run
from nodepert.training.metrics import Row, columns_of, in_words, metric_of

if TYPE_CHECKING:  # the command line needs no JAX to list names
    from nodepert.training.program import State

log = logging.getLogger("nodepert")


class StateOf:
    """`state` of on_epoch: the state of training after that epoch, fetched when it is called. `read_back`: whether the
    row was read from disk, and no state is available. `seconds`: the run's share of what the epoch took; of epoch 0, of
    the evaluation."""

    def __init__(self, fetch: Callable[[], State] | None = None, seconds: float = 0.0):
        self._fetch, self._over = fetch, False
        self.read_back, self.seconds = fetch is None, seconds

    def __call__(self) -> State | None:
        """A copy; None for a row that was read back. Raises UserError after on_epoch has returned."""
        if self._over:
            raise UserError("state() can only be called inside on_epoch; store what it returns if you need it later")
        return self._fetch() if self._fetch else None

    def end(self) -> None:
        """The next epoch overwrites it."""
        self._over = True


class Callback:
    """Override what you need; the defaults do nothing. Runs that train together call in turns, each with its `run`.

    An exception in a method ends the training, with status "failed"; the rows so far and the checkpoints stay.

    Examples:
        >>> class Show(npt.Callback):
        ...     def on_epoch(self, run, row, state):
        ...         print(run.rule, row["epoch"], row["test_acc"])
        >>> npt.train(run, callbacks=[Show()])  # doctest: +SKIP
    """

    def on_begin(self, run: Run, folder: Path | None) -> None:
        """A run starts, resumes, or is read back; `folder` is where it is saved, None where it is not."""

    def on_epoch(self, run: Run, row: Row, state: StateOf) -> None:
        """A row of a run: epoch, epoch_time, train_acc, ...; epoch 0 is the network before training.

        `state()`, called here, fetches a copy of the state of training after this epoch: params, and the states of
        rule and optimizer. It returns None for rows trained before an interruption; these come first.
        """

    def on_batches(self, run: Run, done: int, of: int, seconds: float) -> None:
        """Within an epoch, about once a second: `done` of its `of` batches are complete, after so many seconds. Runs
        that train together share the seconds: this is the run's share of them."""

    def on_end(self, run: Run, status: str) -> None:
        """A run that has started ends, with the status of its record: "finished", "stopped at epoch e", "diverged at
        epoch e", "interrupted" or "failed"; also where a callback ended the training."""


class Callbacks(Callback):
    """Several callbacks as one. Each on_begin is followed by one on_end, whatever other callbacks raise."""

    def __init__(self, callbacks: Sequence[Callback]):
        self.callbacks = list(callbacks)
        self.started: dict[Run, list[Callback]] = {}

    def on_begin(self, run: Run, folder: Path | None) -> None:
        called = self.started.setdefault(run, [])
        for one in self.callbacks:
            one.on_begin(run, folder)
            called.append(one)

    def on_epoch(self, run: Run, row: Row, state: StateOf) -> None:
        try:
            for one in self.callbacks:
                one.on_epoch(run, dict(row), state)
        finally:
            state.end()

    def of_batches(self, runs: Sequence[Run]) -> Callable[[Sequence[int], int, int, float], None]:
        """`on_batches` of these runs, as the trainer calls it: for several at once, with the seconds of all."""

        def call(numbers: Sequence[int], done: int, of: int, seconds: float) -> None:
            for run in [runs[i] for i in numbers]:
                for one in self.callbacks:
                    one.on_batches(run, done, of, seconds / len(numbers))

        return call

    def on_end(self, run: Run, status: str) -> None:
        with ExitStack() as stack:  # it calls all of them, the last first
            for one in reversed(self.started.pop(run, [])):
                stack.callback(one.on_end, run, status)

    def break_off(self, statuses: dict[Run, str], status: str) -> None:
        """Training breaks off: every run that has started ends, with its status or else this one. The error that broke
        it off is raised by the caller; errors of callbacks become warnings."""
        for run in list(self.started):
            try:
                self.on_end(run, statuses.get(run, status))
            except Exception as error:
                log.warning("a callback failed at the end of a run (%s: %s)", type(error).__name__, error)


class PrintRows(Callback):
    """A line per run and epoch. `labels`: what each run is called."""

    def __init__(self, labels: dict[Run, str]):
        self.labels = labels

    def on_epoch(self, run: Run, row: Row, state: StateOf) -> None:
        print(f"{self.labels[run]}  {summary(row)}", flush=True)


def summary(row: Row) -> str:
    """One epoch in one line."""
    measured = [name for name in columns_of([row]) if row[name] == row[name] or not metric_of(name).on_request]
    names = sorted(measured, key=lambda name: name == "epoch_time")
    return "  ".join([f"epoch {row['epoch']:3d}", *(in_words(name, row[name]) for name in names)])
