"""What training leaves on disk as it goes: rows, checkpoints and statuses of runs, and where they go on from."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import jax

from nodepert.data import Dataset
from nodepert.data.dataset import fingerprint
from nodepert.errors import UserError
from nodepert.studies.run import Run, checked
from nodepert.studies.setup import build
from nodepert.studies.stopping import Stopped
from nodepert.studies.store import checkpoints, open_files
from nodepert.studies.store.checkpoints import Checkpoint
from nodepert.studies.store.run_folder import FAILED, FINISHED, INTERRUPTED, Occupied, RunFolder, open_run
from nodepert.studies.user_code import own_code
from nodepert.training.hyper import stacked
from nodepert.training.metrics import Row, diverged
from nodepert.training.program import State, program, task_data

log = logging.getLogger("nodepert")


def checked_interval(seconds: float) -> None:
    """Raises UserError for seconds between checkpoints that are no time."""
    if not 0 <= seconds < math.inf:
        raise UserError(f"checkpoint_every is in seconds, finite and not negative; got {seconds}")


def open_folders(
    stack: ExitStack, runs: Sequence[Run], sets: dict[str, Dataset], name: str, out: str | Path, skip: bool
) -> dict[int, RunFolder]:
    """{i: the folder of run i}, held until the stack is closed; if `skip`, without those that other processes are at.

    Raises UserError, Occupied among them, as `open_run`, and where so many files cannot be open.
    """
    open_files.make_room(len(runs))
    prints = {spec: fingerprint(data) for spec, data in sets.items()}
    folders: dict[int, RunFolder] = {}
    for i, (run, own) in enumerate(zip(runs, own_code(runs), strict=True)):
        try:
            told = prints[checked(run).dataset], not skip, own
            folder = stack.enter_context(open_run(Path(out), name, run, *told))
        except Occupied:
            if not skip:
                raise
            continue
        folders[i] = folder
        _mend(folder)
    return folders


def _mend(folder: RunFolder) -> None:
    """Put back the table of a run that is through, where it was lost."""
    if not folder.done:
        rows = checkpoints.rows_at_the_end(folder.path, folder.record["data"])
        if rows and folder.status == ended(rows[-1], folder.record["config"]["epochs"]):
            log.warning("%s/metrics.csv was damaged; it is put back from the checkpoint", folder.path)
            folder.end(folder.status, rows)


def ended(row: Row, epochs: int) -> str | None:
    """The status of a run of which this is the last row, if that ends it."""
    return f"diverged at epoch {row['epoch']}" if diverged(row) else FINISHED if row["epoch"] == epochs else None


def word_for(error: BaseException) -> str:
    """The status of runs that this broke off."""
    return FAILED if isinstance(error, Exception) and not isinstance(error, Stopped) else INTERRUPTED


def begun(runs: Sequence[Run], sets: dict[str, Dataset], folders: dict[int, RunFolder]) -> dict[int, Checkpoint]:
    """{i: the last checkpoint of run i}, of the runs of one group that have folders and were interrupted.

    Where several processes share a computation there are none: they begin anew.
    """
    folders = {i: folder for i, folder in folders.items() if checkpoints.any_of(folder.path)}
    if not folders or jax.process_count() > 1:
        return {}
    numbers = list(folders)
    run = checked(runs[numbers[0]])
    data = sets[run.dataset]
    model, loss, _, hypers = build([runs[i] for i in numbers], data)
    pure = program(model, loss, batchsize=run.batchsize, epochs=run.epochs)
    first = jax.tree.map(lambda a: a[0], stacked(hypers[:1]))
    like = jax.eval_shape(pure.init, first, jax.eval_shape(lambda: task_data(data)))
    found = {i: checkpoints.latest(folder.path, like, folder.record["data"]) for i, folder in folders.items()}
    return {i: checkpoint for i, checkpoint in found.items() if checkpoint}


class Keeper:
    """Writes what comes of the runs of one group, where they have folders."""

    def __init__(self, runs: Sequence[Run], folders: dict[int, RunFolder], every: float):
        self.runs, self.folders, self.every = runs, folders, every
        self.open = set(folders)  # runs that are not through
        self.last = time.monotonic()

    def due(self) -> bool:
        """Whether it is time for checkpoints."""
        if time.monotonic() - self.last < self.every:
            return False
        self.last = time.monotonic()
        return True

    def row(self, i: int, rows: list[Row], state: State | None) -> None:
        """The last of these rows is new; a state is kept. Raises UserError where it cannot be written."""
        if not (folder := self.folders.get(i)):
            return
        status = ended(rows[-1], self.runs[i].epochs)
        if not status:
            folder.write_rows(rows)
        if state and folder.held():
            try:
                checkpoints.save(folder.path, rows[-1]["epoch"], rows, state, folder.record["data"],
                                 **({"keep": 1} if status else {}))  # fmt: skip
            except UserError as error:  # a run does not fail for want of one
                log.warning("no checkpoint of epoch %d: %s", rows[-1]["epoch"], error)
        if status:
            self.end(i, status, rows)

    def end(self, i: int, status: str, rows: list[Row]) -> None:
        """A run is through."""
        if folder := self.folders.get(i):
            folder.end(status, rows)
            self.open.discard(i)

    def broke(self, error: BaseException) -> None:
        """Say of all runs that are not through that they were interrupted, or failed and why."""
        word = word_for(error)
        said = " ".join(f"{'' if isinstance(error, UserError) else type(error).__name__ + ': '}{error}".split())[:500]
        for i in self.open:
            with suppress(UserError):  # the disk may be full
                self.folders[i].set_status(word, **({"reason": said} if word == FAILED else {}))
