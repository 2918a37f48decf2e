"""What an experiment has left, read back: its record (`<name>.json`) and its rows (`<name>.csv`)."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

from nodepert.errors import UserError
from nodepert.studies.store.records import read_text

FORMAT, VERSION = "nodepert-experiment", 1


def read_record(path: Path) -> dict[str, Any]:
    """The record of an experiment. Raises UserError where it is none."""
    try:
        record = json.loads(read_text(path))
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict) or (record.get("format"), record.get("version")) != (FORMAT, VERSION):
        raise UserError(f"{path} is not the record of an experiment that this NodePert reads; move it away")
    return record


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of an experiment's table: whole numbers, numbers and words. Raises UserError where it is no table."""
    try:
        rows = list(csv.DictReader(io.StringIO(read_text(path))))
    except csv.Error as error:
        raise UserError(f"{path} is not a table ({error}); move it away") from None
    if any(None in row or None in row.values() for row in rows):
        raise UserError(f"{path} is damaged: a row has more or fewer columns than the first line; move it away")
    return [{name: _value(text) for name, text in row.items()} for row in rows]


def _value(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
