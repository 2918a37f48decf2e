"""`table`: a CSV or Parquet file as a data set."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from nodepert.data import files, formats
from nodepert.data.checks import Arrays, DataError
from nodepert.data.dataset import Dataset, build
from nodepert.data.schema import Column, check_filled, checked_kind, columns_of, kind, no_column, quoted
from nodepert.data.tables import split

DROP = ": drop='{name}'"
log = logging.getLogger("nodepert")


def table(
    data_dir: str | None = None, *, path: str = "", target: str = "", drop: str = "",
    task: Literal["auto", "classes", "values"] = "auto", test: float = 0.2, test_path: str = "", seed: int = 0,
) -> Dataset:  # fmt: skip
    """A file of your own, CSV (with a header) or Parquet: a row per example, one column or more to predict.

    Numbers are inputs as they are; a column of texts becomes one input of 0 and 1 per text. A target of texts or
    booleans is a class, of fractions a value; one of whole numbers may be either, so `task` must say.

    Args:
        data_dir: Folder in which `path` is looked for after the working folder. Default: NODEPERT_DATA_DIR.
        path: The file, in quotes: path='cars.csv'.
        target: The column to predict; of values also several, separated by commas.
        drop: Columns to leave out, separated by commas.
        task: Whether the target is classes or values; auto: by its type.
        test: Share of the rows that are the test split, drawn at random.
        test_path: A second file for the test split, in place of `test`.
        seed: Seed of the split.

    Returns:
        The `Dataset`; `names` are those of its classes, and `columns` those of the file.

    Raises:
        DataError: The file or a column is missing, a cell is empty, or a column is neither numbers nor texts.

    Examples:
        >>> import nodepert as npt, pandas as pd
        >>> pd.DataFrame({"x": [0.5, 1.0, 2.0, 3.0], "y": ["a", "b", "a", "b"]}).to_csv("few.csv", index=False)
        >>> npt.load_dataset("table(path='few.csv', target=y, test=0.5)").names
        ('a', 'b')
    """
    import pandas as pd

    if not (path and target):
        raise ValueError("give a file and a column of it, as in table(path='cars.csv', target=price)")
    if not 0 < test < 1:
        raise ValueError(f"test is a share of the rows, above 0 and below 1; got {test}")
    source = located(path, data_dir)
    frame = read(source)
    parts = [(source, frame)]
    if test_path:
        place = located(test_path, data_dir)
        parts.append((place, read(place, texts=[name for name in frame if kind(frame[name]) == "texts"])))
    targets = [target] if target in frame else listed(target)
    for place, part in parts:
        needed = [*targets, *listed(drop), *([] if part is frame else frame.columns)]
        if missing := [name for name in needed if name not in part]:
            raise no_column(str(place), missing[0], list(part.columns))
        left = part.drop(columns=listed(drop))
        check_filled(str(place), left, DROP)
        for name in left:
            checked_kind(str(place), name, left[name], DROP)
    whole = pd.concat([part[targets] for _, part in parts], ignore_index=True)
    kept = [name for name in frame.columns if name not in (*targets, *listed(drop))]
    if not kept:
        raise DataError(f"{source}: no column is left for the inputs")
    for name in (name for name in kept if quoted(name) != f"'{name}'"):
        log.warning("%s: %s is an input; to leave it out give drop='%s'", source, quoted(name), name)
    for place, part in parts[1:]:
        check_targets(place, part[targets], frame, task)
    y, names = outputs(source, whole, targets, task)
    columns = columns_of(str(source), frame[kept], DROP)
    x = np.concatenate([columns.encoded(str(place), part[kept]).astype(np.float64) for place, part in parts])
    columns = replace(columns, targets=tuple(Column(name, kind(whole[name])) for name in targets))
    if test_path:
        arrays = Arrays(x[: len(frame)], y[: len(frame)], x[len(frame) :], y[len(frame) :])
    else:
        arrays = split(x, y, min(max(1, round(test * len(y))), len(y) - 1), seed)
    found = "classes" if names else "values"
    data = build("table", arrays, len(names) or y.shape[1], str(source), task=found)
    return data._replace(names=names, columns=columns)


def listed(text: str) -> list[str]:
    """The names in "a, b"."""
    return [name.strip() for name in text.split(",") if name.strip()]


def located(text: str, data_dir: str | None) -> Path:
    """The file, in the working folder or the data folder. Raises DataError."""
    path = Path(text).expanduser()
    folder = files.data_folder(data_dir)
    places = [path, *([folder / path] if folder else [])]
    found = next((place for place in places if place.is_file()), None)
    if not found:
        raise DataError(f"no file {' or '.join(map(str, places))}")
    return found


def read(path: Path, fewest: int = 2, texts: Sequence[str] = ()) -> Any:
    """The rows of a file, those of some columns as texts. Raises DataError."""
    import pandas as pd

    try:
        if path.suffix == ".parquet":
            frame = pd.read_parquet(path)
        else:
            options: Any = {"sep": separator(heading(path)), "skipinitialspace": True}
            frame = pd.read_csv(path, dtype=dict.fromkeys(texts, str), **options)
            gaps = [name for name in frame if frame[name].isna().any()]
            if gaps := [name for name in gaps if name in texts or kind(frame[name].dropna()) == "texts"]:
                as_is = pd.read_csv(path, dtype=str, keep_default_na=False, na_values=[""], **options)
                frame[gaps] = as_is[gaps]  # "NA" and "None" are texts among texts
    except ImportError:
        raise DataError(f'{path}: Parquet needs pyarrow: pip install "nodepert[parquet]"') from None
    except Exception as error:  # of a parser
        raise DataError(f"{path}: not a readable table: {' '.join(str(error).split())}") from error
    if len(frame) < fewest:
        raise DataError(f"{path}: {len(frame)} rows are too few")
    return frame.rename(columns=str)


def heading(path: Path) -> str:
    """The first line of a text file, gzipped or not."""
    with formats.opened(path) as file:
        return file.readline(1 << 20).decode("utf-8-sig")


def separator(line: str) -> str:
    """What separates the cells of a line."""
    return max(",;\t", key=line.count)


def check_targets(path: Path, targets: Any, train: Any, task: str) -> None:
    """Raise DataError where the targets of a test file are no numbers, or labels that the training file has not."""
    for name in targets:
        labels = task == "classes" or kind(train[name]) in ("texts", "flags")
        known = tuple(map(str, np.unique(train[name].to_numpy()))) if labels else ()
        Column(name, texts=known).encoded(str(path), targets[name])


def outputs(path: Path, frame: Any, targets: list[str], task: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Class indices, (N,), and the names of the classes; or values, (N, n), and no names. Raises DataError."""
    if not targets:
        raise DataError(f"{path}: target needs the name of a column")
    kinds = {name: kind(frame[name]) for name in targets}
    first = targets[0]
    if task == "auto" and len(targets) == 1 and kinds[first] == "whole":
        raise DataError(f"{path}: target '{first}' has whole numbers: give task=classes or task=values")
    texts = [name for name in targets if kinds[name] in ("texts", "flags")]
    if task == "classes" or (task == "auto" and len(targets) == 1 and texts):
        if len(targets) > 1:
            raise DataError(f"{path}: classes are one column; got {', '.join(targets)}")
        if kinds[first] == "numbers":
            raise DataError(f"{path}: target '{first}' has fractions, which are no classes")
        names, index = np.unique(frame[first].to_numpy(), return_inverse=True)
        return index, tuple(map(str, names))
    if texts:
        raise DataError(f"{path}: target '{texts[0]}' has {kinds[texts[0]]}, which are no values")
    return frame[targets].to_numpy(np.float64), ()
