"""`load`: a trained network from a run's folder, its id, or the file that `Result.save` wrote."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from nodepert.data import load_dataset
from nodepert.data.dataset import fingerprint
from nodepert.data.signature import signature_of
from nodepert.errors import UserError
from nodepert.studies.labels import labels
from nodepert.studies.result import Result
from nodepert.studies.run import SPECS, from_config
from nodepert.studies.store import checkpoints, network_file
from nodepert.studies.store.records import Damaged, as_path, unsealed
from nodepert.studies.store.run_folder import FORMAT, VERSION, RunFolder, has_result
from nodepert.training.predictor import Predictor, Trained

FACTS = ("versions", "settings", "device", "data", "code")  # of a run's record, kept in a saved file
log = logging.getLogger("nodepert")


def load(
    path: str | Path, *, network: Any = None, out: str | Path = "runs", data_dir: str | Path | None = None
) -> Result:
    """Load a trained network: it predicts without its training data, and nothing is trained again.

    Args:
        path: A file that `Result.save` wrote, a run's folder, or a run's id, looked up in `out`. The folder of a study
            is its run; of runs that differ in their epochs only, the longest one.
        network: The network, in place of the one that the run names: a Flax or Equinox module, a `Model`, or a factory
            (input_shape, classes) -> Model. Needed where its name is not registered in this process.
        out: Folder of all results.
        data_dir: Folder of the data files. Data are needed for a run of version 0.1 only, for its standardising.

    Returns:
        The `Result`; that of an unfinished run has the network of its last checkpoint.

    Raises:
        UserError: If there is no such run or file, or it is corrupt, not of NodePert, or of a later version.

    Examples:
        >>> import nodepert as npt
        >>> result = npt.train(npt.Run(dataset="digits", network="fc(width=10)", epochs=1))
        >>> again = npt.load(result.save("digits.npz"))
        >>> again.rows == result.rows
        True
    """
    place = find(as_path(path), as_path(out))
    if not place.is_dir():
        record, arrays = network_file.read(place)
        _check(place, record)
        return Result(record["config"], record["rows"], record["status"], partial(_of_file, place, record, arrays,
                      network), facts=record.get("facts"))  # fmt: skip
    record = record_of(place)
    folder = RunFolder(place, record)
    source = partial(trained_in, place, network=network, data_dir=data_dir)
    return Result(record["config"], folder.rows(), folder.status, source, place, facts_of(record))


def facts_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """Where a result comes from, by its run's record."""
    return {name: record[name] for name in FACTS if name in record}


def find(path: Path, out: Path) -> Path:
    """The file or the run's folder at a path, or of a run's id. Raises UserError."""
    if path.is_file():
        return path.parent if path.name == "config.json" else path
    if path.is_dir():
        found = [path] if (path / "config.json").is_file() else sorted(p.parent for p in path.glob("*/config.json"))
    else:
        found = sorted(p.parent for p in out.glob(f"*/{path.name}/config.json")) if path.name == str(path) else []
    if found:
        return found[0] if len(found) == 1 else _longest(path, found)
    if path.is_dir():
        studies = sorted({str(p.parents[1]) for p in path.glob("*/*/config.json")})
        raise UserError(f"{path} is a folder of studies; give one of them: {_some(studies)}" if studies else
                        f"there is no run in the folder {path}: it has no config.json")  # fmt: skip
    raise UserError(f"there is no file or run's folder {path}, and no run of this id in {out}; nodepert results NAME "
                    "lists the ids of a study")  # fmt: skip


