"""Data sets that are drawn, not measured."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import numpy as np

from nodepert.data.dataset import Arrays, Dataset, build
from nodepert.registry.ranges import at_least


def teacher(
    data_dir: str | None = None, *, inputs: int = 100, outputs: int = 10, train: int = 10_000, test: int = 1_000,
    noise: float = 0.1, depth: int = 0, width: int = 100, activation: Literal["relu", "tanh", "linear"] = "relu",
    seed: int = 0,
) -> Dataset:  # fmt: skip
    """Values of a random network, the teacher, plus noise: y = f(x) + noise * z, with x and z standard normal.

    f has weights of variance 2 / (fan in + fan out), no biases, and no hidden layer by default: the linear teacher of
    Hiratani, Mehta, Lillicrap and Latham 2022, figure 1a, has 100 inputs and 10 outputs. No student has a lower
    expected RMSE than `noise`.

    Args:
        data_dir: Not used.
        inputs: Numbers per example.
        outputs: Values per example.
        train: Training examples.
        test: Test examples.
        noise: Standard deviation of the noise, in both splits.
        depth: Hidden layers of the teacher.
        width: Units of each hidden layer.
        activation: Of the hidden layers.
        seed: Seed of teacher and examples.

    Returns:
        The `Dataset`, of values, (N, outputs).

    Raises:
        UserError: A size is below 1, or the noise is negative.

    Examples:
        >>> import nodepert as npt
        >>> npt.load_dataset("teacher(inputs=8, outputs=2, train=100, test=50)").train_y.shape
        (100, 2)
    """
    sizes = {"inputs": inputs, "outputs": outputs, "train": train, "test": test, "width": width, "depth": depth + 1}
    for name, size in sizes.items():
        at_least(name, size - (name == "depth"), int(name != "depth"))
    if not 0 <= noise < float("inf"):
        raise ValueError(f"noise must be finite and not negative; got {noise}")
    random = np.random.RandomState(seed)  # its stream never changes, unlike that of default_rng
    f = {"relu": lambda a: np.maximum(a, 0), "tanh": np.tanh, "linear": lambda a: a}[activation]
    weights = [random.normal(0, (2 / (m + n)) ** 0.5, (m, n)) for m, n in pairwise([inputs, *[width] * depth, outputs])]
    x = random.normal(size=(train + test, inputs))
    h = x
    for w in weights[:-1]:
        h = f(h @ w)
    y = h @ weights[-1] + noise * random.normal(size=(train + test, outputs))
    arrays = Arrays(x[:train], y[:train], x[train:], y[train:])
    return build("teacher", arrays, outputs, f"teacher of seed {seed}", task="values")
