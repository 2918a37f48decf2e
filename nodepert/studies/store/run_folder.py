"""The folder of a run, `<out>/<name>/<id>/`: config.json, metrics.csv and checkpoints/, every file written atomically.

config.json is the run's record: its configuration, its status and, once it has finished, the digest of its table. The
process that writes a run holds its lock (lock.py).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from nodepert.errors import UserError
from nodepert.studies.run import Run, from_config
from nodepert.studies.store import lock
from nodepert.studies.store.records import (
    Damaged,
    Foreign,
    as_path,
    clear_strays,
    digest,
    make_folder,
    read_text,
    sealed,
    unsealed,
    write_whole,
    writing,
)  # fmt: skip
from nodepert.studies.store.tables import from_csv, to_csv
from nodepert.studies.store.versions import versions
from nodepert.training.metrics import Row

FORMAT, VERSION = "nodepert-run", 2  # version 1 had no seal
RUNNING, FINISHED, INTERRUPTED, FAILED = "running", "finished", "interrupted", "failed"
log = logging.getLogger("nodepert")


class Locked(UserError):
    """A run that another process executes."""


class RunFolder:
    """The folder of one run, as this process sees it."""

    def __init__(
        self, path: Path, record: dict[str, Any], held: Callable[[], bool] = lambda: True,
        origin: dict[str, Any] | None = None,
    ):  # fmt: skip
        self.path, self.record, self.origin = path, record, origin or {}
        self.held = held  # False once the lock is lost: then nothing is written

    @classmethod
    def read(cls, path: Path) -> RunFolder:
        """The folder of a saved run, to be read. Raises UserError where there is no sound record."""
        return cls(path, read_record(path / "config.json"))

    @cached_property
    def rows_before(self) -> int:
        """How many rows an earlier attempt has left."""
        return len(self.rows())

    @property
    def status(self) -> str:
        """running, interrupted, failed, finished, 'stopped at epoch e' or 'diverged at epoch e' (results as well).

        A run whose record says running, but which no living process executes, was interrupted.
        """
        status = self.record["status"]
        return INTERRUPTED if status == RUNNING and not lock.seems_held(self.path) else status

    @property
    def done(self) -> bool:
        """Whether the run has its result, and its table is complete."""
        return self.is_done_with(self.rows())

    def is_done_with(self, rows: Sequence[Row]) -> bool:
        """Whether the run has its result, and these are all of its rows."""
        last, status = rows[-1]["epoch"] if rows else None, self.record["status"]
        complete = self.record["config"]["epochs"] if status == FINISHED else status.rpartition(" ")[2]
        return has_result(status) and str(last) == str(complete)

    def set_status(self, status: str, **more: Any) -> None:
        """Write config.json with a new status. Raises UserError."""
        self.record = {k: v for k, v in self.record.items() if k != "reason"} | {
            "status": status, "updated": now(), **more
        }  # fmt: skip
        if self.held():
            write_whole(self.path / "config.json", sealed(self.record))

    def start(self, epoch: int = 0, **facts: Any) -> None:
        """Record that training starts after this epoch, with `facts` (device, data source); `attempts` lists
        the epoch after which each attempt started. Raises UserError."""
        before = self.record.get("attempts")
        attempts = [*(before if isinstance(before, list) else []), epoch]
        if not epoch:  # nothing of an earlier attempt remains
            facts |= self.origin
        self.set_status(RUNNING, versions=versions(), attempts=attempts, **facts)

    def end(self, status: str, rows: Sequence[Row]) -> None:
        """Write the table of a run that has its result, then its status, with the table's digest. Raises UserError."""
        if not self.held():
            log.warning("%s was deleted, or taken over by another process, during training: nothing is saved there",
                        self.path)  # fmt: skip
        self.write_rows(rows, last=True)
        self.set_status(status, table=digest(to_csv(rows)))

    def write_rows(self, rows: Sequence[Row], last: bool = False) -> None:
        """Write metrics.csv; an earlier, longer table of the same run stays until this one reaches its length, or the
        `last` row is there. Raises UserError."""
        if (last or len(rows) >= self.rows_before) and self.held():
            write_whole(self.path / "metrics.csv", to_csv(rows))

    def rows(self) -> list[Row]:
        """The rows of metrics.csv; none where there is no table, or a corrupt one."""
        try:
            text = read_text(self.path / "metrics.csv")
            rows = from_csv(text)
        except ValueError:  # UserError among them
            return []
        return rows if self.record.get("table") in (None, digest(text)) else []


