"""Tasks in time that are drawn, not measured."""

from __future__ import annotations

import numpy as np

from nodepert.data.dataset import Arrays, Dataset, build
from nodepert.registry.ranges import at_least

TRANSIENT = 100  # steps of a Mackey-Glass series that are dropped
STEPS = 10  # of Euler per unit of time


def copying(
    data_dir: str | None = None, *, length: int = 100, delay: int = 10, symbols: int = 10, train: int = 2000,
    test: int = 200, seed: int = 0,
) -> Dataset:  # fmt: skip
    """Recall a sequence: random symbols, a delay of blanks, then a marker for each symbol, at which it is due.

    Inputs are one-hot vectors, (2 length + delay, symbols): symbol 0 is the blank, the last one the marker, and the
    others are recalled. Only the steps of recall are graded; chance is 1 of symbols - 2.

    Args:
        data_dir: Not used.
        length: Symbols to recall.
        delay: Blank steps.
        symbols: Kinds of symbols, with blank and marker.
        train: Training examples.
        test: Test examples.
        seed: Seed of the examples.

    Returns:
        The `Dataset`: a class for every time step.

    Raises:
        UserError: A size is too small.

    Examples:
        >>> import nodepert as npt
        >>> npt.load_dataset("copying(length=5, delay=3, train=20, test=10)").train_x.shape
        (20, 13, 10)

    References:
        Hochreiter and Schmidhuber 1997; with these numbers Fernández, Ahmad and van Gerven 2024.
    """
    sizes = (length, 1), (delay, 0), (symbols, 3), (train, 1), (test, 1)
    for name, (size, lowest) in zip(("length", "delay", "symbols", "train", "test"), sizes, strict=True):
        at_least(name, size, lowest)
    random = np.random.RandomState(seed)  # its stream never changes, unlike that of default_rng
    n = train + test
    recalled = random.randint(1, symbols - 1, (n, length))
    shown = np.hstack([recalled, np.zeros((n, delay), int), np.full((n, length), symbols - 1)])
    x = np.eye(symbols, dtype=np.uint8)[shown]
    y = np.hstack([np.full((n, length + delay), -1), recalled])
    arrays = Arrays(x[:train], y[:train], x[train:], y[train:])
    return build("copying", arrays, symbols, f"copying of seed {seed}", task="steps")


def adding(
    data_dir: str | None = None, *, length: int = 50, train: int = 5000, test: int = 1000, seed: int = 0
) -> Dataset:
    """Add two numbers of a sequence: at each step a number in [0, 1) and a mark, which is 1 at one step of each half.

    The target, one value per example, is the sum of the marked numbers. Predicting 1 has a mean squared error of 1/6.

    Args:
        data_dir: Not used.
        length: Time steps.
        train: Training examples.
        test: Test examples.
        seed: Seed of the examples.

    Returns:
        The `Dataset`, of values, (N, 1).

    Raises:
        UserError: A size is too small.

    Examples:
        >>> import nodepert as npt
        >>> npt.load_dataset("adding(length=20, train=20, test=10)").train_x.shape
        (20, 20, 2)

    References:
        Hochreiter and Schmidhuber 1997; in this form Le, Jaitly and Hinton 2015.
    """
    for name, size, lowest in (("length", length, 2), ("train", train, 1), ("test", test, 1)):
        at_least(name, size, lowest)
    random = np.random.RandomState(seed)
    n, half = train + test, length // 2
    numbers, marks = random.uniform(size=(n, length)), np.zeros((n, length))
    for at in (random.randint(0, half, n), random.randint(half, length, n)):
        marks[np.arange(n), at] = 1
    x, y = np.stack([numbers, marks], -1), (numbers * marks).sum(1, keepdims=True)
    arrays = Arrays(x[:train], y[:train], x[train:], y[train:])
    return build("adding", arrays, 1, f"adding of seed {seed}", task="values")


def mackey_glass(
    data_dir: str | None = None, *, tau: int = 17, length: int = 5000, lag: int = 15, window: int = 100,
    washout: int = 20, seed: int = 0,
) -> Dataset:  # fmt: skip
    """Predict a chaotic series some steps ahead, at every step.

        dx/dt = 0.2 x(t - tau) / (1 + x(t - tau)^10) - 0.1 x(t),    input tanh(x(t) - 1),    target that at t + lag

    Two series from different random pasts are the splits, each cut into windows that do not overlap. The first steps of
    a window are not graded, as the network starts without a past.

    Args:
        data_dir: Not used.
        tau: Delay of the equation; chaotic from 17 on.
        length: Steps of each series.
        lag: How many steps ahead the target is.
        window: Steps of one example.
        washout: First steps of a window that are not graded.
        seed: Seed of the pasts.

    Returns:
        The `Dataset`: a value for every time step.

    Raises:
        UserError: A size is too small, or no step is graded.

    Examples:
        >>> import nodepert as npt
        >>> npt.load_dataset("mackey-glass(length=400, window=50)").train_y.shape
        (8, 50, 1)

    References:
        Mackey and Glass 1977; with these numbers Fernández, Ahmad and van Gerven 2024.
    """
    for name, size, lowest in (("tau", tau, 1), ("lag", lag, 1), ("window", window, 1), ("washout", washout, 0)):
        at_least(name, size, lowest)
    at_least("length", length, window)
    if washout >= window:
        raise ValueError(f"washout must be below window={window}; got {washout}")
    series = np.tanh(_mackey_glass(np.random.RandomState(seed), tau, TRANSIENT + length + lag) - 1)[TRANSIENT:]
    count = length // window

    def windows(steps: np.ndarray) -> np.ndarray:
        return steps[: count * window].T.reshape(2, count, window, 1)

    (train_x, test_x), targets = windows(series), np.ma.array(windows(series[lag:]))
    targets[:, :, :washout] = np.ma.masked
    arrays = Arrays(train_x, targets[0], test_x, targets[1])
    return build("mackey-glass", arrays, 1, f"Mackey-Glass of seed {seed}", task="series")


def _mackey_glass(random: np.random.RandomState, tau: int, steps: int) -> np.ndarray:
    """Two solutions, (steps, 2), by Euler's method."""
    past = tau * STEPS
    x = np.empty((past + 1 + steps * STEPS, 2))
    x[:past] = 1.2 + 0.2 * (random.uniform(size=(past, 2)) - 0.5)
    x[past] = 1.2
    for t in range(past, len(x) - 1):
        late = x[t - past]
        x[t + 1] = x[t] + (0.2 * late / (1 + late**10) - 0.1 * x[t]) / STEPS
    return x[past + STEPS :: STEPS]
