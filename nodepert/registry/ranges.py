"""Range checks for a factory's arguments; `registry.make` turns their ValueError into a one-line UserError."""

from __future__ import annotations

from typing import Any

from nodepert.errors import UserError


def positive(name: str, value: Any) -> None:
    """Raises ValueError unless `value` is positive and finite; a traced value is not checked."""
    if isinstance(value, int | float) and not 0 < value < float("inf"):
        raise ValueError(f"{name} must be positive and finite; got {value}")


def not_negative(name: str, value: Any) -> None:
    """Raises ValueError unless `value` is at least 0 and finite; a traced value is not checked."""
    if isinstance(value, int | float) and not 0 <= value < float("inf"):
        raise ValueError(f"{name} must be at least 0 and finite; got {value}")


def fraction(name: str, value: Any) -> None:
    """Raises ValueError unless 0 <= value < 1; a traced value is not checked."""
    if isinstance(value, int | float) and not 0 <= value < 1:
        raise ValueError(f"{name} must be at least 0 and below 1; got {value}")


def at_least(name: str, value: int, lowest: int) -> None:
    """Raises ValueError for a count below `lowest`."""
    if value < lowest:
        raise ValueError(f"{name} must be at least {lowest}; got {value}")


def check_numbers(lr: float, wd: float, seed: int) -> None:
    """Raise UserError for a learning rate, a weight shrinkage or a seed out of range."""
    if not 0 <= lr < float("inf"):
        raise UserError(f"lr (learning rate) must be finite and not negative; got {lr}")
    if not 0 <= wd < 1:
        raise UserError(f"wd (weight shrinkage per update) must be at least 0 and below 1; got {wd}")
    if not 0 <= seed < 2**31:
        raise UserError(f"seed must be in 0..2147483647; got {seed}")
