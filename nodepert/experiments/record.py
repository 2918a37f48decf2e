"""What an experiment has saved: its record (`<name>.json`, sealed) and its rows (`<name>.csv`)."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from nodepert.errors import UserError
from nodepert.studies.store.records import read_text, sealed, unsealed, write_whole

FORMAT, VERSION = "nodepert-experiment", 2  # version 1 had no seal


def read_record(path: Path) -> dict[str, Any]:
    """The record of an experiment, of any version. Raises UserError for a corrupt one, and for other files."""
    return unsealed(path, FORMAT, VERSION, unsealed_until=1)


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write a record of this version. Raises UserError."""
    write_whole(path, sealed({"format": FORMAT} | record | {"version": VERSION}))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of an experiment's table: int, float and str. Raises UserError for a file that is not a table."""
    try:
        rows = list(csv.DictReader(io.StringIO(read_text(path))))
    except csv.Error as error:
        raise UserError(f"{path} is not a table ({error}); move it away") from None
    if any(None in row or None in row.values() for row in rows):
        raise UserError(f"{path} is corrupt: a row has more or fewer columns than the first line; move it away")
    return [{name: _value(text) for name, text in row.items()} for row in rows]


def _value(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
