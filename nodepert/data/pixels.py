"""Images as sequences of pixels."""

from __future__ import annotations

import numpy as np

from nodepert.data.dataset import Dataset, load_dataset
from nodepert.registry.spec import Spec


def sequential(data_dir: str | None, dataset: Spec, *, permuted: bool = False, seed: int = 0) -> Dataset:
    """The pixels of images one at a time, row by row, as in sequential(digits): inputs (H W, C), targets as they are.

    Args:
        data_dir: Folder of the data files.
        dataset: The data set of images.
        permuted: Whether pixels come in a random order, the same for all images.
        seed: Seed of this order.

    Returns:
        The `Dataset`, of one class per example.

    Raises:
        UserError: The data set cannot be loaded, or does not hold images and classes.

    Examples:
        >>> import nodepert as npt
        >>> npt.load_dataset("sequential(digits, permuted=True)").train_x.shape
        (1437, 64, 1)

    References:
        Le, Jaitly and Hinton 2015.
    """
    data = load_dataset(dataset, data_dir)
    shape = data.train_x.shape[1:]
    if len(shape) != 3 or data.task != "classes":
        raise ValueError(f"{data.name} has inputs of shape {shape} and {data.task}; give images (H, W, C) of classes")
    pixels = shape[0] * shape[1]
    order = np.random.RandomState(seed).permutation(pixels) if permuted else np.arange(pixels)

    def sequences(x: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(x.reshape(len(x), pixels, -1)[:, order])

    return data._replace(train_x=sequences(data.train_x), test_x=sequences(data.test_x))
