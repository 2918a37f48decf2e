"""Which functions were tested, and in which cases, for as long as a function exists."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from jax.core import Tracer

ALL = "all"  # a case: the function needs no test
HELD = 32  # functions without weak references, the latest of which are held

_tested: dict[tuple[int, ...], tuple[Any, set[Any]]] = {}  # ids of what a function is -> references to it, its cases
_held: deque[tuple[int, ...]] = deque()


def accept(function: Callable[..., Any]) -> None:
    """Exempt a loss, or the `apply` of a network, from the test that examples do not mix."""
    cases(function).add(ALL)


def cases(function: Callable[..., Any]) -> set[Any]:
    """The cases that a function has passed, to which more may be added."""
    parts = _parts(function)
    key = tuple(map(id, parts))  # a function may have no hash
    if key in _tested and all(of() is part for of, part in zip(_tested[key][0], parts, strict=True)):
        return _tested[key][1]
    try:
        references = [weakref.ref(part, lambda _: _tested.pop(key, None)) for part in parts]
    except TypeError:
        references = [lambda part=part: part for part in parts]
        _held.append(key)
        if len(_held) > HELD:
            _tested.pop(_held.popleft(), None)
    _tested[key] = references, set()
    return _tested[key][1]


def _parts(function: Callable[..., Any]) -> tuple[Any, ...]:
    """What is the same at every use of a function: `obj.method` and `partial(f, 2.0)` are new objects each time."""
    if hasattr(function, "__self__") and hasattr(function, "__func__"):
        return function.__self__, function.__func__
    if isinstance(function, partial):
        given = *function.args, *function.keywords, *function.keywords.values()
        if not any(isinstance(value, Tracer) for value in given):  # to hold one would be a leak
            return *_parts(function.func), *given
    return (function,)
