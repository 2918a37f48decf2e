"""The checks of a data set's arrays, and the errors of data."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from nodepert.data import targets
from nodepert.errors import UserError

MOST = 1 << 24  # tokens that float32 tells apart


class DataError(UserError):
    """Data are missing, corrupt or invalid. The message, one line, says which and what to do."""


class DataNotFound(DataError):
    """A data set is not on this machine and cannot be downloaded."""


class Arrays(NamedTuple):
    """The two splits as read: images, uint8 (N, H, W, C), and labels, integers (N,), or other targets."""

    train_x: np.ndarray
    train_y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray


def check_arrays(arrays: Arrays, classes: int, source: str, task: str) -> None:
    """Raises DataError if a split is not valid, or the splits have different inputs."""
    for name, array in arrays._asdict().items():
        if not isinstance(array, np.ndarray):
            raise DataError(f"{source}: {name} must be an array; got {type(array).__name__}")
    check_split("train", arrays.train_x, arrays.train_y, classes, source, task)
    check_split("test", arrays.test_x, arrays.test_y, classes, source, task)
    y, other = arrays.train_y, arrays.test_y
    if (y.dtype.kind == "f") != (other.dtype.kind == "f"):
        raise DataError(f"{source}: training targets are {y.dtype} but test targets {other.dtype}")
    if task in targets.IN_TIME and y.shape[1] != other.shape[1]:
        raise DataError(f"{source}: training targets have {y.shape[1]} time steps but test targets {other.shape[1]}")
    x, other = arrays.train_x, arrays.test_x
    if x.shape[1:] != other.shape[1:]:
        raise DataError(f"{source}: training inputs are {x.shape[1:]} but test inputs {other.shape[1:]}")
    if (x.dtype == np.uint8) != (other.dtype == np.uint8):
        raise DataError(f"{source}: training inputs are {x.dtype} but test inputs {other.dtype}")


def as_tokens(source: str, arrays: Arrays) -> Arrays:
    """With inputs that are tokens, uint8, or float32 where these are more than 256. Raises DataError for others."""
    inputs = arrays.train_x, arrays.test_x
    for x in inputs:
        if x.ndim != 2 or (x < 0).any() or (x % 1).any() or x.max() >= MOST:
            raise DataError(f"{source}: tokens are whole numbers (N, T) from 0 to {MOST - 1:,}; got {x.dtype} {x.shape}"
                            f" from {x.min()} to {x.max()}")  # fmt: skip
    train, test = (x.astype(np.uint8 if max(map(np.max, inputs)) < 256 else np.float32) for x in inputs)
    return arrays._replace(train_x=train, test_x=test)


def check_split(split: str, x: np.ndarray, y: np.ndarray, classes: int, source: str, task: str) -> None:
    """Raises DataError if the inputs and labels of a split are not valid."""
    if x.dtype.kind not in "fiu" or x.ndim < 2:
        raise DataError(f"{source}: {split} inputs must be numbers (N, ..., C); got {x.dtype} {x.shape}")
    if len(x) == 0 or 0 in x.shape:
        raise DataError(f"{source}: there are no {split} inputs")
    if x.dtype.kind == "f" and not (np.isfinite(x).all() and np.abs(x).max() <= np.finfo(np.float32).max):
        raise DataError(f"{source}: {split} inputs contain nan or inf, or are too large for float32{not_finite(x)}")
    if y.shape[:1] != (len(x),) or (task == "classes" and y.ndim > 1):
        what = "labels" if task == "classes" else "targets"
        hint = "; the classes of one-hot rows are y.argmax(1)" if y.shape == (len(x), classes) else ""
        raise DataError(f"{source}: {len(x):,} {split} inputs but {what} of shape {y.shape}{hint}")
    try:
        targets.check(split, y, task, classes)
    except ValueError as error:
        raise DataError(f"{source}: {error}") from None


def not_finite(x: np.ndarray) -> str:
    """Where the first input is that is not finite in float32, for a message."""
    with np.errstate(over="ignore"):
        return f": example {int((~np.isfinite(x.astype(np.float32))).reshape(len(x), -1).any(1).argmax())}"
