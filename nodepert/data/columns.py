"""`table`: a CSV or Parquet file as a data set, column by column."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np

from nodepert.data import files, formats
from nodepert.data.checks import Arrays, DataError
from nodepert.data.dataset import Dataset, build
from nodepert.data.tables import split
from nodepert.errors import did_you_mean

MOST = 100  # different texts of a column of inputs: each becomes an input


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
        The `Dataset`; `names` are those of its classes.

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
    parts = [(one, read(one)) for one in (located(text, data_dir) for text in filter(None, (path, test_path)))]
    source, frame = parts[0]
    targets = [target] if target in frame else listed(target)
    for place, part in parts:
        needed = [*targets, *listed(drop), *([] if part is frame else frame.columns)]
        if missing := [name for name in needed if name not in part]:
            hint = did_you_mean(missing[0], part.columns)
            raise DataError(f"{place}: no column '{missing[0]}'{hint}; there are: {', '.join(map(str, part.columns))}")
        check_cells(place, part.drop(columns=listed(drop)))
    whole = pd.concat([part for _, part in parts], ignore_index=True)
    kept = [name for name in frame.columns if name not in (*targets, *listed(drop))]
    if not kept:
        raise DataError(f"{source}: no column is left for the inputs")
    y, names = outputs(source, whole, targets, task)
    x = np.hstack([inputs(source, name, whole[name]) for name in kept])
    if test_path:
        arrays = Arrays(x[: len(frame)], y[: len(frame)], x[len(frame) :], y[len(frame) :])
    else:
        arrays = split(x, y, min(max(1, round(test * len(y))), len(y) - 1), seed)
    found = "classes" if names else "values"
    return build("table", arrays, len(names) or y.shape[1], str(source), task=found)._replace(names=names)


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


def read(path: Path) -> Any:
    """The rows of a file. Raises DataError."""
    import pandas as pd

    try:
        if path.suffix == ".parquet":
            frame = pd.read_parquet(path)
        else:
            with formats.opened(path) as file:
                header = file.readline(1 << 20).decode()
            frame = pd.read_csv(path, sep=max(",;\t", key=header.count), skipinitialspace=True)
    except ImportError:
        raise DataError(f'{path}: Parquet needs pyarrow: pip install "nodepert[parquet]"') from None
    except Exception as error:  # of a parser
        raise DataError(f"{path}: not a readable table: {' '.join(str(error).split())}") from error
    if len(frame) < 2:
        raise DataError(f"{path}: {len(frame)} rows are too few")
    return frame.rename(columns=str)


def check_cells(path: Path, frame: Any) -> None:
    """Raises DataError for an empty cell, and for a column that is neither numbers nor texts."""
    missing = frame.isna().to_numpy()
    if missing.any():
        row, column = np.argwhere(missing)[0]
        name = frame.columns[column]
        raise DataError(f"{path}: an empty cell in row {row + 1}, column '{name}' ({missing.sum():,} in all); fill it, "
                        f"leave out the row, or the column: drop='{name}'")  # fmt: skip
    for name in frame:
        kind(path, name, frame[name])


def kind(path: Path, name: str, column: Any) -> str:
    """Whether a column has "numbers", "whole" ones, "flags" or "texts". Raises DataError for anything else."""
    import pandas as pd

    types = pd.api.types
    if types.is_bool_dtype(column):
        return "flags"
    if types.is_integer_dtype(column):
        return "whole"
    if types.is_float_dtype(column):
        return "numbers"
    if not (types.is_string_dtype(column) or isinstance(column.dtype, pd.CategoricalDtype)):
        raise DataError(
            f"{path}: column '{name}' is {column.dtype}, not numbers or texts; convert it, or drop='{name}'"
        )
    odd = np.isnan(np.asarray(pd.to_numeric(column.astype(str), errors="coerce"), np.float64))
    if 0 < odd.sum() < len(odd) / 2:
        row = int(odd.argmax())
        raise DataError(f"{path}: column '{name}' has numbers, but '{column.iloc[row]}' in row {row + 1}")
    return "texts"


def inputs(path: Path, name: str, column: Any) -> np.ndarray:
    """A column as inputs, (N, 1), or (N, texts) of 0 and 1. Raises DataError."""
    if kind(path, name, column) != "texts":
        return column.to_numpy(np.float64)[:, None]
    texts, index = np.unique(column.astype(str).to_numpy(str), return_inverse=True)
    if len(texts) > MOST:
        raise DataError(f"{path}: column '{name}' has {len(texts):,} different texts, each of which would be an input; "
                        f"leave it out: drop='{name}'")  # fmt: skip
    return (index[:, None] == np.arange(len(texts))).astype(np.float64)


def outputs(path: Path, frame: Any, targets: list[str], task: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Class indices, (N,), and the names of the classes; or values, (N, n), and no names. Raises DataError."""
    if not targets:
        raise DataError(f"{path}: target needs the name of a column")
    kinds = {name: kind(path, name, frame[name]) for name in targets}
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
