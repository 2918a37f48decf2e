"""Checkpoints of a run: the state of its training after an epoch, and the rows until then; orbax writes the arrays.

`<run>/checkpoints/<epoch>/` has the arrays, `<epoch>.json` the rows, a digest of the arrays and one of the data. The
latter is written last: without it, a folder is what was left of a process that was killed, and is cleared away.
"""

from __future__ import annotations

import hashlib
import logging
import math
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from nodepert.errors import UserError
from nodepert.studies.store.records import sealed, unsealed, write_whole, writing
from nodepert.studies.store.tables import are_rows
from nodepert.training.metrics import Row

FORMAT, VERSION = "nodepert-checkpoint", 1
KEPT = 2  # the last one, and the one before, in case the last one is corrupt
log = logging.getLogger("nodepert")


class Checkpoint(NamedTuple):
    """A state from which a run can resume."""

    epoch: int
    rows: list[Row]  # of epochs 0 to this
    state: Any  # as it was given to `save`, with numpy arrays


def save(run: Path, epoch: int, rows: list[Row], state: Any, data: str, keep: int = KEPT) -> None:
    """Save the state of a run after an epoch, and keep the last few before; `data` is the fingerprint of the data.

    Raises UserError where it cannot be written; then the earlier ones are unchanged.
    """
    import orbax.checkpoint as ocp

    place = (run / "checkpoints" / str(epoch)).absolute()
    arrays = _leaves(state)
    with writing(place):
        _clear(place)
        try:
            with ocp.StandardCheckpointer() as checkpointer:
                checkpointer.save(place, arrays)
        except Exception as error:  # what tensorstore raises for a full disk is a ValueError
            keep_last(run, KEPT)  # nothing of this one stays
            if isinstance(error, OSError):
                raise
            raise OSError(None, f"{type(error).__name__}: {' '.join(str(error).split())[:200]}") from None
        record = {"format": FORMAT, "version": VERSION, "epoch": epoch, "data": data, "digest": _digest(arrays)}
        write_whole(place.with_name(f"{epoch}.json"), sealed(record | {"rows": rows}))
    keep_last(run, keep, until=epoch)  # later ones were rejected on resume


def keep_last(run: Path, keep: int = 1, until: float = math.inf) -> None:
    """Delete all but the last few checkpoints `until` an epoch, and files of no checkpoint. Raises UserError."""
    folder = run / "checkpoints"
    with writing(folder):
        found = sorted(_complete(folder), reverse=True)
        kept = [epoch for epoch in found if epoch <= until][:keep]
        for old in set(found) - set(kept):  # its mark first: from then on it does not count
            (folder / f"{old}.json").unlink()
        ours = {str(epoch) for epoch in _complete(folder)}
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.name.removesuffix(".json") not in ours:
                _clear(path)
        with suppress(OSError):
            folder.rmdir()  # only if empty


def latest(run: Path, like: Any, data: str) -> Checkpoint | None:
    """The last sound checkpoint of a run on these data, if it has one. `like`: a state of the same structure, its
    arrays or their shapes. Corrupt ones are passed over, with a warning."""
    for place, rows, record in _records(run, data):
        try:
            return Checkpoint(record["epoch"], rows, _read(place, record["digest"], like))
        except UserError as error:
            log.warning("%s is corrupt (%s); resuming from an earlier one", place, error)
    return None


def last_rows(run: Path, data: str) -> list[Row]:
    """The rows of the last sound checkpoint; none without one."""
    return next((rows for _, rows, _ in _records(run, data)), [])


def _records(run: Path, data: str) -> Iterator[tuple[Path, list[Row], dict[str, Any]]]:
    """(place, rows, record) of each checkpoint with a sound record, the last one first."""
    for epoch in sorted(_complete(run / "checkpoints"), reverse=True):
        place = (run / "checkpoints" / str(epoch)).absolute()
        try:
            record = unsealed(place.with_name(f"{epoch}.json"), FORMAT, VERSION)
            rows = record.get("rows") or []
            if not are_rows(rows) or len(rows) != epoch + 1:
                raise UserError(f"{place}.json does not have the rows of epochs 0 to {epoch}")
            if record.get("data") != data:
                raise UserError(f"{place} is of other data")
        except UserError as error:
            log.warning("%s; resuming from an earlier one", error)
            continue
        yield place, rows, record | {"epoch": epoch}


def _read(place: Path, digest: str, like: Any) -> Any:
    import orbax.checkpoint as ocp

    try:
        with ocp.StandardCheckpointer() as checkpointer:
            found = checkpointer.restore(place, _shapes(like))
        arrays = {name: np.asarray(array) for name, array in found.items()}
    except Exception as error:  # whatever orbax and tensorstore raise for a corrupt file
        raise UserError(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}") from None
    if _digest(arrays) != digest:
        raise UserError("its arrays do not match their digest")
    return jax.tree.unflatten(jax.tree.structure(like), [arrays[k] for k in sorted(arrays)])


def _leaves(state: Any) -> dict[str, np.ndarray]:
    """The arrays of a pytree, by their place in it."""
    return {f"{i:06}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(jax.device_get(state)))}


def _shapes(like: Any) -> dict[str, Any]:
    return {f"{i:06}": jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for i, leaf in enumerate(jax.tree.leaves(like))}


def _digest(arrays: dict[str, np.ndarray]) -> str:
    """SHA-256 of names, types, shapes and bytes."""
    found = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        found.update(f"{name} {array.dtype} {array.shape}\n".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def exist(run: Path) -> bool:
    """Whether a run has checkpoints, sound or not."""
    return any(True for _ in _complete(run / "checkpoints"))


def _complete(folder: Path) -> Iterator[int]:
    """The epochs of the checkpoints that were written to the end."""
    if folder.is_dir():
        for path in folder.glob("*.json"):
            if path.stem.isdigit() and (folder / path.stem).is_dir():
                yield int(path.stem)


def _clear(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
