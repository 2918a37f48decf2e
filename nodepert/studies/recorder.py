"""What training saves as it runs: rows, checkpoints and statuses of runs."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from nodepert.data import Dataset
from nodepert.data.dataset import fingerprint
from nodepert.errors import UserError
from nodepert.studies.course import Course, end_of
from nodepert.studies.run import Run
from nodepert.studies.stopping import Stopped
from nodepert.studies.store import checkpoints, open_files
from nodepert.studies.store.run_folder import FAILED, INTERRUPTED, Locked, RunFolder, open_run
from nodepert.studies.user_code import code_of, objects_of
from nodepert.training.configuration import check_settings, settings
from nodepert.training.metrics import Row
from nodepert.training.predictor import Predictor
from nodepert.training.program import State

log = logging.getLogger("nodepert")


def open_folders(
    stack: ExitStack, runs: Sequence[Run], sets: dict[str, Dataset], predictors: dict[int, Predictor], name: str,
    out: str | Path, skip: bool,
) -> dict[int, RunFolder]:  # fmt: skip
    """{i: the folder of run i}, locked until the stack is closed; if `skip`, without those that others have locked.

    Raises Locked and UserError as `open_run`, and UserError if the limit on open files is too low, or for a result with
    other settings of JAX.
    """
    open_files.make_room(len(runs))
    prints = {spec: fingerprint(data) for spec, data in sets.items()}
    folders: dict[int, RunFolder] = {}
    for i, (run, code, objects) in enumerate(zip(runs, code_of(runs), objects_of(runs, predictors), strict=True)):
        origin = {"code": code, "objects": objects, "settings": settings()}
        try:
            folder = stack.enter_context(open_run(Path(out), name, run, prints[run.dataset], not skip, origin))
        except Locked:
            if not skip:
                raise
            continue
        folders[i] = folder
        if folder.done or checkpoints.exist(folder.path):
            check_settings(str(folder.path), folder.record, "--name")
        _restore_table(folder)
    return folders


def _restore_table(folder: RunFolder) -> None:
    """Restore metrics.csv of a run with a result from its checkpoint, if the file is missing or corrupt."""
    if not folder.done:
        rows = checkpoints.last_rows(folder.path, folder.record["data"])
        config = folder.record["config"]
        if rows and folder.status == end_of(rows, config["epochs"], config.get("patience", 0)):
            log.warning("%s/metrics.csv was corrupt; it is restored from the checkpoint", folder.path)
            folder.end(folder.status, rows)


def status_after(error: BaseException) -> str:
    """The status of runs that this error broke off."""
    return FAILED if isinstance(error, Exception) and not isinstance(error, Stopped) else INTERRUPTED


class Recorder:
    """Writes rows, checkpoints and statuses of the runs of one group, where they have folders."""

    def __init__(self, folders: dict[int, RunFolder], every: float, predictors: dict[int, Predictor]):
        self.folders, self.every, self.predictors = folders, every, predictors
        self.open = set(folders)  # runs without a result
        self.last = time.monotonic()

    def checkpoint_is_due(self) -> bool:
        """Whether the time between checkpoints has passed; then it starts again."""
        if time.monotonic() - self.last < self.every:
            return False
        self.last = time.monotonic()
        return True

    def write(self, i: int, course: Course, state: State | None) -> None:
        """Write the rows of a run, of which the last is new, and its state as a checkpoint. Raises UserError."""
        if not (folder := self.folders.get(i)):
            return
        rows, status = course.rows, course.status
        if not status:
            folder.write_rows(rows)
        if state and folder.held():
            try:
                checkpoints.save(folder.path, rows[-1]["epoch"], rows, course.saved(state), folder.record["data"],
                                 1 if status else checkpoints.KEPT, self.predictors[i].to_json())  # fmt: skip
            except UserError as error:  # a run does not fail for want of one
                log.warning("no checkpoint of epoch %d: %s", rows[-1]["epoch"], error)
        if status:
            self.end(i, status, rows)

    def end(self, i: int, status: str, rows: list[Row]) -> None:
        """Write the result of a run."""
        if folder := self.folders.get(i):
            folder.end(status, rows)
            self.open.discard(i)

    def break_off(self, error: BaseException) -> None:
        """Record of all runs without a result that they were interrupted, or failed and why."""
        status = status_after(error)
        reason = " ".join(f"{'' if isinstance(error, UserError) else type(error).__name__ + ': '}{error}".split())[:500]
        for i in self.open:
            with suppress(UserError):  # the disk may be full
                self.folders[i].set_status(status, **({"reason": reason} if status == FAILED else {}))
