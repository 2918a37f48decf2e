"""Tables of rows as CSV: written in full precision, read back, appended to by several processes."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nodepert.errors import UserError
from nodepert.studies.store import lock
from nodepert.studies.store.records import check_target, write_whole, writing
from nodepert.training.metrics import Row

if TYPE_CHECKING:
    from pandas import DataFrame


def to_csv(rows: Sequence[Row], header: bool = True) -> str:
    """Rows as CSV text; floats in full precision, an empty cell where a row lacks a column."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def from_csv(text: str) -> list[Row]:
    """The rows of a run's table, of epochs 0, 1, ..., with whatever metrics they have. Raises ValueError otherwise."""
    try:
        cells = list(csv.DictReader(io.StringIO(text)))
    except csv.Error as error:
        raise ValueError(f"not a table: {error}") from None
    if any(None in row or None in row.values() for row in cells):
        raise ValueError("a row has more or fewer cells than the header")
    rows = [{k: int(v) if k == "epoch" else float(v) for k, v in row.items() if v != ""} for row in cells]
    if not are_rows(rows):
        raise ValueError("not the rows of epochs 0, 1, ...")
    return rows


def are_rows(rows: Any) -> bool:
    """Whether these are rows of a run: numbers by name, of epochs 0, 1, ... and with both losses."""

    def is_row(row: Any) -> bool:
        named = isinstance(row, dict) and {"epoch", "train_loss", "test_loss"} <= row.keys()
        return named and all(type(v) in (int, float) for v in row.values())

    return isinstance(rows, list) and all(map(is_row, rows)) and [r["epoch"] for r in rows] == list(range(len(rows)))


def append_rows(path: Path, rows: Sequence[Row]) -> None:
    """Append whole rows to a table that other processes append to as well; the first writes the header.

    Raises:
        UserError: Where the table cannot be written or has other columns.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with lock.waited_for(path.with_name(f".{path.name}.owner")), open(path, "a+b") as file:
            file.seek(0)
            first = file.readline().decode(errors="replace")
            header = ",".join(rows[0]) + "\n"
            if first and first != header:
                raise UserError(f"{path} has other columns than these rows; move it away, or choose another name")
            torn = first and not _ends_in_newline(file)  # a writer was killed in the middle of a row
            file.write((b"\n" if torn else b"") + to_csv(rows, header=not first).encode())
            file.flush()
            os.fsync(file.fileno())


def _ends_in_newline(file: Any) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def write_table(frame: DataFrame, path: Path) -> None:
    """Write a table, as CSV (floats in full precision) or Parquet. Raises UserError for any other suffix."""
    check_table(path)
    if path.suffix == ".csv":
        content = frame.to_csv(index=False, lineterminator="\n").encode()
    else:
        buffer = io.BytesIO()
        frame.to_parquet(buffer, index=False, engine="pyarrow")
        content = buffer.getvalue()
    write_whole(path, content)


def check_table(path: Path) -> None:
    """Raises UserError where a table cannot be written under this name."""
    check_target(path, ".csv", ".parquet", heads=("study,id,",) * (path.suffix == ".csv"))
    if path.suffix == ".parquet":
        try:
            import pyarrow  # noqa: F401  # pyright: ignore[reportMissingImports]
        except ImportError:
            raise UserError('Parquet needs pyarrow: pip install "nodepert[parquet]"; or write a .csv') from None
