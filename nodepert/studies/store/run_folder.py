"""Where runs live: `<out>/<name>/<id>/` with config.json, metrics.csv and checkpoints/, every file written whole.

config.json is the run's record: what it is, its status, and when it is through the digest of its table. Two processes
never write one run: whoever does holds its lease (lock.py).
"""

from __future__ import annotations

import csv
import functools
import io
import logging
import os
import platform
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from filelock import FileLock

from nodepert.errors import UserError
from nodepert.studies.run import Run, complete, from_dict, run_id
from nodepert.studies.store import lock
from nodepert.studies.store.records import (
    Damaged,
    Foreign,
    clear_strays,
    digest,
    read_text,
    sealed,
    unsealed,
    write_whole,
    writing,
)

FORMAT, VERSION = "nodepert-run", 2  # of version 1, without a seal, until 0.1
COLUMNS = ["epoch", "epoch_time", "train_acc", "test_acc", "train_loss", "test_loss"]
RUNNING, FINISHED, INTERRUPTED, FAILED = "running", "finished", "interrupted", "failed"
log = logging.getLogger("nodepert")


class Occupied(UserError):
    """A run that another process is at."""


class RunFolder:
    """The folder of one run, as this process sees it."""

    def __init__(self, path: Path, record: dict[str, Any], held: Callable[[], bool] = lambda: True):
        self.path, self.record, self.held = path, record, held  # once another process has it, nothing is written

    @classmethod
    def read(cls, path: Path) -> RunFolder:
        """The folder of a run that is there, to be looked at. Raises UserError where there is no sound record."""
        return cls(path, read_record(path / "config.json"))

    @functools.cached_property
    def before(self) -> int:
        """How many rows an earlier attempt has left."""
        return len(self.rows())

    @property
    def status(self) -> str:
        """running, interrupted, failed, finished, or 'diverged at epoch e' (a result as well)."""
        return self.record["status"]

    @property
    def standing(self) -> str:
        """The status; but a run that says running without a living process at it was interrupted."""
        return INTERRUPTED if self.status == RUNNING and not lock.seems_held(self.path) else self.status

    @property
    def done(self) -> bool:
        """Whether the run is through, and its table is all there."""
        return self.done_with(self.rows())

    def done_with(self, rows: Sequence[dict[str, Any]]) -> bool:
        """The same, where its rows have been read."""
        last = rows[-1]["epoch"] if rows else None
        return (self.status, last) in ((FINISHED, self.record["config"]["epochs"]), (f"diverged at epoch {last}", last))

    def set_status(self, status: str, **more: Any) -> None:
        """Write config.json with a new status. Raises UserError."""
        self.record = {k: v for k, v in self.record.items() if k != "reason"} | {
            "status": status, "updated": now(), **more
        }  # fmt: skip
        if self.held():
            write_whole(self.path / "config.json", sealed(self.record))

    def begin(self, epoch: int = 0, **facts: Any) -> None:
        """Say that training begins here, after this epoch; `facts` (device, data source) are recorded. `attempts` has
        the epochs after which it ever began. Raises UserError."""
        before = self.record.get("attempts")
        attempts = [*(before if isinstance(before, list) else []), epoch]
        self.set_status(RUNNING, versions=versions(), attempts=attempts, **facts)

    def end(self, status: str, rows: Sequence[dict[str, Any]]) -> None:
        """Say that the run is through: its table, then its status, with the table's digest. Raises UserError."""
        self.write_rows(rows, last=True)
        self.set_status(status, table=digest(to_csv(rows)))

    def write_rows(self, rows: Sequence[dict[str, Any]], last: bool = False) -> None:
        """Write metrics.csv whole; an earlier, longer table of the same run is kept until this one reaches it or its
        `last` row. Raises UserError."""
        if (last or len(rows) >= self.before) and self.held():
            write_whole(self.path / "metrics.csv", to_csv(rows))

    def rows(self) -> list[dict[str, Any]]:
        """The rows of metrics.csv; none where there is no table, or not the one that was written."""
        try:
            text = read_text(self.path / "metrics.csv")
            table = list(csv.DictReader(io.StringIO(text)))
            rows = [{k: int(v) if k == "epoch" else float(v) for k, v in row.items()} for row in table]
        except (UserError, ValueError, TypeError, csv.Error):
            return []
        whole = [epoch_of(row) for row in rows] == list(range(len(rows)))
        return rows if whole and self.record.get("table") in (None, digest(text)) else []


