"""When a training run crashes, that is, loses within a few epochs what it has learned."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from nodepert.experiments.experiment import Row
from nodepert.training.metrics import diverged

DROP, FLOOR = 25.0, 25.0  # percentage points below the best so far; per cent, above which a run has trained


class Fate(NamedTuple):
    """Whether and when a run crashed, and what it had reached."""

    crash: int | None  # the epoch of its crash
    best: float  # the highest test accuracy, in per cent: before the crash, where there is one
    trained: bool  # whether that is above the floor


def crash_epoch(accuracies: Sequence[float], drop: float = DROP, floor: float = FLOOR) -> int | None:
    """The first epoch, from 0 on, whose accuracy is more than `drop` below the highest before it, once that is above
    `floor`; nan is below everything. None where there is no such epoch."""
    best = -math.inf
    for epoch, accuracy in enumerate(accuracies):
        if best > floor and not accuracy >= best - drop:  # `not >=`: nan counts
            return epoch
        best = max(best, accuracy)  # of nan, `best` stays
    return None


def fate(rows: Sequence[Row], drop: float = DROP, floor: float = FLOOR) -> Fate:
    """The fate of a run, from its rows of all epochs from 0 on; a loss that is not finite is a crash."""
    accuracies = [math.nan if diverged(row) else row["test_acc"] for row in rows]
    crash = crash_epoch(accuracies, drop, floor)
    best = max((a for a in accuracies[:crash] if math.isfinite(a)), default=math.nan)
    return Fate(crash, best, best > floor)
