"""Where runs live: `<out>/<name>/<id>/` with config.json and metrics.csv, every file written whole."""

from __future__ import annotations

import csv
import functools
import io
import json
import os
import platform
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any
from uuid import uuid4

from filelock import FileLock, Timeout

from nodepert.config import Run, complete, from_dict, run_id
from nodepert.registry import UserError

FORMAT, VERSION = "nodepert-run", 1
LARGEST = 16 * 2**20  # bytes of any file read here; ours are kilobytes
COLUMNS = ["epoch", "epoch_time", "train_acc", "test_acc", "train_loss", "test_loss"]
RUNNING, FINISHED, INTERRUPTED = "running", "finished", "interrupted"


class RunFolder:
    """The folder of one run."""

    def __init__(self, path: Path, record: dict[str, Any]):
        self.path, self.record = path, record
        self.before = len(self.rows())  # rows of an earlier attempt

    @property
    def status(self) -> str:
        """running, interrupted, finished, or 'diverged at epoch e' (a result as well)."""
        return self.record["status"]

    @property
    def done(self) -> bool:
        return self.status == FINISHED or self.status.startswith("diverged")

    def set_status(self, status: str, **more: Any) -> None:
        """Write config.json with a new status."""
        self.record |= {"status": status, "updated": _now(), **more}
        write_whole(self.path / "config.json", json.dumps(self.record, indent=2) + "\n")

    def write_rows(self, rows: Sequence[dict[str, Any]], last: bool = False) -> None:
        """Write metrics.csv whole; an earlier, longer table of the same run is kept until this one reaches it or its
        `last` row."""
        if last or len(rows) >= self.before:
            write_whole(self.path / "metrics.csv", to_csv(rows))

    def rows(self) -> list[dict[str, Any]]:
        """The rows of metrics.csv; none where there is no readable table."""
        try:
            table = list(csv.DictReader(io.StringIO(read_text(self.path / "metrics.csv"))))
            rows = [{k: int(v) if k == "epoch" else float(v) for k, v in row.items()} for row in table]
            ours = all(list(row) == COLUMNS and row["epoch"] == i for i, row in enumerate(rows))
            return rows if ours else []
        except (UserError, ValueError, TypeError, csv.Error):
            return []


@contextmanager
def open_run(out: Path, name: str, run: Run, data: str, **facts: Any) -> Iterator[RunFolder]:
    """The folder of this run, made if need be, and locked; a finished run's is given as it is (`done`).

    `data` is the fingerprint of the data; `facts` (device, data source) are recorded. Raises UserError for a name
    that is no folder name, a place that cannot be written, a folder that holds something else or is in use.
    """
    path = Path(out) / checked_name(name) / run_id(run)
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise UserError(f"another process is at this run, in {path}; wait for it, or give another --name") from None
    try:
        yield _opened(path, run, data, facts)
    finally:
        lock.release()


def checked_name(name: str) -> str:
    """The name of a study, which becomes a folder. Raises UserError where it cannot."""
    if not re.fullmatch(r"[\w.+-]{1,100}", name) or name.strip(".") == "":
        raise UserError(f"the name '{name}' must be letters, digits and . _ + - (it becomes a folder)")
    return name


def _opened(path: Path, run: Run, data: str, facts: dict[str, Any]) -> RunFolder:
    config = complete(run)
    if (path / "config.json").exists():
        try:
            record = read_record(path / "config.json")
        except UserError as error:
            raise UserError(f"{error}; it is in the way of this run: move it away") from None
        if record["config"] != config:
            raise UserError(f"{path / 'config.json'} describes another run than its folder's name says; move it away")
        if record.get("data") != data:
            raise UserError(f"{path} holds this run on other data ({record.get('source')}); give another --name")
        folder = RunFolder(path, record)
        last = rows[-1]["epoch"] if (rows := folder.rows()) else None
        if (folder.status, last) in ((FINISHED, run.epochs), (f"diverged at epoch {last}", last)):
            return folder
    record = {"format": FORMAT, "version": VERSION, "id": path.name, "config": config, "data": data, "started": _now()}
    folder = RunFolder(path, record)
    folder.set_status(RUNNING, versions=versions(), **facts)
    return folder


def read_record(path: Path) -> dict[str, Any]:
    """A run's config.json, checked. Raises UserError, naming the file, for anything that NodePert did not write."""
    text = read_text(path)
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not readable as JSON ({error}), as a run's config.json is") from None
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise UserError(f'{path} is not a NodePert run\'s config.json (it has no "format": "{FORMAT}")')
    if record.get("version") != VERSION:
        raise UserError(f"{path} has format version {record.get('version')!r}; this NodePert reads version {VERSION}")
    if not isinstance(record.get("status"), str):
        raise UserError(f"{path} has no status; it is damaged")
    try:
        from_dict(record.get("config"))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return record


def load_run(path: Path) -> Run:
    """The run that a config.json (or the folder that holds it) describes. Raises UserError."""
    path = Path(path)
    return from_dict(read_record(path / "config.json" if path.is_dir() else path)["config"])


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


def write_whole(path: Path, text: str) -> None:
    """Replace a file in one step: written beside it, flushed to disk, renamed. Raises UserError."""
    with writing(path):
        temporary = path.with_name(f".{path.name}.{uuid4().hex}")
        try:
            with open(temporary, "x", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the file system refuses into a UserError that names the place."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {(error.strerror or str(error)).lower()}; choose another place"
        ) from None


def read_text(path: Path) -> str:
    """A small text file. Raises UserError where it is missing, too large or no text."""
    try:
        if path.stat().st_size > LARGEST:
            raise UserError(f"{path} is larger than {LARGEST:,} bytes; it is not ours")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{path} is not a text file") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from None


@functools.cache
def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    return {name: metadata.version(name) for name in ("nodepert", "jax", "jaxlib", "optax", "numpy")} | {
        "python": platform.python_version()
    }


def _ends_in_newline(file: Any) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
