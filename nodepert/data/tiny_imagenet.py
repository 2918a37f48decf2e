"""Reader of the authors' Tiny ImageNet: 64x64 JPEG files, in the folder or in the zip archive.

Raises DataError, with the path, for a file that is missing, corrupt or of another size.
"""

from __future__ import annotations

import io
import re
import warnings
import zipfile
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import numpy as np

from nodepert.data.dataset import Arrays, DataError
from nodepert.data.formats import bad
from nodepert.errors import reason

SIDE = 64
FILE_MOST = 1 << 20  # bytes; the authors' images have about 2,000
CLASSES_MOST = 1000
ROOT = "tiny-imagenet-200/"
LISTS = ("wnids.txt", "val/val_annotations.txt")

Read = Callable[[str], bytes]


def tiny_imagenet(place: Path, train: int = 0, test: int = 0) -> tuple[Arrays, int]:
    """Images (N, 64, 64, 3), labels (N,), and the number of classes; a label is the class's line in wnids.txt.

    Training images alternate between classes, so that the first n contain all classes. The test split is the authors'
    validation split, since their test images have no labels. The first `train` and `test` images are decoded (0: all).
    """
    names, read = _zipped(place) if place.is_file() else _folder(place)
    wnids = read(LISTS[0]).decode("ascii", "replace").split()
    if not 0 < len(wnids) <= CLASSES_MOST or len(set(wnids)) < len(wnids) or not all(map(_is_wnid, wnids)):
        raise bad(place / LISTS[0], "not the list of classes: it must contain one wnid (such as n01443537) per line")
    label = {wnid: i for i, wnid in enumerate(wnids)}
    train_split = _training(place, names, label)
    test_split = _validation(place, read(LISTS[1]).decode("ascii", "replace"), label)
    if missing := next((name for name, _ in chain(train_split, test_split) if name not in names), None):
        raise bad(place / missing, "missing, but listed by the data set")
    # An invalid number of examples is reported by `build`, for all data sets; here it must only not select too few.
    train_split, test_split = train_split[: max(train, 0) or None], test_split[: max(test, 0) or None]
    train_x, test_x = (_decode(place, [name for name, _ in split], read) for split in (train_split, test_split))
    train_y, test_y = (np.array([y for _, y in split], np.int32) for split in (train_split, test_split))
    return Arrays(train_x, train_y, test_x, test_y), len(wnids)


def _is_wnid(text: str) -> bool:
    return re.fullmatch(r"n\d{8}", text) is not None  # used in a path


def _training(place: Path, names: set[str], label: dict[str, int]) -> list[tuple[str, int]]:
    per_class: dict[str, list[str]] = {wnid: [] for wnid in label}
    for name in names:
        found = re.fullmatch(r"train/(n\d{8})/images/\1_(\d+)\.JPEG", name)
        if found and found[1] in per_class:
            per_class[found[1]].append(name)
    most = max(map(len, per_class.values()))
    for wnid, files in per_class.items():
        if len(files) < max(most, 1):  # the authors' classes have equal sizes
            what = f"incomplete: {len(files)} images, but other classes have {most}"
            raise bad(place / "train" / wnid, what if most else "there are no images")
        files.sort(key=lambda name: int(name[name.rindex("_") + 1 : -len(".JPEG")]))
    return [(files[i], label[wnid]) for i in range(most) for wnid, files in per_class.items()]


def _validation(place: Path, text: str, label: dict[str, int]) -> list[tuple[str, int]]:
    split = []
    for number, line in enumerate(text.splitlines(), 1):
        file, wnid, *_ = [*line.split("\t"), "", ""]
        if not re.fullmatch(r"val_\d+\.JPEG", file) or wnid not in label:
            raise bad(place / LISTS[1], f"line {number} is not an image and one of the classes")
        split.append((f"val/images/{file}", label[wnid]))
    return split


def _folder(place: Path) -> tuple[set[str], Read]:
    """The relative paths of the image files below a folder, and a function that reads one file."""

    def read(name: str) -> bytes:
        try:
            with open(place / name, "rb") as file:
                return _small(place / name, file.read(FILE_MOST + 1))
        except OSError as error:
            raise DataError(f"{place / name}: cannot be read: {reason(error)}") from error

    images = chain(place.glob("train/*/images/*.JPEG"), place.glob("val/images/*.JPEG"))
    return {path.relative_to(place).as_posix() for path in images}, read


def _zipped(place: Path) -> tuple[set[str], Read]:
    """The same for the authors' archive; nothing is extracted to disk."""
    unreadable = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, OSError)
    try:
        archive = zipfile.ZipFile(place)
    except unreadable as error:
        raise bad(place, "corrupt, truncated or not a zip archive") from error

    def read(name: str) -> bytes:
        try:
            with archive.open(ROOT + name) as file:
                return _small(place / name, file.read(FILE_MOST + 1))
        except KeyError as error:
            raise bad(place, f"truncated, or another archive: it does not contain {ROOT}{name}") from error
        except unreadable as error:
            raise bad(place / name, "corrupt: it cannot be decompressed") from error

    return {name.removeprefix(ROOT) for name in archive.namelist() if name.startswith(ROOT)}, read


def _small(path: Path, content: bytes) -> bytes:
    if len(content) > FILE_MOST:
        raise bad(path, f"larger than {FILE_MOST:,} bytes")
    return content


def _decode(place: Path, names: list[str], read: Read) -> np.ndarray:
    """Decode JPEG files into uint8 (N, 64, 64, 3), in threads: Pillow releases the interpreter lock."""
    from PIL import Image  # slow to import

    images = np.empty((len(names), SIDE, SIDE, 3), np.uint8)

    def decode(i: int) -> None:
        try:
            with Image.open(io.BytesIO(read(names[i])), formats=("JPEG",)) as image:
                if image.size != (SIDE, SIDE):  # read before any pixel is decoded
                    raise bad(place / names[i], f"expected an image of {SIDE}x{SIDE}; got {image.width}x{image.height}")
                images[i] = np.asarray(image.convert("RGB"))
        except DataError:
            raise
        except Exception as error:  # Pillow's decoders raise many types of errors
            raise bad(place / names[i], "corrupt, or not a JPEG image") from error

    with warnings.catch_warnings(), ThreadPoolExecutor(4) as pool:
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        futures = [pool.submit(decode, i) for i in range(len(names))]
        try:
            for future in futures:
                future.result()
        finally:
            pool.shutdown(cancel_futures=True)
    return images
