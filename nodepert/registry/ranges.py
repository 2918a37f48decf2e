"""Range checks of a factory's arguments; `registry.make` turns what they raise into a user's one-line error."""

from __future__ import annotations

from typing import Any


def positive(name: str, value: Any) -> None:
    """Raise ValueError unless value is positive and finite; a traced value is taken as it is."""
    if isinstance(value, int | float) and not 0 < value < float("inf"):
        raise ValueError(f"{name} must be positive and finite; got {value}")


def fraction(name: str, value: Any) -> None:
    """Raise ValueError unless 0 <= value < 1; a traced value is taken as it is."""
    if isinstance(value, int | float) and not 0 <= value < 1:
        raise ValueError(f"{name} must be at least 0 and below 1; got {value}")


def at_least(name: str, value: int, least: int) -> None:
    """Raise ValueError for a count below `least`."""
    if value < least:
        raise ValueError(f"{name} must be at least {least}; got {value}")
