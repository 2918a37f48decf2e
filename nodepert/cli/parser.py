"""Parse a command line with tyro; report a wrong one in one line."""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Callable
from functools import partial, wraps
from typing import Annotated, Any, TypeAlias

import tyro

from nodepert.errors import UserError, did_you_mean

given: list[str] = []  # the words after `nodepert`, for hints that repeat the command


def _nonempty(words: list[str]) -> tuple[str, ...]:
    if not words:
        raise ValueError("needs a value")
    return tuple(words)


_ONE_OR_MORE = tyro.constructors.PrimitiveConstructorSpec(
    "*", "STR [STR ...]", _nonempty, lambda value: isinstance(value, tuple), list
)
Words: TypeAlias = Annotated[tuple[str, ...], _ONE_OR_MORE]  # an option with one or more texts


def parsed(ask: Callable[[], Any], command: str) -> Any:
    """The result of `ask`, which calls tyro. Raises UserError for a wrong command line."""
    box, columns = io.StringIO(), os.environ.get("COLUMNS")
    if not {"-h", "--help"} & {*given}:
        os.environ["COLUMNS"] = "10000"  # a wide box breaks no sentence
    try:
        with contextlib.redirect_stderr(box):
            return ask()
    except SystemExit as stop:
        if not stop.code:
            raise
    finally:
        os.environ.pop("COLUMNS", None)
        os.environ |= {"COLUMNS": columns} if columns else {}
    raise UserError(f"{one_line(box.getvalue())} (see {command} --help)")


def was_given(option: str) -> bool:
    """Whether the command line has this option."""
    return any(word.partition("=")[0] == option for word in given)


def bound(command: Callable[..., None]) -> Callable[..., Callable[[], None]]:
    """A function for tyro that returns the command with its arguments."""

    @wraps(command)
    def bind(*args, **kwargs):
        return partial(command, *args, **kwargs)

    return bind


def named(command: Callable[..., None]) -> Callable[[], None]:
    """A function for tyro with the name and the first paragraph of a command, and without its options."""

    def stub() -> None: ...

    stub.__doc__ = (command.__doc__ or "").partition("\n\n")[0]
    return stub


def one_line(box: str) -> str:
    """The message in a box drawn by tyro, whose public interface has no structured errors."""
    box = re.sub(r"\x1b\[[0-9;]*m", "", box)  # colours
    text = " ".join(word for line in box.splitlines()[1:] for word in line.strip("│| ").split())
    if found := re.search(r"Unrecognized (?:or misplaced )?options: ([^\s,]+)", text):
        word, near = found[1], re.search(rf"(?:meant|similar to {re.escape(found[1])}): (--[\w-]+)", text)
        if word.startswith("-"):
            return f"unknown option {word}" + (f" (did you mean {near[1]}?)" if near and near[1] != word else "")
        if there := re.search(r"Available subcommands: ([\w, -]*\w)", text):
            return f"unknown command '{word}'{did_you_mean(word, there[1].split(', '))}; there are: {there[1]}"
        return f"unexpected argument '{word}'"
    if found := re.match(r"Missing from (nodepert[ \w-]*): (\S+)", text):
        return f"{found[1]} needs {found[2]}"
    if (found := re.match(r"Error parsing (\S+): .*?('.*?')(?=\]| [─-])", text)) and re.search("INT|FLOAT", text):
        return f"{found[1]} must be a {'whole ' * ('INT' in text)}number; got {found[2]}"
    return re.sub(r"\.? [─-]{5,}.*|^Error parsing (\S+):", r"\1", text)
