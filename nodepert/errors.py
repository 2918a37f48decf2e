"""Errors that the user can fix."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """Something the user can put right. The command line prints it as one line and exits with status 2."""


def did_you_mean(word: str, there: Iterable[str]) -> str:
    """ " (did you mean 'x'?)" for the closest of the valid words; "" if none is close."""
    near = get_close_matches(word, list(there), n=1, cutoff=0.5 if len(word) < 4 else 0.6)
    return f" (did you mean '{near[0]}'?)" if near else ""
