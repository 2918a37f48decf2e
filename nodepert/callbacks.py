"""What happens while runs train: a `Callback` is told of each run's beginning, epochs and end.

class Show(npt.Callback):
    def on_epoch(self, run, row, state):
        print(run.rule, row["epoch"], row["test_acc"])

npt.train(runs, callbacks=[Show()])
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nodepert.config import Run
from nodepert.rows import Row

if TYPE_CHECKING:  # the command line needs no JAX to list names
    from nodepert.training import State

StateOf = Callable[[], "State | None"]


class Callback:
    """Override what you need; here nothing is done. Runs that train together are told of in turns, each with its `run`.

    What a method raises ends the training, as an interruption: the rows so far stay, and checkpoints do.
    """

    def on_begin(self, run: Run, folder: Path | None) -> None:
        """A run begins, or goes on, or is read back; `folder` is where it is kept, None where it is not."""

    def on_epoch(self, run: Run, row: Row, state: StateOf) -> None:
        """A row of a run: epoch, epoch_time, train_acc, ...; epoch 0 is the network before training.

        `state()` fetches the state of training after this epoch: params, and those of rule and optimizer. It is a copy
        of yours, made when you ask; None of rows that an earlier attempt has trained, which come first, all of them.
        """

    def on_end(self, run: Run, status: str) -> None:
        """A run ends: "finished", "diverged at epoch e", "interrupted" or "failed"."""


def nothing() -> None:
    """The state of a row that was read back."""


class All(Callback):
    """Several callbacks as one."""

    def __init__(self, callbacks: Sequence[Callback]):
        self.callbacks = list(callbacks)

    def on_begin(self, run: Run, folder: Path | None) -> None:
        for one in self.callbacks:
            one.on_begin(run, folder)

    def on_epoch(self, run: Run, row: Row, state: StateOf) -> None:
        for one in self.callbacks:
            one.on_epoch(run, dict(row), state)

    def on_end(self, run: Run, status: str) -> None:
        for one in self.callbacks:
            one.on_end(run, status)
