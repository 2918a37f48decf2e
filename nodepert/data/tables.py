"""Data sets of values that come as tables: from installed packages, and from the authors' files."""

from __future__ import annotations

import numpy as np

from nodepert.data import files, formats
from nodepert.data.dataset import Arrays, Dataset, build
from nodepert.data.stored import stored


def diabetes(data_dir: str | None = None, *, train: int = 0, test: int = 0) -> Dataset:
    """scikit-learn's diabetes (Efron, Hastie, Johnstone and Tibshirani 2004): 353 + 89 patients, 10 measurements, and
    the progression of the disease after a year, a value of 25 to 346.

    Args:
        data_dir: Not used.
        train: Training examples to use, the first ones; 0 uses all.
        test: Test examples to use; 0 uses all.

    Returns:
        The `Dataset`, of values, (N, 1).

    Raises:
        DataError: The files are missing or corrupt.
        UserError: train or test is larger than its split.

    Examples:
        >>> import nodepert as npt
        >>> run = npt.Run(dataset="diabetes", network="fc(width=20)")
    """
    x = formats.packaged("sklearn", "datasets/data/diabetes_data_raw.csv.gz", (442, 10), delimiter=None)
    y = formats.packaged("sklearn", "datasets/data/diabetes_target.csv.gz", (442, 1))
    return build("diabetes", split(x, y, 89), 1, "package scikit-learn", train, test, task="values")


def autompg(data_dir: str | None = None, *, train: int = 0, test: int = 0) -> Dataset:
    """Auto MPG (Quinlan 1993): 313 + 79 cars, 6 numbers and the origin as one of 3, and the miles per gallon.

    Arguments, return value and errors as for `diabetes`.

    Examples:
        >>> import nodepert as npt
        >>> run = npt.Run(dataset="autompg", network="fc(width=20)")
    """
    columns = formats.packaged("mlxtend", "data/data/autompg.csv.gz", (392, 8), usecols=(*range(7), 8))
    origin = columns[:, 6:7] == np.arange(1, 4)
    arrays = split(np.hstack([columns[:, :6], origin]), columns[:, 7:], 79)
    return build("autompg", arrays, 1, "package mlxtend", train, test, task="values")


@stored("sarcos", folders=("sarcos",), files=("sarcos_inv.mat", "sarcos_inv_test.mat"))
def sarcos(data_dir: str | None = None, *, train: int = 0, test: int = 0) -> Dataset:
    """SARCOS (Vijayakumar and Schaal 2000): positions, velocities and accelerations of the 7 joints of a robot arm, 21
    numbers, and the 7 torques; 44,484 + 4,449 examples.

    It is not downloaded: put sarcos_inv.mat and sarcos_inv_test.mat (www.gaussianprocess.org/gpml/data) into
    DIR/sarcos and give --data-dir DIR. Nearly all of its test examples are also in the authors' training file.

    Arguments, return value and errors as for `diabetes`.

    Examples:
        >>> import nodepert as npt
        >>> run = npt.Run(dataset="sarcos", network="fc(width=200)")
    """
    place = files.find("sarcos", data_dir)
    train_part, test_part = (formats.mat(place, name, 28) for name in ("sarcos_inv", "sarcos_inv_test"))
    arrays = Arrays(train_part[:, :21], train_part[:, 21:], test_part[:, :21], test_part[:, 21:])
    return build("sarcos", arrays, 7, str(place), train, test, task="values")


def split(x: np.ndarray, y: np.ndarray, test: int, seed: int = 0) -> Arrays:
    """Draw so many test examples; both splits in one shuffled order, fixed by the seed."""
    order = np.random.RandomState(seed).permutation(len(y))  # its stream never changes, unlike that of default_rng
    return Arrays(x[order[test:]], y[order[test:]], x[order[:test]], y[order[:test]])
