"""What a registered name takes and declares: arguments, a sentence, cost, bias, training examples."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import Callable
from typing import Any, Literal

from nodepert.registry.catalogue import CONTEXT
from nodepert.registry.signatures import Described, described, read
from nodepert.registry.spec import Spec, parse, show
from nodepert.registry.table import entry, resolve


def usage(kind: str, name: str) -> str:
    """The arguments of a spec, with their defaults: 'sigma=0.001, samples=1'."""
    return usage_of(parameters(kind, name))


def about(kind: str, name: str) -> str:
    """One sentence: the registry's, or the first line of a plug-in's docstring."""
    return entry(kind, name).about or (_described(kind, name).doc or "(no docstring)").splitlines()[0]


def passes(rule: str) -> int | None:
    """Forward passes per step of a rule, given as a spec; None where none are declared.

    Declared by `passes` in the registry line, in `register`, or as an attribute of a plug-in's factory: a number, or a
    function of the spec's arguments (defaults filled in) for a cost that depends on them.
    """
    spec = parse(rule)
    line = entry("rule", spec.name)
    declared: Any = line.passes
    if declared is None and line.own:
        declared = getattr(resolve("rule", spec.name), "passes", None)
    if not isinstance(declared, Callable):
        return declared
    return declared(**{k: p.default for k, p in parameters("rule", spec.name).items()} | dict(spec.kwargs))


def examples(dataset: str) -> int | None:
    """Training examples of a data set, given as a spec: its `train=`, else the number declared in the registry line."""
    spec = parse(dataset)
    return dict(spec.kwargs).get("train") or entry("dataset", spec.name).examples


def facts(kind: str, name: str) -> dict[str, str]:
    """The paragraphs "Cost", "Bias" and "Derivative of the loss" of a docstring; Cost begins with a declared number."""
    found = said(_described(kind, name).doc)
    if kind == "rule" and (number := passes(name)) is not None:
        cost = [f"{number} forward passes per step", *([found["Cost"]] if "Cost" in found else [])]
        found = {"Cost": ": ".join(cost)} | {k: v for k, v in found.items() if k != "Cost"}
    if kind == "rule" and (lr := entry(kind, name).lr):
        found["Learning rate"] = f"{lr:g}, measured with Adam and cross-entropy for fc(width=100) on mnist5k"
    return found


def said(docstring: str) -> dict[str, str]:
    """The paragraphs of a docstring that `facts` reads, each as one line."""
    found = re.findall(
        r"^(Cost|Bias|Derivative of the loss): (.+?)(?=\n\n|\n(?:Cost|Bias|Derivative)|\Z)", docstring, re.M | re.S
    )
    return {label: " ".join(words.split()) for label, words in found}


def parameters(kind: str, name: str) -> dict[str, inspect.Parameter]:
    """The parameters of a factory that belong to the spec, by name.

    Positional ones that are annotated Spec are the specs that it wraps; all others are given by name. A parameter whose
    default no spec can express, as in `lambda data_dir, data=data: data`, is the factory's own.
    """
    found = {}
    for p in _described(kind, name).parameters[CONTEXT[kind] :]:
        if expressible(p.default):
            option = p.kind is p.POSITIONAL_OR_KEYWORD and p.annotation is not Spec
            found[p.name] = p.replace(kind=p.KEYWORD_ONLY) if option else p
    return found


def expressible(default: Any) -> bool:
    """Whether a spec can have this value, or none is given."""
    if type(default) in (list, tuple):
        return all(map(expressible, default))
    if type(default) is dict:
        return all(map(expressible, default.values()))
    return default is None or default is inspect.Parameter.empty or isinstance(default, bool | int | float | str | Spec)


def _described(kind: str, name: str) -> Described:
    """Signature and docstring: a built-in's read from its source, a plug-in's by importing it."""
    line = entry(kind, name)
    return (None if line.own else read(line.target)) or described(resolve(kind, name))


def usage_of(parameters: dict[str, inspect.Parameter]) -> str:
    """Parameters as `usage` shows them."""

    def options(p: inspect.Parameter) -> str:
        others = [str(v) for v in typing.get_args(p.annotation) if v != p.default]
        return f" (or {', '.join(others)})" if typing.get_origin(p.annotation) is Literal else ""

    named = [p for p in parameters.values() if p.kind is not p.VAR_KEYWORD]
    return ", ".join(
        p.name if p.default in (p.empty, None) else f"{p.name}={show(p.default)}{options(p)}" for p in named
    )