@contextmanager
def open_run(
    out: Path, name: str, run: Run, data: str, patient: bool = False, own: dict[str, str] | None = None
) -> Iterator[RunFolder]:
    """The folder of this run, made if need be, and held; `done` says whether the run is through.

    `data` is the fingerprint of the data, `own` what `own_code` says of the run's specs (provenance.py); `patient` as
    of a lease. A record that is damaged is set aside, with a warning, and made anew. Raises Occupied where another
    process is at this run; UserError for a name that is no folder name, a place that cannot be written, a folder that
    holds something else, such as this run on other data, or of another rule of the same name.
    """
    path = Path(out) / checked_name(name) / run_id(run)
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
        lease = lock.of(path)
        if not lease.acquired(patient):
            raise Occupied(f"another process is at this run, in {path}; wait for it, or give another --name")
    try:
        with writing(path):
            clear_strays(path)
        yield _opened(path, run, {"data": data} | ({"own": own} if own else {}), lease.held)
    finally:
        lease.release()
        with suppress(OSError):
            path.rmdir()  # where nothing was begun


def checked_name(name: str) -> str:
    """The name of a study, which becomes a folder. Raises UserError where it cannot."""
    if not re.fullmatch(r"[\w.+-]{1,100}", name) or name.strip(".") == "":
        raise UserError(f"the name '{name}' must be letters, digits and . _ + - (it becomes a folder)")
    return name


def _opened(path: Path, run: Run, used: dict[str, Any], held: Callable[[], bool]) -> RunFolder:
    """The folder with the record that is there, or a new one; what is damaged is set aside. `used`: data and code."""
    config, place = complete(run), path / "config.json"
    new = {"format": FORMAT, "id": path.name, "config": config, **used, "status": RUNNING, "started": now()}
    record = new
    if place.exists():
        try:
            record = read_record(place)
            if record["config"] != config:
                raise Damaged(f"{place} describes another run than its folder's name says")
            if record.get("data") != used["data"]:
                raise UserError(f"{path} holds this run on other data ({record.get('source')}); give another --name")
            code, before = used.get("own", {}), record.get("own", {})
            if other := [what for what in code if code[what] != before.get(what, code[what])]:
                raise UserError(f"{path} holds this run of another {other[0]}, whose code has changed since; "
                                "give another --name, or delete what is there")  # fmt: skip
        except Damaged as error:
            aside = place.with_name("config.json.damaged")
            log.warning("%s; it is kept as %s, and the run goes on from what else is there", error, aside.name)
            with writing(path):
                place.replace(aside)
            record = new
        except Foreign as error:
            raise UserError(f"{error}; it is in the way of this run: move it away") from None
    return RunFolder(path, record | {"version": VERSION}, held)


def read_record(path: Path) -> dict[str, Any]:
    """A run's config.json, checked. Raises UserError, naming the file, for anything that NodePert did not write:
    Damaged where it is not as it was written, Foreign where it is something else."""
    record = unsealed(path, FORMAT, VERSION, unsealed_until=1)
    if not isinstance(record.get("status"), str):
        raise Damaged(f"{path} has no status; it is damaged")
    try:
        from_dict(record.get("config"))
    except UserError as error:
        raise Damaged(f"{path}: {error}") from None
    return record


def load_run(path: Path) -> Run:
    """The run that a config.json (or the folder that holds it) describes. Raises UserError."""
    path = Path(path)
    return from_dict(read_record(path / "config.json" if path.is_dir() else path)["config"])


def through(status: str) -> bool:
    """Whether a status is that of a run that has its result."""
    return status == FINISHED or status.startswith("diverged")


def epoch_of(row: Any) -> int | None:
    """The epoch of a row; none where it is no row of a run."""
    whole = isinstance(row, dict) and list(row) == COLUMNS and all(type(v) in (int, float) for v in row.values())
    return row["epoch"] if whole else None


def to_csv(rows: Sequence[dict[str, Any]], header: bool = True) -> str:
    """Rows as CSV text; floats in full precision."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def append_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Append whole rows to a table that other processes append to as well; the first writes the header.

    Raises UserError where the table cannot be written or has other columns.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"), open(path, "a+b") as file:
            file.seek(0)
            first = file.readline().decode(errors="replace")
            header = ",".join(rows[0]) + "\n"
            if first and first != header:
                raise UserError(f"{path} has other columns than these rows; move it away, or choose another name")
            torn = first and not _ends_in_newline(file)  # a writer was killed in the middle of a row
            file.write((b"\n" if torn else b"") + to_csv(rows, header=not first).encode())
            file.flush()
            os.fsync(file.fileno())


@functools.cache
def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    return {name: metadata.version(name) for name in ("nodepert", "jax", "jaxlib", "optax", "numpy")} | {
        "python": platform.python_version()
    }


def _ends_in_newline(file: Any) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def now() -> str:
    """The time, in UTC, as records have it."""
    return datetime.now(UTC).isoformat(timespec="seconds")
