"""Examples in a file, to predict on: an array, a table, an image, or a folder of images."""

from __future__ import annotations

import csv
import warnings
import zlib
from io import TextIOWrapper
from pathlib import Path
from typing import Any, cast

import numpy as np

from nodepert.data import columns, formats
from nodepert.data.schema import Columns, columns_of
from nodepert.errors import UserError, reason

TABLES = (".csv", ".tsv", ".gz", ".parquet")
IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")


def read_examples(path: Path, shape: tuple[int, ...], named: Columns | None = None) -> tuple[np.ndarray, list[str]]:
    """Read inputs of this shape, in the units in which the file has them.

    Args:
        path: An array (.npy; .npz with one array, or one named x), a table of one example per row (.csv, .tsv,
            .parquet, with or without a heading), an image, or a folder of images in the order of their names.
        shape: Of one input; the numbers of an example in a table are reshaped to it.
        named: The columns of the table that the network was trained on. Those of a table with a heading are matched
            by name.

    Returns:
        The inputs, (N, ...), and the names of the images, empty for arrays and tables.

    Raises:
        UserError: The file cannot be read, or holds no examples, or some of another size.
    """
    try:
        path.stat()
        x, names = _read(path, shape, named)
    except OSError as error:
        raise UserError(f"cannot read {path}: {reason(error)}") from None
    if not len(x):
        raise UserError(f"{path} has no examples")
    return x, names


def _read(path: Path, shape: tuple[int, ...], named: Columns | None) -> tuple[np.ndarray, list[str]]:
    suffix = path.suffix.lower()
    if path.is_dir() or suffix in IMAGES:
        return _images(path, shape)
    if suffix in TABLES:
        return _table(path, shape, named), []
    if suffix in (".npy", ".npz"):
        return _array(path), []
    raise UserError(f"cannot tell the format of {path}: give .npy, .npz, .csv, .parquet, or images")


def _array(path: Path) -> np.ndarray:
    with open(path, "rb") as file:
        try:
            found = np.load(file, allow_pickle=False)
            if isinstance(found, np.ndarray):
                return found
            names = found.files
            if "x" in names or len(names) == 1:
                return found["x" if "x" in names else names[0]]
        except Exception as error:  # whatever is raised for a corrupt file
            raise UserError(f"{path} is not a sound file of numpy without pickles ({error})") from None
    raise UserError(f"{path} has the arrays {', '.join(names)}; name the inputs x")


def _table(path: Path, shape: tuple[int, ...], named: Columns | None) -> np.ndarray:
    """The rows of a table: by the names of the columns where these are known on both sides, else by position."""
    try:
        if path.suffix.lower() == ".parquet":
            return _of_frame(path, shape, named)
        with TextIOWrapper(cast(Any, formats.opened(path)), "utf-8-sig", newline="") as file:
            separator = columns.separator(file.readline(1 << 20))
            file.seek(0)
            cells = (row for row in csv.reader(file, delimiter=separator, skipinitialspace=True) if row)
            first = next(cells, [])
            headed = bool(first) and not _are_numbers(first)
            if named and (headed or {column.name for column in named.inputs} <= {*first}):
                return _of_frame(path, shape, named)
            rows = [*([] if headed else [first] * bool(first)), *cells]
    except (UnicodeDecodeError, csv.Error, EOFError, zlib.error) as error:
        raise UserError(f"{path} is not a table of numbers: {error}") from None
    size, hint = int(np.prod(shape)), "; with a heading columns are matched by name" if named else ""
    for i, row in enumerate(rows, 1 + headed):
        if len(row) != size:
            raise UserError(f"{path}: row {i} has {len(row)} numbers; an example of this network has {size}, {shape}"
                            f"{hint}")  # fmt: skip
        if not _are_numbers(row):
            raise UserError(f"{path}: row {i} has a cell that is not a number{hint}")
    return np.array(rows, np.float64).reshape(-1, *shape)


def _of_frame(path: Path, shape: tuple[int, ...], named: Columns | None) -> np.ndarray:
    texts = [column.name for column in named.inputs if column.texts] if named else []
    frame = columns.read(path, 0, texts)
    if named:
        return named.encoded(str(path), frame)
    size = int(np.prod(shape))
    if len(frame.columns) != size:
        raise UserError(f"{path} has {len(frame.columns)} columns; an example of this network has {size}, {shape}")
    return columns_of(str(path), frame).encoded(str(path), frame).reshape(-1, *shape)


def _are_numbers(row: list[str]) -> bool:
    try:
        return bool([float(cell) for cell in row])
    except ValueError:
        return False


def _images(path: Path, shape: tuple[int, ...]) -> tuple[np.ndarray, list[str]]:
    paths = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGES) if path.is_dir() else [path]
    if not paths:
        raise UserError(f"there are no images in {path} ({', '.join(IMAGES)})")
    modes = {1: "L", 3: "RGB", 4: "RGBA"}
    if len(shape) != 3 or shape[-1] not in modes:
        raise UserError(f"this network takes inputs of shape {shape}, which are not images; give .npy or .csv")
    return np.stack([_image(one, shape, modes[shape[-1]]) for one in paths]), [one.name for one in paths]


def _image(path: Path, shape: tuple[int, ...], mode: str) -> np.ndarray:
    """One image, uint8, of these colours. Raises UserError for another size: nothing is scaled."""
    from PIL import Image  # slow to import

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                if (image.height, image.width) != shape[:2]:
                    raise UserError(f"{path} is {image.height} x {image.width} pixels; this network takes "
                                    f"{shape[0]} x {shape[1]}: scale it first")  # fmt: skip
                if image.mode[0] in "IF":  # Pillow would clip them
                    raise UserError(f"{path} has more than 8 bits per channel; give it as .npy")
                return np.asarray(image.convert(mode)).reshape(shape)
    except (UserError, FileNotFoundError, PermissionError):
        raise
    except Exception as error:  # whatever Pillow raises for a corrupt file
        raise UserError(f"{path} is not a sound image ({type(error).__name__}: {error})") from None
