"""What a registered name takes and says of itself: signature, one sentence, and facts of its docstring."""

from __future__ import annotations

import inspect
import re
import typing
from typing import Literal

from nodepert.registry.catalogue import CONTEXT
from nodepert.registry.signatures import Described, described, read
from nodepert.registry.spec import show
from nodepert.registry.table import entry, resolve


def usage(kind: str, name: str) -> str:
    """The arguments a spec of this name takes, with their defaults: 'sigma=0.001, samples=1'."""
    return usage_of(parameters(kind, name))


def about(kind: str, name: str) -> str:
    """One sentence: the registry's, or a plug-in's first line of docstring."""
    return entry(kind, name).about or (_described(kind, name).doc or "(no docstring)").splitlines()[0]


def facts(kind: str, name: str) -> dict[str, str]:
    """What a docstring says in its paragraphs "Cost: ...", "Bias: ..." and "Derivative of the loss: ..."."""
    return said(_described(kind, name).doc)


def said(docstring: str) -> dict[str, str]:
    """`facts` of a docstring."""
    found = re.findall(
        r"^(Cost|Bias|Derivative of the loss): (.+?)(?=\n\n|\n(?:Cost|Bias|Derivative)|\Z)", docstring, re.M | re.S
    )
    return {label: " ".join(words.split()) for label, words in found}


def parameters(kind: str, name: str) -> dict[str, inspect.Parameter]:
    return {p.name: p for p in _described(kind, name).parameters[CONTEXT[kind] :]}


def _described(kind: str, name: str) -> Described:
    """Signature and docstring: of what comes with NodePert without importing it, of a plug-in by importing it."""
    line = entry(kind, name)
    return (None if line.own else read(line.target)) or described(resolve(kind, name))


def usage_of(parameters: dict[str, inspect.Parameter]) -> str:
    def options(p: inspect.Parameter) -> str:
        others = [str(v) for v in typing.get_args(p.annotation) if v != p.default]
        return f" (or {', '.join(others)})" if typing.get_origin(p.annotation) is Literal else ""

    named = [p for p in parameters.values() if p.kind is not p.VAR_KEYWORD]
    return ", ".join(
        p.name if p.default in (p.empty, None) else f"{p.name}={show(p.default)}{options(p)}" for p in named
    )