def _longest(path: Path, found: list[Path]) -> Path:
    """Of runs that differ in their epochs only, the one with the most, of those that have their result. Raises
    UserError, naming the runs, where they differ in more."""
    try:
        records = [record_of(folder) for folder in found]
    except UserError:  # a corrupt one
        records = []
    epochs = [record["config"]["epochs"] for record in records]
    others = [record["config"] | {"epochs": 0} for record in records]
    if not records or len({*epochs}) < len(found) or others != others[:1] * len(found):
        raise UserError(f"{path} is {len(found)} runs; give one of them: {_some(_labelled(found, records))}")
    best = max(range(len(found)), key=lambda i: (has_result(records[i]["status"]), epochs[i]))
    log.warning("%s has this run with %s epochs; that with %d is used, %s", path,
                " and ".join(map(str, sorted(epochs))), epochs[best], found[best])  # fmt: skip
    return found[best]


def _labelled(found: list[Path], records: list[dict[str, Any]]) -> list[str]:
    """Folders of runs, with what tells the runs apart if their names are registered here."""
    try:
        apart = labels([from_config(record["config"]) for record in records], apart=("loss",))
    except UserError:
        apart = []
    return [f"{folder} ({label})" for folder, label in zip(found, apart, strict=False)] or [*map(str, found)]


def _some(texts: list[str]) -> str:
    return ", ".join(texts[:5]) + ", ..." * (len(texts) > 5)


def record_of(folder: Path) -> dict[str, Any]:
    """The record of a run, whose names need not be registered here. Raises UserError."""
    path = folder / "config.json"
    record = unsealed(path, FORMAT, VERSION, unsealed_until=1)
    _check(path, record)
    return record


def _check(path: Path, record: Mapping[str, Any]) -> None:
    """Raise Damaged for a record without a status or a configuration."""
    config = record.get("config")
    if not isinstance(record.get("status"), str) or not isinstance(config, dict) or not {*SPECS, "seed"} <= {*config}:
        raise Damaged(f"{path} has no status or configuration; it is corrupt")


def trained_in(
    folder: Path, predictor: Predictor | None = None, network: Any = None, data_dir: str | Path | None = None
) -> Trained | None:
    """The network in a run's folder, that of its last checkpoint; None where there is none. Raises UserError where
    it is corrupt."""
    if not checkpoints.exist(folder):
        return None
    record = record_of(folder)
    run = RunFolder(folder, record)
    for place, checkpoint, arrays in checkpoints.sound(folder, record.get("data", "")):
        last = run.rows()[-1:] or [{}]
        if has_result(run.status) and checkpoint["epoch"] != last[0].get("epoch", checkpoint["epoch"]):
            break
        if not has_result(run.status):
            log.warning("this run is %s; its network is that after epoch %d", run.status, checkpoint["epoch"])
        found = predictor or _predictor(checkpoint.get("network"), record, network, data_dir, folder)
        return _restored(place, found, arrays[: len(found.names)])
    raise UserError(f"the checkpoint of {folder} is corrupt; delete the folder and train the run again")


def _predictor(
    facts: Any, record: Mapping[str, Any], network: Any, data_dir: str | Path | None, folder: Path
) -> Predictor:
    """The predictor of a checkpoint; of one of version 0.1, which does not say what its inputs are, from the data."""
    if facts:
        return Predictor.from_json(facts, network)
    config = record["config"]
    try:
        data = load_dataset(config["dataset"], data_dir)
    except UserError as error:
        raise UserError(f"{folder} does not say how its inputs are standardised (version 0.1 wrote it), and its data "
                        f"cannot be loaded: {error}") from None  # fmt: skip
    if fingerprint(data) != record.get("data"):
        raise UserError(f"{folder} was trained on other data than {config['dataset']} here; give their --data-dir")
    return Predictor(signature_of(data), config["network"], config["loss"], config["rule"], network)


def _of_file(place: Path, record: Mapping[str, Any], arrays: Mapping[str, Any], network: Any) -> Trained:
    found = Predictor.from_json(record["network"], network)
    return _restored(place, found, [arrays[name] for name in found.names] if {*arrays} == {*found.names} else [])


def _restored(place: Path, predictor: Predictor, arrays: Any) -> Trained:
    try:
        return Trained(predictor, predictor.restored(arrays))
    except UserError as error:
        raise UserError(f"{place}: {error}") from None
