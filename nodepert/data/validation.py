"""Training examples held out, to choose a network or its hyperparameters without the test split."""

from __future__ import annotations

import numpy as np

from nodepert.data import targets, wide
from nodepert.data.dataset import Dataset, is_wide
from nodepert.data.statistics import statistics
from nodepert.errors import UserError

SEED = 0  # of the choice of examples; one for all runs, so that they are compared on the same ones


def held_out(data: Dataset, validation: float) -> Dataset:
    """A data set with a validation split: training examples chosen at random, the same ones for all runs.

    Means and standard deviations are those of the examples that remain.

    Args:
        data: The data set.
        validation: How many training examples to hold out: a share below 1, or a number; 0: none.

    Raises:
        UserError: If no example is held out, or none remains.
    """
    if not validation:
        return data
    n = len(data.train_y)
    count = round(validation * n) if validation < 1 else int(validation)
    held, left = _drawn(data, count, f"validation={validation:g}")
    x, y = data.train_x[left], data.train_y[left]
    mean, std = wide.statistics(x) if is_wide(data.mean) else statistics(x, data.tokens)
    target_mean, target_std = targets.statistics(y, data.task)
    return data._replace(train_x=x, train_y=y, val_x=data.train_x[held], val_y=data.train_y[held], whole=data,
                         mean=mean, std=std, target_mean=target_mean, target_std=target_std)  # fmt: skip


def for_tuning(data: Dataset, share: float = 0.1) -> Dataset:
    """The data set whose test split is a share of the training examples; it trains on the others. Means and standard
    deviations are those of all training examples. Raises UserError where there is only one."""
    held, left = _drawn(data, max(1, round(share * len(data.train_y))), f"{share:g}")
    x, y = data.train_x, data.train_y
    return data._replace(train_x=x[left], train_y=y[left], test_x=x[held], test_y=y[held])


def _drawn(data: Dataset, count: int, what: str) -> tuple[np.ndarray, np.ndarray]:
    """The training examples that are held out, and the others, in their order. Raises UserError for none of either."""
    n = len(data.train_y)
    if not 0 < count < n:
        raise UserError(f"{what} of {n:,} training examples is {count:,}; hold out at least 1, and leave at least 1 to "
                        "train on")  # fmt: skip
    order = np.random.RandomState(SEED).permutation(n)  # a stream that numpy keeps as it is
    return np.sort(order[:count]), np.sort(order[count:])
