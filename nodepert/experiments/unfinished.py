"""The part of an experiment that has been started and not completed: the loops in it, in `.<name>.part.npz`."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from nodepert.errors import UserError
from nodepert.studies.store import archive

FORMAT, VERSION = "nodepert-part", 1
ARRAY = "array of this file"
log = logging.getLogger("nodepert")


class Saved(NamedTuple):
    """A loop after some of its steps."""

    unit: str  # what it counts
    of: int
    done: int
    complete: bool
    found: list[Any]  # by its steps: plain values and arrays, in lists and dictionaries
    leaves: list[np.ndarray] | None = None  # of the state after the last step


def write(path: Path, part: Mapping[str, Any], seconds: float, loops: Sequence[Saved]) -> None:
    """Write the loops of a part, that took so long. `part`: what it belongs to. Raises UserError."""
    arrays: dict[str, np.ndarray] = {}

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(v) for key, v in value.items()}
        if isinstance(value, list | tuple):
            return [plain(v) for v in value]
        if isinstance(value, np.ndarray | jax.Array):
            name = f"{len(arrays):06}"
            arrays[name] = np.asarray(value)
            return {ARRAY: name}
        return value.item() if isinstance(value, np.generic) else value

    record = {"part": part, "seconds": seconds, "loops": [plain(loop._asdict()) for loop in loops]}
    archive.write(path, FORMAT, VERSION, record, arrays)


def read(path: Path, part: Mapping[str, Any]) -> tuple[float, list[Saved]]:
    """Seconds and loops of a part. None of them, with a warning, of a file that is corrupt or of something else."""
    if not path.exists():
        return 0.0, []
    try:
        record, arrays = archive.read(path, FORMAT, VERSION, "an unfinished part that NodePert saved")
        if record["part"] != json.loads(json.dumps(part)):
            raise UserError(f"{path} is of another part or of other options")
    except UserError as error:
        log.warning("%s; it is not used, and this part starts again", error)
        return 0.0, []

    def whole(value: Any) -> Any:
        if isinstance(value, list):
            return [whole(v) for v in value]
        if isinstance(value, dict):
            return arrays[value[ARRAY]] if ARRAY in value else {key: whole(v) for key, v in value.items()}
        return value

    return record["seconds"], [Saved(**whole(loop)) for loop in record["loops"]]
