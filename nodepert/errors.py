"""Errors that the user can fix."""

from __future__ import annotations

import os
from collections.abc import Iterable
from difflib import get_close_matches

import nodepert


class UserError(ValueError):
    """Something the user can put right. The command line prints it as one line and exits with status 2."""


def first_line(error: BaseException) -> str:
    """The first line of an error's text."""
    return str(error).strip().partition("\n")[0]


def reason(error: OSError) -> str:
    """Why a file cannot be read or written; of a process whose working directory was deleted, that."""
    if not has_cwd():
        return "the working directory no longer exists (change to another one)"
    return (error.strerror or str(error) or type(error).__name__).lower()


def refuse_fork() -> None:
    """Raises UserError in a process that cannot compute, since it was forked from one in which JAX had started."""
    if nodepert.forked:
        raise UserError("this process was forked from one that uses JAX, and JAX would wait for threads that only its "
                        "parent has; start processes by multiprocessing.get_context('spawn')")  # fmt: skip


def has_cwd() -> bool:
    """Whether the working directory exists."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True


def did_you_mean(word: str, there: Iterable[str]) -> str:
    """ " (did you mean 'x'?)" for the closest of the valid words; "" if none is close."""
    near = get_close_matches(word, list(there), n=1, cutoff=0.5 if len(word) < 4 else 0.6)
    return f" (did you mean '{near[0]}'?)" if near else ""
