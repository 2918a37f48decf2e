"""A row of a run's table: one epoch, as plain values."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

Row: TypeAlias = dict[str, Any]  # epoch, epoch_time, train_acc, test_acc, train_loss, test_loss


def diverged(row: Row) -> bool:
    """Whether a loss of this row is not finite."""
    return not (math.isfinite(row["train_loss"]) and math.isfinite(row["test_loss"]))
