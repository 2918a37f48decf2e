"""What happens while runs train: a `Callback` is told of each run's beginning, epochs and end.

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
from nodepert.training.metrics import Row

if TYPE_CHECKING:  # the command line needs no JAX to list names
    from nodepert.training.program import State

log = logging.getLogger("nodepert")


class StateOf:
    """`state` of on_epoch: the state of training after that epoch, fetched when it is called. `read_back`: whether the
    row is of an earlier attempt, without a state."""

    def __init__(self, fetch: Callable[[], State] | None = None):
        self._fetch, self._over = fetch, False
        self.read_back = fetch is None

    def __call__(self) -> State | None:
        """A copy of yours; None of a row that was read back. Raises UserError once on_epoch is through."""
        if self._over:
            raise UserError("state() is of the epoch that on_epoch tells of: call it there, and keep what it gives")
        return self._fetch() if self._fetch else None

    def end(self) -> None:
        """The next epoch overwrites it."""
        self._over = True


class Callback:
    """Override what you need; here nothing is done. Runs that train together are told of in turns, each with its `run`.

    What a method raises ends the training, as an interruption: the rows so far stay, and checkpoints do.
    """

    def on_begin(self, run: Run, folder: Path | None) -> None:
        """A run begins, or goes on, or is read back; `folder` is where it is kept, None where it is not."""

    def on_epoch(self, run: Run, row: Row, state: StateOf) -> None:
        """A row of a run: epoch, epoch_time, train_acc, ...; epoch 0 is the network before training.

        `state()`, called here, fetches the state of training after this epoch: params, and those of rule and optimizer.
        It is a copy of yours; None of rows that an earlier attempt has trained, which come first, all of them.
        """

    def on_end(self, run: Run, status: str) -> None:
        """A run that has begun ends, in this word as in its record: "finished", "diverged at epoch e", "interrupted" or
        "failed"; where a callback ends the training as well."""


class All(Callback):
    """Several callbacks as one. Each is told of the end of what it was told begins, once, whatever others raise."""

    def __init__(self, callbacks: Sequence[Callback]):
        self.callbacks = list(callbacks)
        self.begun: dict[Run, list[Callback]] = {}

    def on_begin(self, run: Run, folder: Path | None) -> None:
        told = self.begun.setdefault(run, [])
        for one in self.callbacks:
            one.on_begin(run, folder)
            told.append(one)

    def on_epoch(self, run: Run, row: Row, state: StateOf) -> None:
        try:
            for one in self.callbacks:
                one.on_epoch(run, dict(row), state)
        finally:
            state.end()

    def on_end(self, run: Run, status: str) -> None:
        with ExitStack() as stack:  # it calls all of them, the last first
            for one in reversed(self.begun.pop(run, [])):
                stack.callback(one.on_end, run, status)

    def broke(self, statuses: dict[Run, str], status: str) -> None:
        """Training breaks off: whatever has begun ends, with its status or else this one. The error that broke it off
        is the one to be raised; those of callbacks are warned of."""
        for run in list(self.begun):
            try:
                self.on_end(run, statuses.get(run, status))
            except Exception as error:
                log.warning("a callback failed at the end of a run (%s: %s)", type(error).__name__, error)
