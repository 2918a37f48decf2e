"""Objects in place of specs: each has a name of its own in this process, for as long as a run holds its line."""

from __future__ import annotations

import functools
import inspect
import re
from itertools import count
from typing import Any
from weakref import WeakValueDictionary

from nodepert.errors import UserError
from nodepert.registry.catalogue import ALIASES
from nodepert.registry.describe import expressible
from nodepert.registry.entry import Entry
from nodepert.registry.lines import imported, line_of
from nodepert.registry.spec import Spec, parse
from nodepert.registry.table import GIVEN, OWN, entry, table
from nodepert.registry.validate import plain, within


def spec_of(kind: str, given: Any) -> tuple[Spec, Entry | None]:
    """The spec of an object, and its registry line, which must be held for as long as the spec is used.

    What is registered has its registered name; a `functools.partial` of a factory is a spec with arguments, so that
    its numbers can be traced. Raises UserError for what is no object of this kind.
    """
    if isinstance(given, Spec):
        return given, None
    if isinstance(given, functools.partial) and not given.args:
        arguments = {key: plain(value) for key, value in given.keywords.items()}
        if all(map(expressible, arguments.values())):
            name, line = _named(kind, given.func)
            return Spec(name, (), tuple(arguments.items())), line
    name, line = _named(kind, given)
    return Spec(name), line


def given_in(specs: dict[str, Spec]) -> dict[tuple[str, str], Entry]:
    """{(kind, name): line} of the objects in specs that have no registered name."""
    found = [(kind, name) for kind, spec in specs.items() if GIVEN.get(kind) for name in within(kind, spec)]
    return {(kind, name): entry(kind, name) for kind, name in found if name not in table(kind)}


def is_given(kind: str, text: str) -> bool:
    """Whether a spec has an object without a registered name."""
    try:
        return bool(given_in({kind: parse(text)}))
    except UserError:  # a name of another process
        return False


def has_object(kind: str, spec: Spec) -> bool:
    """Whether a spec names an object, registered or not, and no factory."""
    if not (OWN.get(kind) or GIVEN.get(kind)):
        return False
    return any(entry(kind, name).given is not None for name in within(kind, spec))


def _named(kind: str, given: Any) -> tuple[str, Entry]:
    """The name and the line of an object; a new one's are valid while the line is held."""
    new = None
    if kind == "dataset" and not callable(given):  # arrays are the same data set as a data set with these arrays
        new = line_of(kind, given, kind)
        given = new.given
    for name, line in [*OWN.get(kind, {}).items(), *GIVEN.get(kind, {}).items()]:
        if _same(line.factory if line.given is None else line.given, given):
            return name, line
    target = f"{getattr(given, '__module__', '')}:{getattr(given, '__qualname__', '')}"
    for name, line in table(kind).items():
        if line.target == target and imported(target) is given:
            return name, line
    name = _free(kind, given)
    line = new or line_of(kind, given, name)
    GIVEN.setdefault(kind, WeakValueDictionary())[name] = line
    return name, line


def _same(one: Any, other: Any) -> bool:
    if one is other or (inspect.ismethod(one) and one == other):
        return True
    if hasattr(one, "train_x") and hasattr(other, "train_x"):
        return imported("nodepert.data.given:same")(one, other)
    return False


def _free(kind: str, given: Any) -> str:
    """A name for an object that no other has: its own, or that of its type."""
    function = given.func if isinstance(given, functools.partial) else given
    own = getattr(function, "__name__", None) or getattr(given, "name", None)
    text = re.sub(r"\W+", "_", own if isinstance(own, str) else type(given).__name__).strip("_")
    text = "optax" if text.startswith("GradientTransformation") else text
    try:
        text = text if parse(text) == Spec(text) else kind
    except UserError:
        text = kind
    taken = {*table(kind), *ALIASES.get(kind, {}), *GIVEN.get(kind, {})}
    return next(name for i in count(1) if (name := text if i == 1 else f"{text}_{i}") not in taken)
