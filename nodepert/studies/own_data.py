"""The data set of a trained run, loaded again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nodepert.data import DataError, Dataset, load_dataset
from nodepert.data.dataset import fingerprint
from nodepert.data.validation import held_out
from nodepert.errors import UserError
from nodepert.registry import names, short
from nodepert.registry.spec import parse

OTHER = "give the data: evaluate(data), or --dataset SPEC"


def own_data(config: Mapping[str, Any], trained_on: str | None, data_dir: str | Path | None = None) -> Dataset:
    """The data set of a run, with its validation split.

    Raises UserError where it is not there, or is not the one whose fingerprint is given.
    """
    spec, name = config["dataset"], parse(config["dataset"]).name
    try:
        data = load_dataset(spec, data_dir)
    except DataError as error:
        raise UserError(
            f"the data of this run: {error}; give their folder (--data-dir, data_dir=), or {OTHER}"
        ) from None
    except UserError:
        if name in names("dataset"):
            raise
        raise UserError(f"this network was trained on the data set {name}, which was an object or a registered name of "
                        f"another process; {OTHER}") from None  # fmt: skip
    if trained_on not in (None, fingerprint(data)):
        raise UserError(f"{short('dataset', spec)} is not the data set that this network was trained on: it has other "
                        f"values here; {OTHER}")  # fmt: skip
    return held_out(data, config.get("validation", 0.0))
