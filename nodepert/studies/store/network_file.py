"""A trained network in one .npz: an entry `record`, which is JSON, and an array for each parameter.

numpy alone reads it: `np.load(path)["params/fc0/w"]`, `json.loads(np.load(path)["record"].tobytes())`. There are no
pickles and no compression, so that reading runs no code and takes no more memory than the file.
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
from nodepert.studies.store.tables import are_rows

FORMAT, VERSION = "nodepert-network", 1
RECORD, PARAMS = "record", "params/"


def write(path: Path, record: Mapping[str, Any], params: Mapping[str, np.ndarray]) -> None:
    """Write a network atomically. Raises UserError."""
    params = {f"{PARAMS}{name}": array for name, array in params.items()}
    text = sealed({"format": FORMAT, "version": VERSION, **record, **arrays.facts(params)})
    buffer = io.BytesIO()
    arrays.write(buffer, {RECORD: np.frombuffer(text.encode(), np.uint8), **params})
    write_whole(path, buffer.getvalue())


def read(path: Path) -> tuple[dict[str, Any], arrays.Arrays]:
    """(record, {name: parameter}). Raises UserError where there is no such file, Foreign for another kind of file or
    a later version, Damaged for a corrupt one."""
    try:
        if not _is_ours(path):
            raise Foreign(f"{path} is not a network that NodePert saved, or it is truncated")
        with np.load(path, allow_pickle=False) as found:
            record = unsealed_text(found[RECORD].tobytes().decode(), path, FORMAT, VERSION)
            params = arrays.read(found, record["dtypes"])
        if arrays.digest(params) != record["digest"]:
            raise Damaged(f"{path} is corrupt: its arrays do not match their digest")
        if not are_rows(record["rows"]):
            raise Damaged(f"{path} is corrupt: it has no rows")
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"cannot read {path}: {reason(error)}") from None
    except Exception as error:  # whatever is raised for a corrupt file
        raise Damaged(f"{path} is corrupt ({type(error).__name__}: {' '.join(str(error).split())[:200]})") from None
    return record, {name.removeprefix(PARAMS): array for name, array in params.items()}


def _is_ours(path: Path) -> bool:
    """Whether a file is an archive with a record, and nothing in it is compressed."""
    with open(path, "rb") as file:
        if not zipfile.is_zipfile(file):
            return False
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    return f"{RECORD}.npy" in {m.filename for m in members} and all(m.compress_type == 0 for m in members)
