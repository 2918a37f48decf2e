"""A row of a run's table: one epoch, as plain values; and the mean of such values with its error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Any, TypeAlias

Row: TypeAlias = dict[str, Any]  # epoch, epoch_time, train_acc, test_acc, train_loss, test_loss


def diverged(row: Row) -> bool:
    """Whether a loss of this row is not finite."""
    return not (math.isfinite(row["train_loss"]) and math.isfinite(row["test_loss"]))


def mean_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard error; (nan, 0) of none, and an error of 0 of one."""
    if not values:
        return math.nan, 0.0
    return fmean(values), stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
