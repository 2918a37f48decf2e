"""The columns of a table: how they become inputs, and how those of another table are matched with them by name."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from nodepert.data.checks import DataError
from nodepert.errors import did_you_mean

MOST = 100  # different texts of a column of inputs: each becomes an input
SHOWN = 10  # of the names in a message
KINDS = ("numbers", "whole", "flags", "texts")
log = logging.getLogger("nodepert")


@dataclass(frozen=True)
class Column:
    """A column; one of texts is as many inputs, 0 or 1, as it has different texts."""

    name: str
    kind: str = "numbers"
    texts: tuple[str, ...] = ()  # of inputs

    @property
    def size(self) -> int:
        """How many inputs it is."""
        return len(self.texts) or 1

    def encoded(self, source: str, values: Any) -> np.ndarray:
        """Cells as inputs, (N, 1) or (N, texts). Raises DataError for what the training data did not have."""
        import pandas as pd

        if self.texts:
            index = self.index(source, values.astype(str).to_numpy(str))
            return (index[:, None] == np.arange(len(self.texts))).astype(np.float64)
        numbers = values
        if kind(values) not in KINDS[:3]:
            texts = values.astype(str).replace({"True": "1", "False": "0"} if self.kind == "flags" else {})
            numbers = pd.to_numeric(texts, errors="coerce")
        odd = np.isnan(numbers := np.asarray(numbers, np.float64))
        self._refuse(source, values, odd, "is not True or False" if self.kind == "flags" else "is not a number")
        return numbers[:, None]

    def index(self, source: str, values: np.ndarray) -> np.ndarray:
        """Which of its texts the values, (N,), are. Raises DataError for another one."""
        import pandas as pd

        index = pd.Index(self.texts).get_indexer(values)
        self._refuse(source, values, index < 0, f"is not in the training data, which have: {shown(self.texts)}")
        return index

    def _refuse(self, source: str, values: Any, odd: np.ndarray, what: str) -> None:
        if odd.any():
            row = int(odd.argmax())
            raise DataError(f"{source}: row {row + 1}, column '{self.name}': '{np.asarray(values)[row]}' {what}")

    def decoded(self, x: np.ndarray) -> np.ndarray:
        """The cells whose inputs are x, (N, 1) or (N, texts)."""
        if self.texts:
            return np.array(self.texts)[x.argmax(1)]
        return x[:, 0].astype({"whole": np.int64, "flags": np.bool_}.get(self.kind, np.float64))


@dataclass(frozen=True)
class Columns:
    """The columns of a table that are inputs, and those that are targets."""

    inputs: tuple[Column, ...]
    targets: tuple[Column, ...] = ()

    @property
    def size(self) -> int:
        """How many inputs they are."""
        return sum(column.size for column in self.inputs)

    def match(self, source: str, names: Sequence[str]) -> None:
        """Raise DataError where an input is missing among these names, and remark on further ones."""
        if missing := [c.name for c in self.inputs if c.name not in names]:
            raise no_column(source, missing[0], names)
        if further := [name for name in names if name not in {c.name for c in self.inputs}]:
            log.warning("%s: left out %s, which the network does not take", source, shown([*map(quoted, further)]))

    def encoded(self, source: str, frame: Any) -> np.ndarray:
        """The inputs, (N, n), of a table that has these columns in any order, and others, which are left out. Raises
        DataError for a column that is missing, and for a cell that is empty or that training did not have."""
        frame = frame.rename(columns=str)
        self.match(source, list(frame.columns))
        return self._encoded(source, frame)

    def _encoded(self, source: str, frame: Any) -> np.ndarray:
        frame = frame[[c.name for c in self.inputs]]
        check_filled(source, frame)
        numbers = all(isinstance(dtype, np.dtype) and dtype.kind in "iuf" for dtype in frame.dtypes)
        if numbers and not any(column.texts for column in self.inputs):
            return frame.to_numpy()  # of the common dtype, as arrays are given
        return np.hstack([column.encoded(source, frame[column.name]) for column in self.inputs])

    def converted(self, source: str, given: Columns, splits: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Inputs that the columns `given` have made of a table, as these columns make them. Raises as `encoded`."""
        import pandas as pd

        if given.inputs == self.inputs:
            return dict(splits)
        self.match(source, [c.name for c in given.inputs])
        ends = np.cumsum([0, *(column.size for column in given.inputs)])
        found = {}
        for split, x in splits.items():
            cells = {c.name: c.decoded(x[:, a:b]) for c, (a, b) in zip(given.inputs, pairwise(ends), strict=True)}
            found[split] = self._encoded(f"{source}, {split} split", pd.DataFrame(cells)).astype(x.dtype)
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def from_json(record: Mapping[str, Any]) -> Columns:
    """The columns that `to_json` gave. Raises KeyError, TypeError or ValueError for anything else."""
    parts = [
        tuple(Column(str(c["name"]), str(c["kind"]), tuple(map(str, c["texts"]))) for c in record[part])
        for part in ("inputs", "targets")
    ]
    if wrong := [column.kind for part in parts for column in part if column.kind not in KINDS]:
        raise ValueError(f"no kind of column {wrong[0]!r}")
    return Columns(*parts)


