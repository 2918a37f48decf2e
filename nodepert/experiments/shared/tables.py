"""Tables of rows: some of them, columns, means over what else varies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from nodepert.experiments.experiment import Row
from nodepert.training.metrics import mean_error


def where(rows: Sequence[Row], **columns: Any) -> list[Row]:
    """The rows that have these values."""
    return [row for row in rows if all(row[name] == value for name, value in columns.items())]


def finite(rows: Sequence[Row], of: str) -> list[float]:
    """The finite values of a column."""
    return [row[of] for row in rows if math.isfinite(row[of])]


def gathered(rows: Sequence[Row], by: str, of: str) -> dict[Any, list[float]]:
    """{value of the column `by`: the finite values of the column `of`}, in the order of the rows."""
    found: dict[Any, list[Row]] = {}
    for row in rows:
        found.setdefault(row[by], []).append(row)
    return {key: finite(own, of) for key, own in found.items()}


def means(rows: Sequence[Row], by: str, of: str) -> dict[Any, tuple[float, float]]:
    """{value of the column `by`: mean and standard error of the finite values of the column `of`}."""
    return {key: mean_error(values) for key, values in gathered(rows, by, of).items()}


def best_rate(rows: Sequence[Row], of: str, **at: Any) -> float:
    """The learning rate of the rows with the lowest mean of the column `of`, where the rows have the values `at`; those
    at which most of them are finite come first."""
    found = {lr: finite(where(rows, lr=lr, **at), of) for lr in dict.fromkeys(row["lr"] for row in rows)}
    return min(found, key=lambda lr: (-len(found[lr]), sum(found[lr])))
