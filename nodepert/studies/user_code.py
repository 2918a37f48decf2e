"""Code of the user's own, told from other code of the same name: what a run's record keeps of it.

A spec says "mine(strength=2)", and not what `mine` was when the run was trained. Of what comes with NodePert the
version is recorded; of what a process has registered or a package brings, a checksum of the code.
"""

from __future__ import annotations

import functools
import sys
import types
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from nodepert.registry import entry, resolve, within
from nodepert.studies.run import Run, checked

KINDS = ("network", "loss", "rule", "optimizer")  # data have a fingerprint of their own


def own_code(runs: Sequence[Run]) -> list[dict[str, str]]:
    """For each run {"rule mine": checksum} of whatever in its specs does not come with NodePert; each is looked at
    once. Raises UserError."""

    @functools.cache
    def code(kind: str, name: str) -> str:
        return checksum(resolve(kind, name))

    def of(run: Run) -> dict[str, str]:
        named = [(kind, name) for kind in KINDS for name in within(kind, getattr(run, kind)) if entry(kind, name).own]
        return {f"{kind} {name}": code(kind, name) for kind, name in named}

    return [of(checked(run)) for run in runs]


def checksum(code: Any) -> str:
    """Of a function or class as this Python has compiled it, with the values that it closes over, and of what it uses
    of its own package. Neither comments and docstrings nor the place where it stands change it."""
    inner = code.func if isinstance(code, functools.partial) else code
    text = "\n".join(_parts(code, _package(inner), set()))
    return f"{sys.implementation.cache_tag}-{zlib.crc32(text.encode()):08x}"


def _parts(value: Any, package: str, seen: set[int]) -> Iterator[str]:
    """What `value` consists of, as texts; of what other packages bring its name alone."""
    inner: Iterable[Any] = ()
    match value:
        case str() | int() | float() | complex() | bytes() | None:
            yield repr(value)
        case frozenset():
            yield repr(sorted(map(repr, value)))
        case tuple() | list():
            inner = value
        case dict():
            inner = value.items()
        case types.CodeType():
            yield f"{value.co_code.hex()} {value.co_names}"
            inner = value.co_consts
        case functools.partial():
            inner = (value.func, value.args, value.keywords)
        case _ if hasattr(value, "tobytes"):  # an array
            yield f"{value.dtype} {value.shape} {zlib.crc32(value.tobytes())}"
        case _ if _package(value) in ("", "nodepert") or _package(value) != package or id(value) in seen:
            yield getattr(value, "__qualname__", type(value).__qualname__)
        case types.FunctionType():
            seen.add(id(value))
            signature = value.__defaults__, value.__kwdefaults__
            inner = (_without_docstring(value), signature, *_closed_over(value), *_used(value))
        case type():
            seen.add(id(value))
            made = ("__dict__", "__weakref__", "__module__", "__doc__", "__static_attributes__", "__firstlineno__")
            inner = (value.__bases__, {k: v for k, v in vars(value).items() if k not in made})
        case _:  # what goes around a function, as jax.jit, a method or a property do; or an instance
            seen.add(id(value))
            around = [getattr(value, name, None) for name in ("__wrapped__", "__func__", "fget")]
            inner = [*around, type(value), getattr(value, "__dict__", None)]
    for one in inner:
        yield from _parts(one, package, seen)


def _without_docstring(function: types.FunctionType) -> types.CodeType:
    """Its code; the first constant is the docstring, or None."""
    code = function.__code__
    kept = tuple(c for c in code.co_consts if c is not None and (not isinstance(c, str) or c != function.__doc__))
    return code.replace(co_consts=kept)


def _package(value: Any) -> str:
    name = value.__name__ if isinstance(value, types.ModuleType) else getattr(value, "__module__", None)
    return str(name or "").partition(".")[0]


def _closed_over(function: types.FunctionType) -> Iterator[Any]:
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # a name that is not bound yet
            yield None


def _used(function: types.FunctionType) -> list[Any]:
    """What a function and those within it find under global names, and in modules of their own package."""
    names = _names(function.__code__)
    found = [value for name, value in function.__globals__.items() if name in names]
    own = [v for v in found if isinstance(v, types.ModuleType) and _package(v) == _package(function)]
    return found + [value for module in own for name, value in vars(module).items() if name in names]


def _names(code: types.CodeType) -> set[str]:
    return set(code.co_names).union(*(_names(one) for one in code.co_consts if isinstance(one, types.CodeType)))
