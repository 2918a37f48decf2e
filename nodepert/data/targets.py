"""Targets: which task they imply, their checks, and values in the units of training."""

from __future__ import annotations

from typing import Any

import numpy as np

from nodepert.data import wide
from nodepert.registry.catalogue import TASKS

NUMBERED = "as np.unique(y, return_inverse=True)[1] makes them"
SUM = 1e-3  # how far the sum of probabilities may be from 1


def implied(train: np.ndarray, test: np.ndarray) -> str:
    """The task of targets: "values" of floats, "probabilities" of floats that are one distribution per example,
    "classes" of integers (N,), "multilabel" of integers or booleans (N, n)."""
    if train.dtype.kind in "iub":
        return "classes" if train.ndim == 1 else "multilabel"
    several = all(y.ndim == 2 and y.shape[1] > 1 and y.dtype.kind == "f" for y in (train, test))
    return "probabilities" if several and all(_improper(y) is None for y in (train, test)) else "values"


def check(split: str, y: np.ndarray, task: str, outputs: int) -> None:
    """Raises ValueError if the targets of a split are not those of a task with so many outputs."""
    if task not in TASKS or not task:
        raise ValueError(f"no task '{task}'; there are: {', '.join(filter(None, TASKS))}")
    if task == "classes":
        return _check_classes(split, y, outputs)
    size = int(np.prod(y.shape[1:]))
    if size != outputs:
        raise ValueError(f"{split} targets are {size} numbers per example, of shape {y.shape[1:]}; expected {outputs}")
    if y.dtype.kind not in "fiub":
        raise ValueError(f"{split} targets must be numbers; got {y.dtype} (class labels: whole numbers, {NUMBERED})")
    if not np.isfinite(y).all():
        raise ValueError(f"{split} targets contain nan or inf{_first(~np.isfinite(y))}")
    if task == "multilabel" and (wrong := (y != 0) & (y != 1)).any():
        raise ValueError(f"{split} labels must be 0 or 1; got {y[wrong][0]}{_first(wrong)}; convert values to floats")
    if task == "probabilities" and (row := _improper(y)) is not None:
        raise ValueError(f"{split} targets must be probabilities, at least 0 and with sum 1; example {row} is not")
    return None


def stored(y: np.ndarray, task: str) -> np.ndarray:
    """Targets as a data set has them: class indices, int32 (N,), or rows (N, n)."""
    if task == "classes":
        return y.astype(np.int32)
    rows = y.reshape(len(y), -1)
    if task == "values":
        return rows if rows.dtype.kind == "f" else rows.astype(np.float64)
    return rows.astype(np.uint8 if task == "multilabel" else np.float32)


def statistics(y: np.ndarray, task: str) -> tuple[np.ndarray, np.ndarray] | tuple[None, None]:
    """Mean and standard deviation of each value (n,), float64; 1 for the deviation of a constant one."""
    return wide.statistics(y) if task == "values" else (None, None)


def trained(y: np.ndarray, mean: np.ndarray | None, std: np.ndarray | None) -> np.ndarray:
    """Targets as the loss receives them: class indices, or floats (N, n), values standardised."""
    if mean is None or std is None:
        return y if y.ndim == 1 else y.astype(np.float32)
    return wide.standardise(y, mean, std)


def units(y: np.ndarray, std: Any) -> dict[str, np.ndarray]:
    """What converts errors of standardised values y to shares and to their own units: their variance and std, (n,)."""
    return {"variance": y.var(0, dtype=np.float64).astype(np.float32), "std": np.asarray(std, np.float32)}


def _check_classes(split: str, y: np.ndarray, classes: int) -> None:
    if y.dtype.kind not in "iu":
        raise ValueError(f"{split} labels must be whole numbers, {NUMBERED}; got {y.dtype}")
    if y.min() < 0 or y.max() >= classes:
        raise ValueError(f"{split} labels from {y.min()} to {y.max()}; they must be in 0..{classes - 1}")


def _improper(y: np.ndarray) -> int | None:
    """The first row that is not a distribution."""
    proper = (y >= 0).all(1) & (np.abs(y.sum(1, dtype=np.float64) - 1) <= SUM)
    return None if proper.all() else int(proper.argmin())


def _first(wrong: np.ndarray) -> str:
    example, *at = np.argwhere(wrong)[0]
    return f": example {example}" + f", output {', '.join(map(str, at))}" * bool(at)