@contextmanager
def open_run(
    out: Path, name: str, run: Run, data: str, patient: bool = False, origin: dict[str, Any] | None = None
) -> Iterator[RunFolder]:
    """The folder of a run, made if need be, and locked for this process; `done` says whether it has its result. A
    corrupt record is renamed, with a warning, and a new one is written.

    Args:
        data: The fingerprint of the data.
        patient: Whether to wait for a lock that seems abandoned.
        origin: What the record says, beside the configuration, of where a result comes from: `code`, by `code_of`
            (where it differs from the record's, a warning says so), `objects`, by `objects_of`, and `settings` of JAX.

    Raises:
        Locked: Where another process executes this run.
        UserError: For an invalid name, a path that cannot be written, another run, data or object in the folder.
    """
    path = Path(out) / checked_name(name) / run.id
    with writing(path):
        make_folder(path)
        held = lock.of(path)
        if not held.acquired(patient):
            raise Locked(f"this run is locked by another process or thread, in {path}; wait for it, or give another "
                         "--name")  # fmt: skip
    try:
        with writing(path):
            clear_strays(path)
        yield _opened(path, run, data, origin or {}, held.held)
    finally:
        held.release()
        with suppress(OSError):
            path.rmdir()  # where nothing was written


def checked_name(name: str) -> str:
    """The name of a study, which becomes a folder. Raises UserError where it cannot."""
    if not re.fullmatch(r"[\w.+-]{1,100}", name) or name.strip(".") == "":
        raise UserError(f"the name '{name}' must be letters, digits and . _ + - (it becomes a folder)")
    return name


def _opened(path: Path, run: Run, data: str, origin: dict[str, Any], held: Callable[[], bool]) -> RunFolder:
    """The folder with the record found there, or a new one; a corrupt one is set aside."""
    file = path / "config.json"
    new = {"format": FORMAT, "id": path.name, "config": run.config, "data": data, **origin,
           "status": RUNNING, "started": now()}  # fmt: skip
    record = new
    if file.exists():
        try:
            record = _matching(read_record(file), path, new)
        except Damaged as error:
            aside = file.with_name("config.json.damaged")
            log.warning("%s; it is saved as %s, and the run resumes from its other files", error, aside.name)
            with writing(path):
                file.replace(aside)
        except Foreign as error:
            raise UserError(f"{error}; move it away: this run needs its folder") from None
    return RunFolder(path, record | {"version": VERSION}, held, origin)


def _matching(record: dict[str, Any], path: Path, new: dict[str, Any]) -> dict[str, Any]:
    """The record of a folder, if it is that of a new run on the same data. Raises UserError, Damaged among them."""
    if record["config"] != new["config"]:
        raise Damaged(f"{path}/config.json does not match the run id of its folder")
    if record.get("data") != new["data"]:
        raise UserError(f"{path} has this run, trained on other data ({record.get('source')}); give another --name")
    if other := [k for k, v in new.get("objects", {}).items() if record.get("objects", {}).get(k, v) != v]:
        raise UserError(f"{path} was trained with another {other[0]}; register this one under another name")
    before, code = record.get("code", {}), new.get("code", {})
    for what in [what for what in code if code[what] != before.get(what, code[what])]:
        log.warning("the source of the %s has changed since %s was trained; to train it again, delete that folder or "
                    "give another --name", what, path)  # fmt: skip
    return record


def read_record(path: Path) -> dict[str, Any]:
    """A run's config.json, checked. Raises UserError, naming the file: Damaged for a corrupt one, Foreign for a file
    that NodePert did not write."""
    record = unsealed(path, FORMAT, VERSION, unsealed_until=1)
    if not isinstance(record.get("status"), str):
        raise Damaged(f"{path} has no status; it is corrupt")
    try:
        from_config(record.get("config"))
    except UserError as error:
        raise Damaged(f"{path}: {error}") from None
    return record


def load_run(path: str | Path) -> Run:
    """The run that a config.json (or the folder that holds it) describes.

    Raises:
        UserError: Where there is no such file, or it is corrupt.

    Examples:
        >>> npt.load_run("runs/default/5b0c995b590e").rule  # doctest: +SKIP
        'np(samples=4)'
    """
    return from_config(read_record(path / "config.json" if (path := as_path(path)).is_dir() else path)["config"])


def has_result(status: str) -> bool:
    """Whether a status is that of a run that has its result."""
    return succeeded(status) or status.startswith("diverged")


def succeeded(status: str) -> bool:
    """Whether a status is that of a run that has finished, or stopped early as it was asked to."""
    return status == FINISHED or status.startswith("stopped")


def now() -> str:
    """The time, in UTC, as records have it."""
    return datetime.now(UTC).isoformat(timespec="seconds")
