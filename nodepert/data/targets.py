"""Targets: which task they imply, their checks, and values in the units of training."""

from __future__ import annotations

from typing import Any

import numpy as np

from nodepert.data import wide
from nodepert.registry.entry import TASKS

IN_TIME = ("steps", "series")  # tasks with a target for every time step
SCALED = ("values", "series")  # tasks whose targets are standardised
NUMBERED = "as np.unique(y, return_inverse=True)[1] makes them"
CLASSES_IN_TIME = "; give a class for every time step with task='steps'"
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
    if task in IN_TIME:
        _check_steps(split, y, task)
    if task in ("classes", "steps"):
        return _check_classes(split, y, task, outputs)
    if size(y, task) != outputs:
        of = "time step" if task in IN_TIME else "example"
        raise ValueError(f"{split} targets are {size(y, task)} numbers per {of}, of shape {y.shape[1:]}; "
                         f"expected {outputs}")  # fmt: skip
    if y.dtype.kind not in "fiub":
        raise ValueError(f"{split} targets must be numbers; got {y.dtype} (class labels: whole numbers, {NUMBERED})")
    if not np.isfinite(y).all():
        mask = "; mask the steps without a value: np.ma.masked_invalid(y)" * (task in IN_TIME)
        raise ValueError(f"{split} targets contain nan or inf{_first(np.ma.filled(~np.isfinite(y), False))}{mask}")
    if task == "multilabel" and (wrong := (y != 0) & (y != 1)).any():
        raise ValueError(f"{split} labels must be 0 or 1; got {y[wrong][0]}{_first(wrong)}; convert values to floats"
                         f"{CLASSES_IN_TIME * (y.ndim == 2)}")  # fmt: skip
    if task == "probabilities" and (row := _improper(y)) is not None:
        raise ValueError(f"{split} targets must be probabilities, at least 0 and with sum 1; example {row} is not")
    return None


def stored(y: np.ndarray, task: str) -> np.ndarray:
    """Targets as a data set has them: class indices, int32 (N,), or rows (N, n); in time int32 (N, T), -1 where a step
    is not graded, or floats (N, T, n), masked there."""
    if task in ("classes", "steps"):
        return np.ma.filled(y.astype(np.int32), -1)
    rows = y.reshape(*y.shape[: 1 + (task in IN_TIME)], -1)
    if task in SCALED:
        return rows if rows.dtype.kind == "f" else rows.astype(np.float64)
    return rows.astype(np.uint8 if task == "multilabel" else np.float32)


def statistics(y: np.ndarray, task: str) -> tuple[np.ndarray, np.ndarray] | tuple[None, None]:
    """Mean and standard deviation of each value (n,), float64; 1 for the deviation of a constant one."""
    return wide.statistics(_rows(y)) if task in SCALED else (None, None)


def trained(y: np.ndarray, task: str, mean: np.ndarray | None, std: np.ndarray | None) -> np.ndarray:
    """Targets as the loss receives them: class indices, or floats (N, ..., n), values standardised, and nan where a
    step is not graded."""
    if mean is None or std is None:
        return y if y.ndim == 1 or task == "steps" else y.astype(np.float32)
    return wide.standardise(np.ma.filled(y, np.nan), mean, std)


def two(task: str, outputs: int, steps: int) -> np.ndarray:
    """The targets of two examples, as the loss receives them: the first and the last class, or zeros."""
    if task in ("classes", "steps"):
        labels = np.array([0, outputs - 1], np.int32)
        return np.tile(labels[:, None], (1, steps)) if steps else labels
    return np.zeros((2, *[steps] * (task in IN_TIME), outputs), np.float32)


def units(y: np.ndarray, std: Any) -> dict[str, np.ndarray]:
    """What converts errors of standardised values y to shares and to their own units: their variance and std, (n,)."""
    return {"variance": _rows(y).var(0, dtype=np.float64).astype(np.float32), "std": np.asarray(std, np.float32)}


def size(y: np.ndarray, task: str) -> int:
    """How many values a target has, in time of each step."""
    return int(np.prod(y.shape[1 + (task in IN_TIME) :]))


def graded(y: np.ndarray, task: str) -> np.ndarray:
    """Which time steps are graded, (N, T)."""
    there = np.asarray(~np.ma.getmaskarray(y).reshape(*y.shape[:2], -1).all(-1))
    return there & np.ma.filled(y != -1, False) if task == "steps" else there


def _rows(y: np.ndarray) -> np.ndarray:
    """Values as rows (N, n); in time those of the steps that are graded."""
    if y.ndim == 2:
        return y
    rows = np.ma.filled(y, np.nan).reshape(-1, y.shape[-1])
    return rows[~np.isnan(rows).all(1)]


def _check_steps(split: str, y: np.ndarray, task: str) -> None:
    axes, shape = (2,), "(N, T)"
    if task == "series":
        axes, shape = (2, 3), "(N, T) or (N, T, n)"
    if y.ndim not in axes or not y.size:
        raise ValueError(f"{split} targets must be of shape {shape}, with T time steps; got {y.shape}")
    masked = np.ma.getmaskarray(y).reshape(*y.shape[:2], -1)
    if (some := masked.any(-1) != masked.all(-1)).any():
        raise ValueError(f"{split} targets: mask all values of a time step, or none{_first(some, 'time step')}")
    if not graded(y, task).any():
        raise ValueError(f"no time step of the {split} targets is graded")


def _check_classes(split: str, y: np.ndarray, task: str, classes: int) -> None:
    if y.dtype.kind not in "iu":
        raise ValueError(f"{split} labels must be whole numbers, {NUMBERED}; got {y.dtype}")
    if y.min() < -(task == "steps") or y.max() >= classes:
        unless = ", or -1 where a step is not graded" * (task == "steps")
        raise ValueError(f"{split} labels from {y.min()} to {y.max()}; they must be in 0..{classes - 1}{unless}")


def _improper(y: np.ndarray) -> int | None:
    """The first row that is not a distribution."""
    proper = (y >= 0).all(1) & (np.abs(y.sum(1, dtype=np.float64) - 1) <= SUM)
    return None if proper.all() else int(proper.argmin())


def _first(wrong: np.ndarray, axis: str = "output") -> str:
    example, *at = np.argwhere(wrong)[0]
    return f": example {example}" + f", {axis} {', '.join(map(str, at))}" * bool(at)
