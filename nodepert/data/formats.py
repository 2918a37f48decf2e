"""Readers of the authors' file formats: IDX (MNIST), binary CIFAR, tables in packages. Everything is checked.

Files may be gzipped or not, whatever their name. No reader reads more bytes than the format allows, and none loads a
pickle. All raise DataError, with the file's path, for an invalid file.
"""

from __future__ import annotations

import gzip
import importlib.util
import math
import os
import struct
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BufferedIOBase
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np

from nodepert.data.dataset import Arrays, DataError
from nodepert.errors import reason

IDX_IMAGES, IDX_LABELS = "{}-images-idx3-ubyte", "{}-labels-idx1-ubyte"
IDX_SPLITS = ("train", "t10k")
IDX_FILES = tuple(kind.format(split) for split in IDX_SPLITS for kind in (IDX_IMAGES, IDX_LABELS))
IDX_MOST = 1_000_000  # images in a file; a header with more is corrupt

# Records per file; the last file is the test split.
CIFAR10_FILES = {f"data_batch_{i}.bin": 10_000 for i in range(1, 6)} | {"test_batch.bin": 10_000}
CIFAR100_FILES = {"train.bin": 50_000, "test.bin": 10_000}
CIFAR_PIXELS = 3 * 32 * 32


def existing(folder: Path, name: str) -> Path | None:
    """The file `name` or `name.gz` of a folder, or None."""
    return next((p for p in (folder / name, folder / f"{name}.gz") if os.path.isfile(p)), None)


def bad(path: Path | str, what: str) -> DataError:
    """The error for an invalid file."""
    return DataError(f"{path}: {what}; replace it by the authors' file")


@contextmanager
def guarded(path: Path) -> Iterator[None]:
    """Convert the errors of a corrupt or unreadable file into DataError."""
    try:
        yield
    except DataError:
        raise
    except EOFError as error:
        raise bad(path, "truncated: the compressed data are incomplete") from error
    except (gzip.BadGzipFile, zlib.error, tarfile.TarError, ValueError, OverflowError, MemoryError) as error:
        raise bad(path, "corrupt: it cannot be decompressed") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {reason(error)}") from error


def opened(path: Path) -> BufferedIOBase:
    """Open for reading, through gzip if the content (not the name) is gzipped."""
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path) if packed else open(path, "rb")


def idx_set(folder: Path, classes: int) -> Arrays:
    """The four IDX files of an MNIST-like set: images (N, 28, 28, 1), labels (N,)."""
    parts = []
    for split in IDX_SPLITS:
        image_file, label_file = (_required(folder, kind.format(split)) for kind in (IDX_IMAGES, IDX_LABELS))
        images, labels = read_idx(image_file, (28, 28)), read_idx(label_file)
        if len(images) != len(labels):
            raise bad(label_file, f"{len(labels):,} labels for the {len(images):,} images of {image_file.name}")
        if len(labels) and labels.max() >= classes:
            raise bad(label_file, f"corrupt: it contains label {labels.max()}, but labels are 0..{classes - 1}")
        parts += [images[..., None], labels]
    return Arrays(*parts)


def read_idx(path: Path, item: tuple[int, ...] = ()) -> np.ndarray:
    """One IDX file of unsigned bytes, as uint8 (N, *item)."""
    magic = struct.pack(">I", 0x0801 + len(item))
    with guarded(path), opened(path) as file:
        head = file.read(4)
        if head != magic:
            found = f"it starts with {head.hex()}, not {magic.hex()}" if head else "it is empty"
            raise bad(path, f"not an IDX file of {'images' if item else 'labels'}: {found}")
        sizes = file.read(4 * (1 + len(item)))
        if len(sizes) < 4 * (1 + len(item)):
            raise bad(path, "truncated: its header is incomplete")
        count, *dims = struct.unpack(f">{1 + len(item)}I", sizes)
        if tuple(dims) != item:
            raise bad(path, f"its images are {'x'.join(map(str, dims))}, not {'x'.join(map(str, item))}")
        if count > IDX_MOST:
            raise bad(path, f"corrupt: its header gives {count:,} examples; at most {IDX_MOST:,} are read")
        size = count * math.prod(item)
        # One more byte than given detects a longer file, and reaches the end, where gzip's checksum is.
        body = file.read(size + 1)
    if len(body) < size:
        raise bad(path, f"truncated: its header gives {size:,} bytes of data, it contains {len(body):,}")
    if len(body) > size:
        raise bad(path, f"corrupt: it is longer than the {size:,} bytes of data that its header gives")
    return np.frombuffer(body, np.uint8).reshape(count, *item)


