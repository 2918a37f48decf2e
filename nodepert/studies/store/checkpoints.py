"""Checkpoints of a run: the state of its training after an epoch, and the rows until then.

`<run>/checkpoints/<epoch>/arrays.npz` has the arrays, `<epoch>.json` the rows, a digest of the arrays and one of the
data. The latter is written last: without it, a folder is what was left of a process that was killed, and is cleared
away. Nothing here depends on the process or on JAX's configuration: several threads may save at once.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from nodepert.errors import UserError
from nodepert.studies.store import arrays
from nodepert.studies.store.records import make_folder, sealed, settle, unsealed, write_whole, writing
from nodepert.studies.store.tables import are_rows
from nodepert.training.metrics import Row

FORMAT, VERSION = "nodepert-checkpoint", 2  # the arrays of version 1 were written by orbax
ARRAYS = "arrays.npz"
KEPT = 2  # the last one, and the one before, in case the last one is corrupt
log = logging.getLogger("nodepert")


class Checkpoint(NamedTuple):
    """A state from which a run can resume."""

    epoch: int
    rows: list[Row]  # of epochs 0 to this
    state: Any  # as it was given to `save`, with numpy arrays
    best: Any = None  # of a run with a validation split: the parameters of its best epoch, saved before the state


def save(
    run: Path, epoch: int, rows: list[Row], state: Any, data: str, keep: int = KEPT,
    network: dict[str, Any] | None = None,
) -> None:  # fmt: skip
    """Save the state of a run after an epoch, and keep the last few before; `data` is the fingerprint of the data, and
    `network` what its network needs to predict.

    Raises UserError where it cannot be written; then the earlier ones are unchanged.
    """
    place = run / "checkpoints" / str(epoch)
    leaves = _leaves(state)
    mark = place.with_name(f"{epoch}.json")
    with writing(place):
        mark.unlink(missing_ok=True)  # an earlier checkpoint of this epoch does not count while it is replaced
        _clear(place)
        try:
            make_folder(place)
            with open(place / ARRAYS, "xb") as file:
                arrays.write(file, leaves)
                file.flush()
                os.fsync(file.fileno())
            settle(place)
        except OSError:
            keep_last(run, KEPT)  # nothing of this one stays
            raise
        record = {"format": FORMAT, "version": VERSION, "epoch": epoch, "data": data, "network": network}
        write_whole(mark, sealed(record | arrays.facts(leaves) | {"rows": rows}))
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


def latest(run: Path, like: Any, data: str, best: Any = None) -> Checkpoint | None:
    """The last sound checkpoint of a run on these data, if it has one. Corrupt ones, and those of another structure,
    are passed over with a warning. `like`: a state of the same structure, its arrays or their shapes; `best`: so the
    parameters that were saved before it, None where there are none.

    Raises UserError for a sound one whose arrays have other dtypes, as those of another configuration of JAX.
    """
    leaves, structure = jax.tree.flatten((best, like))
    for place, record, found in sound(run, data):
        if [leaf.shape for leaf in leaves] != [array.shape for array in found]:
            log.warning("%s has the state of another version of this rule or network; it is not used", place)
            continue
        if other := [(a.dtype, b.dtype) for a, b in zip(found, leaves, strict=True) if a.dtype != b.dtype]:
            raise UserError(f"{place} was saved with {other[0][0]} where this run now has {other[0][1]}: set JAX's "
                            "configuration (jax_enable_x64) as it was, or give another --name")  # fmt: skip
        best, state = jax.tree.unflatten(structure, found)
        return Checkpoint(record["epoch"], record["rows"], state, best)
    return None


def sound(run: Path, data: str) -> Iterator[tuple[Path, dict[str, Any], list[np.ndarray]]]:
    """(place, record, arrays) of each sound checkpoint of a run on these data, the last one first; corrupt ones are
    passed over with a warning."""
    for place, record in _records(run, data):
        try:
            yield place, record, _read(place, record)
        except UserError as error:
            log.warning("%s is corrupt (%s); an earlier one is used", place, error)


def last_rows(run: Path, data: str) -> list[Row]:
    """The rows of the last sound checkpoint; none without one."""
    return next((record["rows"] for _, record in _records(run, data)), [])


def _records(run: Path, data: str) -> Iterator[tuple[Path, dict[str, Any]]]:
    """(place, record) of each checkpoint with a sound record, the last one first."""
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
            log.warning("%s; an earlier one is used", error)
            continue
        yield place, record | {"epoch": epoch, "rows": rows}


def _read(place: Path, record: dict[str, Any]) -> list[np.ndarray]:
    """The arrays of a checkpoint as they were saved. Raises UserError where they are corrupt."""
    try:
        found = _of_orbax(place) if record["version"] == 1 else _of_numpy(place, record["dtypes"])
    except Exception as error:  # whatever is raised for a corrupt file
        raise UserError(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}") from None
    if arrays.digest(found) != record["digest"]:
        raise UserError("its arrays do not match their digest")
    return [found[name] for name in sorted(found)]


def _of_numpy(place: Path, dtypes: dict[str, str]) -> arrays.Arrays:
    with np.load(place / ARRAYS, allow_pickle=False) as found:
        return arrays.read(found, dtypes)


def _of_orbax(place: Path) -> dict[str, np.ndarray]:
    """The arrays in the database of tensorstore that orbax wrote, read one by one."""
    import tensorstore as ts

    store = {"driver": "ocdbt", "base": {"driver": "file", "path": f"{place.absolute()}/"}}
    names = {key.decode().partition("/")[0] for key in ts.KvStore.open(store).result().list().result()}

    def array(name: str) -> np.ndarray:
        return ts.open({"driver": "zarr", "kvstore": store | {"path": f"{name}/"}}).result().read().result()

    return {name: array(name) for name in sorted(names)}


def _leaves(state: Any) -> dict[str, np.ndarray]:
    """The arrays of a pytree, by their place in it."""
    return {f"{i:06}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(jax.device_get(state)))}


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
