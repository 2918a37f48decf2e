"""A command line as it is read, by tyro: what is wrong with it is said in one line, in the words of this program."""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Callable, Iterator
from functools import partial, wraps
from typing import Annotated, Any

import tyro

from nodepert.errors import UserError, did_you_mean

given: list[str] = []  # the words after `nodepert` as they were typed, for hints that say what to type again


def _some(words: list[str]) -> tuple[str, ...]:
    if not words:
        raise ValueError("needs a value")
    return tuple(words)


# An option that takes one text or several: without any, what was meant is not known.
Words = Annotated[
    tuple[str, ...],
    tyro.constructors.PrimitiveConstructorSpec(
        nargs="*", metavar="STR [STR ...]", instance_from_str=_some, str_from_instance=list,
        is_instance=lambda value: isinstance(value, tuple),
    ),
]  # fmt: skip


def asked(ask: Callable[[], Any], command: str) -> Any:
    """What tyro makes of the line of a command. Raises UserError for one that is wrong."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            return ask()
    except SystemExit as stop:
        if not stop.code:
            raise
    said = io.StringIO()
    with _wide(), contextlib.redirect_stderr(said), contextlib.suppress(SystemExit):
        ask()
    raise UserError(f"{in_one_line(said.getvalue())} (see {command} --help)")


@contextlib.contextmanager
def _wide() -> Iterator[None]:
    """A terminal so wide that no sentence in a box is broken."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "10000"
    try:
        yield
    finally:
        del os.environ["COLUMNS"]
        os.environ |= {"COLUMNS": before} if before is not None else {}


def later(command: Callable[..., None], brief: bool = False) -> Callable[..., Callable[[], None]]:
    """What tyro calls: gives the command with its arguments. `brief`: as a list of all commands tells of it."""

    @wraps(command)
    def bound(*args, **kwargs):
        return partial(command, *args, **kwargs)

    if brief:
        bound.__doc__ = (command.__doc__ or "").partition("\n\n")[0]
    return bound


NOUNS = {"INT": "a whole number", "FLOAT": "a number"}


def in_one_line(box: str) -> str:
    """What is wrong, of the box that tyro frames it in."""
    box = re.sub(r"\x1b\[[0-9;]*m", "", box)  # colours, on a terminal
    text = " ".join(" ".join(line.strip("│| ") for line in box.splitlines()[1:-1]).split())
    parts = [part.strip() for part in re.split("[─-]{5,}", text) if part.strip()]  # hyphens where there is no UTF-8
    first = next((part for part in parts if part.startswith("Unrecognized")), parts[0])  # rather than what is missing
    return _reworded(first, " | ".join(parts))


def _reworded(said: str, more: str) -> str:
    """A sentence of tyro's in our words; one that is not known stays as it is. `more`: all that its box says."""
    if found := re.match(r"Unrecognized (?:or misplaced )?options: (-\S*?)(?:,? |,?$)", said):
        near = re.search(rf"(?:Perhaps you meant|similar to {found[1]}): (--[\w-]+)", more)
        return f"unknown option {found[1]}" + (f" (did you mean {near[1]}?)" if near and near[1] != found[1] else "")
    if found := re.match(r"Unrecognized (?:or misplaced )?options: (.*)", said):
        if not (commands := re.search(r"Available subcommands: ([\w, -]*\w)", more)):
            return f"there is no place for '{found[1]}' here"
        there, word = commands[1].split(", "), found[1].split(", ")[0]
        return f"unknown command '{word}'{did_you_mean(word, there)}; there are: {commands[1]}"
    if found := re.match(r"Expected one of \{(.*)\}", said):
        return f"which command? there are: {found[1]}"
    if found := re.match(r"Missing from (nodepert[ \w-]*): (\S+)", said):
        return f"{found[1]} needs {found[2]}"
    if found := re.match(r"Missing value for argument '(.*?)'", said):
        return f"{found[1]} needs a value"
    if found := re.match(r"invalid choice '(.*)' for argument '(.*)'\. Expected one of \((.*)\)", said):
        there = re.findall(r"'(.*?)'", found[3])
        hint = did_you_mean(found[1], there)
        return f"{found[2]} must be one of {', '.join(there)}; got '{found[1]}'{hint}"
    if found := re.match(r"Error parsing (\S+): (.*)", said):
        noun = next((noun for kind, noun in NOUNS.items() if re.search(rf"\b{kind}\b", f"{said} {more}")), "")
        got = re.search(r"(?:from|arguments:) \[(.*?)\]|: ('[^']*')$", found[2])
        return f"{found[1]} must be {noun}; got {got[1] or got[2]}" if noun and got else f"{found[1]} {found[2]}"
    return said
