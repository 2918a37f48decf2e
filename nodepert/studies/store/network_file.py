"""A trained network in one .npz: an entry `record`, which is JSON, and an array for each parameter.

numpy alone reads it: `np.load(path)["params/fc0/w"]`, `json.loads(np.load(path)["record"].tobytes())`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nodepert.studies.store import archive
from nodepert.studies.store.arrays import Arrays
from nodepert.studies.store.records import Damaged
from nodepert.studies.store.tables import are_rows

FORMAT, VERSION = "nodepert-network", 1
PARAMS = "params/"


def write(path: Path, record: Mapping[str, Any], params: Mapping[str, np.ndarray]) -> None:
    """Write a network atomically. Raises UserError."""
    archive.write(path, FORMAT, VERSION, record, {f"{PARAMS}{name}": array for name, array in params.items()})


def read(path: Path) -> tuple[dict[str, Any], Arrays]:
    """(record, {name: parameter}). Raises UserError where there is no such file, Foreign for another kind of file or
    a later version, Damaged for a corrupt one."""
    record, params = archive.read(path, FORMAT, VERSION, "a network that NodePert saved")
    if not are_rows(record.get("rows")):
        raise Damaged(f"{path} is corrupt: it has no rows")
    return record, {name.removeprefix(PARAMS): array for name, array in params.items()}
