"""A record and arrays in one .npz: the entry `record` is JSON. Without pickles, so that reading runs no code."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nodepert.errors import UserError, reason
from nodepert.studies.store import arrays
from nodepert.studies.store.records import Damaged, sealed, unsealed_text, write_whole

RECORD = "record"


def write(path: Path, form: str, version: int, record: Mapping[str, Any], named: Mapping[str, np.ndarray]) -> None:
    """Write a record and named arrays atomically. Raises UserError."""
    text = sealed({"format": form, "version": version, **record, **arrays.facts(named)})
    buffer = io.BytesIO()
    arrays.write(buffer, {RECORD: np.frombuffer(text.encode(), np.uint8), **named})
    write_whole(path, buffer.getvalue())


def read(path: Path, form: str, version: int) -> tuple[dict[str, Any], arrays.Arrays]:
    """(record, arrays). Raises UserError where the file cannot be read, Foreign for another kind of file or a later
    version, Damaged for a corrupt one."""
    try:
        with np.load(path, allow_pickle=False) as found:
            record = unsealed_text(found[RECORD].tobytes().decode(), path, form, version)
            named = arrays.read(found, record["dtypes"])
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"cannot read {path}: {reason(error)}") from None
    except Exception as error:  # whatever is raised for a corrupt file
        raise Damaged(f"{path} is corrupt ({type(error).__name__}: {' '.join(str(error).split())[:200]})") from None
    if arrays.digest(named) != record["digest"]:
        raise Damaged(f"{path} is corrupt: its arrays do not match their digest")
    return record, named
