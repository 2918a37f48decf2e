"""Trials of experiments with animals: a stimulus, a delay, and a choice that is rewarded or not."""

from __future__ import annotations

import numpy as np

from nodepert.data.dataset import Dataset
from nodepert.registry.ranges import at_least


def dnms(
    data_dir: str | None = None, *, stimulus: int = 200, delay: int = 200, trial: int = 1000, step: int = 20,
    trials: int = 400,
) -> Dataset:  # fmt: skip
    """Delayed non-match to sample: two stimuli with a delay between them; is the second another one than the first?

    An input is (T, 2), one line per kind of stimulus, 1 while it is shown. The first is shown from the start of the
    trial, the second after the delay; then nothing until the end of the trial, where the answer is read. There are four
    trials, AA, AB, BA and BB, with the label 1 for AB and BA; the training split repeats them, the test split has each
    once. Inputs are not standardised.

    Args:
        data_dir: Not used.
        stimulus: Duration of a stimulus, in ms.
        delay: Time between the stimuli, in ms.
        trial: Duration of a trial, in ms.
        step: Duration of a time step, in ms; a network with a time constant of 30 ms has leak = step / 30.
        trials: Trials in the training split, a multiple of 4.

    Returns:
        The `Dataset`, of two classes.

    Raises:
        ValueError: A duration is not a positive multiple of `step`, the trial is too short, or `trials` is no multiple
            of 4.

    Examples:
        >>> import nodepert as npt
        >>> npt.load_dataset("dnms(step=50)").train_x.shape
        (400, 20, 2)

    References:
        Miconi 2017, eLife 6:e20899, with steps of 1 ms.
    """
    at_least("step", step, 1)
    for name, time in {"stimulus": stimulus, "delay": delay, "trial": trial}.items():
        if time < step or time % step:
            raise ValueError(f"{name} must be a positive multiple of step, {step} ms; got {time}")
    if trial < 2 * stimulus + delay:
        raise ValueError(f"two stimuli and a delay take {2 * stimulus + delay} ms; trial={trial} is shorter")
    if trials < 4 or trials % 4:
        raise ValueError(f"trials must be a multiple of 4; got {trials}")
    time, second = np.arange(0, trial, step), stimulus + delay
    x = np.zeros((4, len(time), 2), np.float32)
    for i in range(4):
        x[i, time < stimulus, i // 2] = 1
        x[i, (time >= second) & (time < second + stimulus), i % 2] = 1
    y, repeated = np.array([0, 1, 1, 0], np.int32), np.tile(np.arange(4), trials // 4)
    none = np.zeros(2, np.float32), np.ones(2, np.float32)
    return Dataset("dnms", x[repeated], y[repeated], x, y, 2, *none, "delayed non-match to sample")