def columns_of(source: str, frame: Any, hint: str = "") -> Columns:
    """The columns of a table of inputs. Raises DataError for an empty cell, and for a column that is neither numbers
    nor texts, or has too many different texts; `hint`: how to leave out the column {name}."""
    check_filled(source, frame, hint)
    return Columns(tuple(_column(source, name, frame[name], hint.format(name=name)) for name in frame))


def _column(source: str, name: str, values: Any, hint: str) -> Column:
    found = checked_kind(source, name, values, hint)
    texts = np.unique(values.astype(str).to_numpy(str)) if found == "texts" else ()
    if len(texts) > MOST:
        raise DataError(f"{source}: column '{name}' has {len(texts):,} different texts, each of which would be an input"
                        f"; leave it out{hint}")  # fmt: skip
    return Column(name, found, tuple(map(str, texts)))


def frame_of(x: Any) -> Any:
    """A DataFrame, as one of pandas; None for anything else. Raises DataError where a name of a column occurs twice."""
    pandas = sys.modules.get("pandas")  # slow to import
    frame = x.to_pandas() if hasattr(x, "to_pandas") and hasattr(x, "columns") else x
    if not pandas or not isinstance(frame, pandas.DataFrame) or frame.columns.nlevels > 1:
        return None
    frame = frame.rename(columns=str)
    if len(twice := frame.columns[frame.columns.duplicated()]):
        raise DataError(f"column '{twice[0]}' occurs twice in the DataFrame; rename one, or leave it out")
    return frame


def kind(column: Any) -> str:
    """Whether a column has "numbers", "whole" ones, "flags" or "texts"; "" for anything else."""
    import pandas as pd

    types = pd.api.types
    if types.is_bool_dtype(column):
        return "flags"
    if types.is_integer_dtype(column):
        return "whole"
    if types.is_float_dtype(column):
        return "numbers"
    return "texts" if types.is_string_dtype(column) or isinstance(column.dtype, pd.CategoricalDtype) else ""


def checked_kind(source: str, name: str, column: Any, hint: str = "") -> str:
    """The kind of a column. Raises DataError for one that has none, and for a text among numbers."""
    import pandas as pd

    found = kind(column)
    if found == "texts" or column.dtype == object:
        odd = np.isnan(np.asarray(pd.to_numeric(column.astype(str), errors="coerce"), np.float64))
        if 0 < odd.sum() < len(odd) / 2:
            row = int(odd.argmax())
            raise DataError(f"{source}: column '{name}' has numbers, but '{column.iloc[row]}' in row {row + 1}")
    if not found:
        raise DataError(f"{source}: column '{name}' is {column.dtype}, not numbers or texts; convert it, or leave it "
                        f"out{hint}")  # fmt: skip
    return found


def check_filled(source: str, frame: Any, hint: str = "") -> None:
    """Raises DataError for an empty cell; `hint`: how to leave out the column {name}."""
    missing = frame.isna().to_numpy()
    if missing.any():
        row, column = np.argwhere(missing)[0]
        name = frame.columns[column]
        more = f", or the column{hint.format(name=name)}" if hint else ""
        raise DataError(f"{source}: an empty cell in row {row + 1}, column '{name}' ({missing.sum():,} in all); fill "
                        f"it, or leave out the row{more}")  # fmt: skip


def check_aligned(source: str, x: Any, y: Any) -> None:
    """Raise DataError for inputs and targets of pandas whose rows have other labels, or these in another order."""
    pandas = sys.modules.get("pandas")  # slow to import
    if not pandas or not all(isinstance(one, pandas.DataFrame | pandas.Series) for one in (x, y)):
        return
    if len(x) == len(y) and not x.index.equals(y.index):
        row = next((i for i, (a, b) in enumerate(zip(x.index, y.index, strict=True)) if a != b), 0)
        one, other = (of.index.tolist()[row] for of in (x, y))
        raise DataError(f"{source}: row {row + 1} has the index {one!r} in x and {other!r} in y; give "
                        "y.loc[x.index], or y.to_numpy() where the rows are in the same order")  # fmt: skip


def no_column(source: str, name: str, names: Sequence[str]) -> DataError:
    """The error for a column that is not there."""
    data = any(_is_number(one) for one in names) and [*names] != [*map(str, range(len(names)))]
    heading = "; the first row looks like data: add a heading" * data
    there = shown([*names])
    return DataError(f"{source}: no column '{name}'{did_you_mean(name, names)}; there are: {there}{heading}")


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


def quoted(name: str) -> str:
    """The name of a column in a message; pandas names one without a heading by its position."""
    return "a column without a name (an index?)" if name.startswith("Unnamed: ") else f"'{name}'"


def shown(texts: Sequence[str]) -> str:
    """A list in a message, shortened."""
    return ", ".join(texts[:SHOWN]) + f", ... ({len(texts) - SHOWN:,} more)" * (len(texts) > SHOWN)