def cifar(place: Path, files: Mapping[str, int], label: int, classes: int) -> Arrays:
    """Binary CIFAR, from a folder or the authors' archive: images (N, 32, 32, 3), labels (N,).

    A record is `label` bytes to skip, the label, then the red, green and blue planes of 32x32. `files` gives the
    records per file; if all files have fewer, they are a sample of the data set; if only some do, they are corrupt.
    """
    record = label + 1 + CIFAR_PIXELS
    blobs = _blobs(place, {name: count * record for name, count in files.items()})
    parts = {name: _records(where, blob, record) for name, (where, blob) in blobs.items()}
    short = [name for name in files if len(parts[name]) < files[name]]
    if short and len(short) < len(files):
        where, held, full = blobs[short[0]][0], len(parts[short[0]]), files[short[0]]
        raise bad(where, f"truncated: it contains {held:,} records of {full:,}")
    for name, part in parts.items():
        if (part[:, label] >= classes).any() or (part[:, :label] >= 20).any():  # CIFAR-100 has 20 superclasses
            raise bad(blobs[name][0], f"corrupt: it contains a label outside 0..{classes - 1}")
    *train, test = (parts[name] for name in files)
    splits = np.concatenate(train), test
    return Arrays(*(half for part in splits for half in (_pixels(part, label), part[:, label])))


def packaged(
    package: str,
    file: str,
    shape: tuple[int, ...],
    dtype: Any = np.float64,
    delimiter: str | None = ",",
    usecols: Any = None,
) -> np.ndarray:
    """A table of numbers that a package contains, of this shape; dtype, delimiter and usecols are those of np.loadtxt.

    The file is read without importing the package, which would take seconds.
    """
    found = importlib.util.find_spec(package)
    folder = found.submodule_search_locations[0] if found and found.submodule_search_locations else package
    path = Path(folder, file)
    if not os.path.isfile(path):
        raise DataError(f"{path}: missing; reinstall the package {package}, which contains it")
    with guarded(path):
        table = np.loadtxt(path, dtype, delimiter=delimiter, usecols=usecols, ndmin=2)
    if table.shape != shape:
        raise DataError(f"{path}: expected a table of shape {shape}; got {table.shape}")
    return table


def mat(folder: Path, name: str, columns: int) -> np.ndarray:
    """The variable `name` of the MATLAB file of this name, (N, columns)."""
    from scipy.io import loadmat

    path = _required(folder, f"{name}.mat")
    with guarded(path), opened(path) as file:
        try:
            found = loadmat(file, variable_names=[name]).get(name)
        except Exception as error:  # whatever its reader meets
            raise bad(path, f"not a readable MATLAB file ({type(error).__name__})") from error
    if found is None or found.ndim != 2 or found.shape[1] != columns:
        raise bad(path, f"it has no table '{name}' of {columns} columns")
    return found


def _records(where: str, blob: bytes, record: int) -> np.ndarray:
    if not blob or len(blob) % record:
        raise bad(where, f"truncated or not binary CIFAR: {len(blob):,} bytes are not records of {record:,} bytes")
    return np.frombuffer(blob, np.uint8).reshape(-1, record)


def _pixels(records: np.ndarray, label: int) -> np.ndarray:
    return np.ascontiguousarray(records[:, label + 1 :].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


def _blobs(place: Path, limits: Mapping[str, int]) -> dict[str, tuple[str, bytes]]:
    """For each name its path (for messages) and content, at most `limits[name]` bytes."""
    if place.is_dir():
        found = {}
        for name, limit in limits.items():
            path = _required(place, name)
            with guarded(path), opened(path) as file:
                found[name] = str(path), _limited(path, file, limit)
        return found
    found = {}
    with guarded(place), opened(place) as stream:
        bounded: Any = _Bounded(stream, max(limits.values()) + 1)
        with tarfile.open(fileobj=bounded, mode="r:") as tar:
            for member in tar:
                name = PurePosixPath(member.name).name
                if name in limits and member.isfile():
                    content = tar.extractfile(member)
                    assert content is not None  # a regular file
                    where = f"{place} ({name})"
                    found[name] = where, _limited(where, content, limits[name])
        # The rest is padding; reading it makes gzip verify its checksum.
        stream.read(1 << 20)
    if missing := [name for name in limits if name not in found]:
        raise bad(place, f"truncated, or another archive: it does not contain {', '.join(missing)}")
    return found


class _Bounded:
    """A stream that refuses huge reads, which the headers of a malicious archive may request."""

    def __init__(self, stream: BufferedIOBase, limit: int):
        self.stream, self.limit = stream, limit
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= self.limit:
            raise ValueError(f"a read of {size:,} bytes")
        return self.stream.read(size)


def _limited(where: Path | str, file: BufferedIOBase | IO[bytes], limit: int) -> bytes:
    content = file.read(limit + 1)
    if len(content) > limit:
        raise bad(where, f"longer than the {limit:,} bytes of the authors' file")
    return content


def _required(folder: Path, name: str) -> Path:
    path = existing(folder, name)
    if path is None:
        raise DataError(f"{folder}: the file {name} is missing")
    return path
