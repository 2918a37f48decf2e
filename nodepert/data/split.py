"""Training examples held out, to choose hyperparameters without the test split."""

from __future__ import annotations

import numpy as np

from nodepert.data.dataset import DataError, Dataset


def held_out(data: Dataset, share: float = 0.1) -> Dataset:
    """The data set whose test split is a share of the training examples, drawn with a fixed seed; it trains on the
    others. Means and standard deviations are those of all training examples. Raises DataError where there is only one.
    """
    order = np.random.RandomState(0).permutation(len(data.train_y))  # whose stream never changes
    count = max(1, round(share * len(order)))
    if count == len(order):
        raise DataError(f"{data.name} has one training example; none can be held out")
    test, train = np.sort(order[:count]), np.sort(order[count:])
    x, y = data.train_x, data.train_y
    return data._replace(train_x=x[train], train_y=y[train], test_x=x[test], test_y=y[test])
