"""Spec strings: `name`, `name(arg=value, ...)`, or a map from nodes to specs, `np; out=exact`.

A spec is parsed as a Python expression and never evaluated; values are literals, bare words (strings) or nested specs:
`np(samples=4, noise=rademacher)`, `decorrelate(np(sigma=1e-3))`. The same string is command-line argument,
configuration, plot legend and part of a run's identity. The names are resolved by the registry (table.py).
"""

from __future__ import annotations

import ast
import keyword
import re
import threading
import warnings
from dataclasses import dataclass
from typing import Any

from nodepert.errors import UserError

PARSING = threading.Lock()  # Python 3.11 counts the depth of trees, and Python the filters of warnings, for all threads
BY_NODE = "by-node"  # the name of a map; its kwargs are node patterns


@dataclass(frozen=True)
class Spec:
    """A parsed spec; `str` returns its canonical form."""

    name: str
    args: tuple[Any, ...] = ()
    kwargs: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        if self.name == BY_NODE:
            return "; ".join(str(v) if (i, k) == (0, "*") else f"{k}={v}" for i, (k, v) in enumerate(self.kwargs))
        parts = [show(v) for v in self.args] + [f"{k}={show(v)}" for k, v in self.kwargs]
        return f"{self.name}({', '.join(parts)})" if parts else self.name


def parse(text: str) -> Spec:
    """Parse a spec string, without evaluating or importing anything.

    Raises UserError for a text other than `name`, `name(arg=value, ...)` or a map of these.
    """
    if len(text) > 1000:
        raise UserError(f"a spec has at most 1,000 characters; this one has {len(text):,}")
    items = [re.fullmatch(r"\s*(?:([^\s=()'\";]+)\s*=)?(.*)", item, re.DOTALL) for item in split(text)]
    if len(items) == 1 and items[0] and not items[0][1]:
        return _single(text)
    pairs: list[tuple[str, Spec]] = []
    for i, item in enumerate(items):
        if not item or not (item[1] or i == 0):
            raise UserError(f"cannot read {text!r}: a map is 'rule; node=rule; ...', as in 'np; out=exact'")
        pairs.append((item[1] or "*", _single(item[2])))
    if len({pattern for pattern, _ in pairs}) < len(pairs):
        raise UserError(f"cannot read {text!r}: a pattern of nodes is given twice")
    return Spec(BY_NODE, (), tuple(pairs))


def split(text: str) -> list[str]:
    """The parts of a text between semicolons outside brackets and quotes."""
    parts, depth, quote = [""], 0, ""
    for c in text:
        if quote:
            quote = "" if c == quote else quote
        elif c in "'\"":
            quote = c
        elif c in "()":
            depth += 1 if c == "(" else -1
        elif c == ";" and depth == 0:
            parts.append("")
            continue
        parts[-1] += c
    return parts


def show(value: Any) -> str:
    """A value as written in a spec."""
    if isinstance(value, Spec):
        return repr(str(value)) if value.name == BY_NODE else str(value)
    bare = isinstance(value, str) and re.fullmatch(_WORD, value) and not keyword.iskeyword(value)
    return str(value) if bare else repr(value)


_HYPHEN = "\u01c0"  # a letter to Python that no name contains
_WORD = r"[A-Za-z_][A-Za-z0-9_]*(-[A-Za-z][A-Za-z0-9_]*)*"  # a string that needs no quotes


def _single(text: str) -> Spec:
    # 'conv-large' is one name, not a difference: hide its hyphen from Python's grammar.
    hidden = re.sub(r"(?<=\w)-(?=[A-Za-z])", _HYPHEN, text.strip())
    try:
        with PARSING, warnings.catch_warnings():
            warnings.simplefilter("error")  # a SyntaxWarning about an odd literal is an error too
            node = ast.parse(hidden, mode="eval").body
        value = _value(node)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        value = None
    if isinstance(value, str) and isinstance(node, ast.Name):
        return Spec(value)
    if isinstance(value, Spec):
        return value
    quotes = "; quote other texts, as in path='a.csv'" * bool(re.search(r"=\s*[^\s'\"(),\d-][^'\"(),]*[./\\]", text))
    raise UserError(
        f"cannot read {text!r}: write a name, or name(arg=value, ...), as in np(sigma=1e-3, samples=4){quotes}"
    )


def _value(node: ast.expr) -> Any:
    """A literal, a bare word or a nested spec. Raises ValueError for anything else."""
    match node:
        case ast.Name(id):
            return id.replace(_HYPHEN, "-")
        case ast.Constant(str() as value):
            return value.replace(_HYPHEN, "-")
        case ast.Constant(bool() | int() | float() | None as value):
            return value
        case ast.UnaryOp(ast.USub(), ast.Constant(int() | float() as value)) if not isinstance(value, bool):
            return -value
        case ast.Call(ast.Name(id), args, keywords) if all(k.arg for k in keywords):
            pairs = tuple((str(k.arg), _value(k.value)) for k in keywords)
            return Spec(id.replace(_HYPHEN, "-"), tuple(map(_value, args)), pairs)
    raise ValueError(ast.dump(node))
