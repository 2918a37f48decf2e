"""The course of a run: its rows so far, its best network on the validation split, and whether that ends it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from nodepert.core import Params
from nodepert.errors import UserError
from nodepert.studies.run import Run
from nodepert.studies.store.checkpoints import Checkpoint
from nodepert.studies.store.run_folder import FINISHED
from nodepert.training.metrics import Row, best_epoch, diverged
from nodepert.training.program import State


class Course:
    """A run under way: rows of epochs 0, 1, ..., and the best network so far where there is a validation split."""

    def __init__(self, run: Run, checkpoint: Checkpoint | None = None):
        self.run, self.rows = run, list(checkpoint.rows) if checkpoint else []
        self.best: Params | None = checkpoint and checkpoint.best

    def add(self, row: Row, state: Callable[[], State]) -> None:
        """Add the row of an epoch; `state` gives the state after it."""
        self.rows.append(row)
        if self.run.validation and best_epoch(self.rows) == row["epoch"]:
            self.best = jax.device_get(state().params)

    @property
    def status(self) -> str | None:
        """The status with which the run ends after these rows; None where it does not."""
        return end_of(self.rows, self.run.epochs, self.run.patience)

    def saved(self, state: State) -> Any:
        """What a checkpoint holds: first the parameters of the network that the run results in."""
        return (self.best, state) if self.run.validation else state

    def params(self, state: State) -> Params:
        """The network that the run results in."""
        return self.best if self.run.validation else state.params


def end_of(rows: Sequence[Row], epochs: int, patience: int = 0) -> str | None:
    """The status of a run that ends with these rows; None where it does not."""
    last = rows[-1]["epoch"]
    if diverged(rows[-1]):
        return f"diverged at epoch {last}"
    if last == epochs:
        return FINISHED
    return f"stopped at epoch {last}" if patience and last - best_epoch(rows) >= patience else None


def copied(state: Callable[[int], State], k: int) -> State:
    """A state that outlives the next epoch. Raises UserError where several processes share it."""
    if jax.process_count() > 1:
        raise UserError("state() is not available if several processes share a computation")
    return jax.tree.map(jnp.asarray, jax.device_get(state(k)))
