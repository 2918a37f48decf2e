"""Text, character by character."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

import numpy as np

from nodepert.data.checks import Arrays, DataError
from nodepert.data.columns import located
from nodepert.data.dataset import Dataset, build
from nodepert.errors import reason
from nodepert.registry.ranges import at_least, fraction

MOST = 128  # kinds of characters; the rarer ones are one class
OTHER = "\N{REPLACEMENT CHARACTER}"


def text(
    data_dir: str | None = None, *, path: str = "", window: int = 64, characters: int = 1_000_000, part: float = 0.1,
    train: int = 0, test: int = 0,
) -> Dataset:  # fmt: skip
    """Predict the next character of a text, at every step; without a path the text is Python's own library.

    Inputs are tokens, (window,): the characters of windows that do not overlap; `names` says which character each
    class is. The end of the text is the test split. The source of the data set says the entropy of the characters,
    which is the loss of a prediction from their frequencies alone. Characters beyond the 127 most frequent are one
    class.

    Args:
        data_dir: Folder in which `path` is looked for after the working folder. Default: NODEPERT_DATA_DIR.
        path: The file, in UTF-8 and in quotes: path='book.txt'.
        window: Steps of one example.
        characters: How much of the text to use, from its start; 0 uses all.
        part: Share of the text that is the test split.
        train: Training examples to use, the first ones; 0 uses all.
        test: Test examples to use; 0 uses all.

    Returns:
        The `Dataset`: a class for every time step.

    Raises:
        DataError: The file is missing or not a text, or too short.
        UserError: A number is out of range.

    Examples:
        >>> import nodepert as npt
        >>> npt.load_dataset("text(characters=7000, window=32)").test_x.shape
        (21, 32)
    """
    at_least("window", window, 1)
    at_least("characters", characters, 0)
    fraction("part", part)
    source, whole = _file(located(path, data_dir)) if path else _library(characters)
    whole = whole[: characters or None]
    held = round(part * len(whole))
    if min(held, len(whole) - held) <= window:
        raise DataError(f"{source}: {len(whole):,} characters are too few for windows of {window} in both splits")
    codes, names, entropy = encoded(whole)
    train_x, train_y = windows(codes[: len(whole) - held], window)
    test_x, test_y = windows(codes[len(whole) - held :], window)
    about = f"{source}: {len(whole):,} characters of {len(names)} kinds, entropy {entropy:.3f} nats"
    arrays = Arrays(train_x, train_y, test_x, test_y)
    return build("text", arrays, len(names), about, train, test, "steps", tokens=True)._replace(names=names)


def encoded(text: str) -> tuple[np.ndarray, tuple[str, ...], float]:
    """A text as class indices, the most frequent character first; the characters; and their entropy, in nats."""
    points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    kinds, index, counts = np.unique(points, return_inverse=True, return_counts=True)
    rank = np.empty(len(kinds), int)
    rank[np.argsort(-counts, kind="stable")] = np.arange(len(kinds))
    codes = np.minimum(rank[index], MOST - 1)
    names = [chr(kinds[i]) for i in np.argsort(rank)[:MOST]]
    if len(kinds) > MOST:
        names[-1] = OTHER
    share = np.bincount(codes) / len(codes)
    return codes, tuple(names), float(-(share * np.log(share)).sum())


def windows(codes: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Windows (N, window), and the characters that follow at each of their steps."""
    count = (len(codes) - 1) // window
    first, following = (codes[shift:][: count * window].reshape(count, window) for shift in (0, 1))
    return first, following


def _file(path: Path) -> tuple[str, str]:
    try:
        return str(path), path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not a text in UTF-8: {error.reason} at byte {error.start:,}") from None
    except OSError as error:
        raise DataError(f"cannot read {path}: {reason(error)}") from None


def _library(characters: int) -> tuple[str, str]:
    """The modules of Python's library in the order of their names, as many as needed."""
    folder, found, length = Path(sysconfig.get_paths()["stdlib"]), [], 0
    for path in sorted(folder.glob("*.py")):
        if characters and length >= characters:
            break
        found.append(path.read_text(encoding="utf-8"))
        length += len(found[-1])
    return f"library of Python {sys.version.split()[0]}", "".join(found)
