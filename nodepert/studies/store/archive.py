"""A record and arrays in one .npz: the entry `record` is JSON.

There are no pickles and no compression, so that reading runs no code and takes no more memory than the file.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nodepert.errors import UserError, reason
from nodepert.studies.store import arrays
from nodepert.studies.store.records import Damaged, Foreign, sealed, unsealed_text, write_whole

RECORD = "record"


def write(path: Path, form: str, version: int, record: Mapping[str, Any], named: Mapping[str, np.ndarray]) -> None:
    """Write a record and named arrays atomically. Raises UserError."""
    text = sealed({"format": form, "version": version, **record, **arrays.facts(named)})
    buffer = io.BytesIO()
    arrays.write(buffer, {RECORD: np.frombuffer(text.encode(), np.uint8), **named})
    write_whole(path, buffer.getvalue())


def read(path: Path, form: str, version: int, what: str) -> tuple[dict[str, Any], arrays.Arrays]:
    """(record, arrays). `what` a file of this form is, for messages. Raises UserError where there is no such file,
    Foreign for another kind of file or a later version, Damaged for a corrupt one."""
    try:
        if not _is_ours(path):
            raise Foreign(f"{path} is not {what}, or it is truncated")
        with np.load(path, allow_pickle=False) as found:
            record = unsealed_text(found[RECORD].tobytes().decode(), path, form, version)
            named = arrays.read(found, record["dtypes"])
        if arrays.digest(named) != record["digest"]:
            raise Damaged(f"{path} is corrupt: its arrays do not match their digest")
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"cannot read {path}: {reason(error)}") from None
    except Exception as error:  # whatever is raised for a corrupt file
        raise Damaged(f"{path} is corrupt ({type(error).__name__}: {' '.join(str(error).split())[:200]})") from None
    return record, named


def _is_ours(path: Path) -> bool:
    """Whether a file is an archive with a record, and nothing in it is compressed."""
    with open(path, "rb") as file:
        if not zipfile.is_zipfile(file):
            return False
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    return f"{RECORD}.npy" in {m.filename for m in members} and all(m.compress_type == 0 for m in members)
