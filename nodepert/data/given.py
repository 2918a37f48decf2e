"""Data given as they are: a `Dataset`, or arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from nodepert.data.dataset import Dataset, sound
from nodepert.data.own import drawn, make_dataset
from nodepert.registry.lines import not_one

SHARE = 0.2  # of the examples, the test split of a pair


def dataset_of(given: Any) -> Dataset:
    """The data set of (train_x, train_y, test_x, test_y), or of (x, y), of which a fifth, drawn with a fixed seed, are
    the test split; a `Dataset` is returned as it is. Raises UserError."""
    if isinstance(given, Dataset):
        return sound(given)
    if not isinstance(given, tuple | list) or len(given) not in (2, 4):
        raise not_one("dataset", given)
    if len(given) == 4:
        return make_dataset(*given)
    x, y = given
    return drawn(x, y, SHARE)


def same(one: Dataset, other: Dataset) -> bool:
    """Whether two data sets have the same values, whatever their names."""
    values: Any = zip(*(data._replace(name="", source="") for data in (one, other)), strict=True)
    return all(a is b or np.array_equal(a, b) for a, b in values)
