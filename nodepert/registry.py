"""What is registered under which name, and how a spec becomes the thing that it names.

The names are in `catalogue.py`; a package of its own adds one by an entry point of group `nodepert.rules`,
`nodepert.networks`, `nodepert.losses`, ... (CONTRIBUTING.md).
"""

from __future__ import annotations

import functools
import importlib
import inspect
import re
import typing
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from typing import Any, Literal

from nodepert.catalogue import ALIASES, BUILT_IN, CONTEXT, GIVES, Entry
from nodepert.signatures import Described, described, read
from nodepert.spec import BY_NODE, Spec, UserError, did_you_mean, parse, show


def names(kind: str) -> list[str]:
    """What is registered as a `kind` ("rule", "network", "loss", "dataset", "optimizer"), plug-ins included."""
    return list(table(kind))


def table(kind: str) -> dict[str, Entry]:
    """All registry lines of a kind. Raises UserError where a plug-in takes a name that is taken."""
    lines = dict(BUILT_IN[kind])
    for name, line in plugins(kind):
        if name in lines or name in ALIASES.get(kind, {}):
            owner = (name in lines and lines[name].package) or "NodePert"
            raise UserError(f"the package {line.package} brings a {kind} '{name}', but that name is taken by {owner}; "
                            "uninstall one")  # fmt: skip
        lines[name] = line
    return lines | OWN.get(kind, {})


OWN: dict[str, dict[str, Entry]] = {}  # kind, name: what `register` was given, in this process


@functools.cache
def plugins(kind: str) -> tuple[tuple[str, Entry], ...]:
    """(name, entry) of what installed packages add, by entry points of group "nodepert.rules" and so on."""
    found = entry_points(group=f"nodepert.{plural(kind)}")
    return tuple((e.name, Entry(e.value, package=e.dist.name if e.dist else e.value)) for e in found)


def plural(kind: str) -> str:
    """rules, networks, losses, ..."""
    return "losses" if kind == "loss" else f"{kind}s"


def entry(kind: str, name: str) -> Entry:
    """The registry line of one name. Raises UserError, with the valid names, for an unknown one."""
    name = ALIASES.get(kind, {}).get(name, name)
    lines = table(kind)
    if name not in lines:
        raise UserError(f"unknown {kind} '{name}'{did_you_mean(name, lines)}; there are: {', '.join(lines)}")
    return lines[name]


def check(kind: str, spec: str | Spec) -> Spec:
    """The canonical spec: name known, arguments known and of the declared type. Raises UserError."""
    spec = parse(spec) if isinstance(spec, str) else spec
    name = ALIASES.get(kind, {}).get(spec.name, spec.name)
    if name == BY_NODE and kind != "rule":
        raise UserError(f"{kind} '{spec}': only rules can be given by node")
    parameters = _parameters(kind, name)
    wrapped = [k for k, p in parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD]  # what a combinator goes around
    if len(spec.args) > len(wrapped):
        raise UserError(f"{kind} '{spec}': give its arguments by name: {_usage(parameters)}")
    any_name = next((p for p in parameters.values() if p.kind is p.VAR_KEYWORD), None)
    values: dict[str, Any] = {}
    for key, value in [*zip(wrapped, spec.args, strict=False), *spec.kwargs]:
        if key in values:
            raise UserError(f"{kind} '{spec.name}': {key} is given twice")
        parameter = any_name or parameters.get(key)
        if not parameter:
            takes = f"it takes {_usage(parameters)}" if parameters else "it takes none"
            raise UserError(f"{kind} '{spec.name}' has no argument '{key}'; {takes}")
        values[key] = _coerce(kind, f"{kind} '{spec.name}': {key}", parameter.annotation, value)
    if not values.keys() >= set(wrapped):
        raise UserError(f"{kind} '{spec.name}' goes around another {kind}, as in {name}({next(iter(names(kind)))})")
    args = tuple(values.pop(key) for key in wrapped)
    return Spec(name, args, tuple(values.items()))


def full(kind: str, spec: str | Spec) -> Spec:
    """The canonical spec with every default written out: what a run's record and identity are made of."""

    def filled(value: Any) -> Any:
        return full(kind, value) if isinstance(value, Spec) else value

    spec = check(kind, spec)
    parameters = _parameters(kind, spec.name).values()
    values = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY} | dict(spec.kwargs)
    return Spec(spec.name, tuple(map(filled, spec.args)), tuple((k, filled(v)) for k, v in values.items()))


def short(kind: str, spec: str | Spec) -> Spec:
    """The canonical spec without the arguments that equal their defaults: `full` undone, for people to read."""

    def trimmed(value: Any) -> Any:
        return short(kind, value) if isinstance(value, Spec) else value

    spec = full(kind, spec)
    defaults = {p.name: p.default for p in _parameters(kind, spec.name).values()}
    said = tuple((k, trimmed(v)) for k, v in spec.kwargs if k not in defaults or v != defaults[k])
    return Spec(spec.name, tuple(map(trimmed, spec.args)), said)


def within(kind: str, spec: str | Spec) -> list[str]:
    """The names in a spec: its own, and those of the specs in it. Raises UserError."""
    spec = check(kind, spec)
    values = [*spec.args, *(value for _, value in spec.kwargs)]
    return [spec.name, *(name for inner in values if isinstance(inner, Spec) for name in within(kind, inner))]


def make_loss(spec: str | Spec) -> Callable[..., Any]:
    """A per-example loss by spec: `make_loss("cross-entropy")(outputs, targets) -> (B,)`. Raises UserError."""
    spec = check("loss", spec)
    return functools.partial(resolve("loss", spec.name), **dict(spec.kwargs))


def make(kind: str, spec: str | Spec, *context: Any) -> Any:
    """Build what a spec names: `make("rule", "np(sigma=1e-3)", model, loss)`.

    Numeric arguments may be traced values (a Spec is a pytree whose floats are leaves, see training.py), so that
    this can be called inside a compiled step. Raises UserError for whatever the factory refuses, and for a factory of
    the user's own that gives something else than it should.
    """
    spec = check(kind, spec)
    factory = resolve(kind, spec.name)
    try:
        made = factory(*context, *spec.args, **dict(spec.kwargs))
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{kind} '{spec}': {error}") from error
    if kind in GIVES and not isinstance(made, imported(GIVES[kind])):
        due = re.sub(r"[.:].*:|:", ".", GIVES[kind]).replace("nodepert", "npt")
        raise UserError(f"{kind} '{spec}' gives {type(made).__name__}; its factory must give {due}")
    return made


def imported(target: str) -> Any:
    """What "module:attribute" stands for."""
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)


def resolve(kind: str, name: str) -> Callable[..., Any]:
    """The registered factory itself. Raises UserError where a plug-in's cannot be imported."""
    line = entry(kind, name)
    if line.factory:
        return line.factory
    try:
        return imported(line.target)
    except Exception as error:
        if not line.package:
            raise
        raise UserError(f"the {kind} '{name}' of the package {line.package} cannot be imported: "
                        f"{type(error).__name__}: {error}") from error  # fmt: skip


def usage(kind: str, name: str) -> str:
    """The arguments a spec of this name takes, with their defaults: 'sigma=0.001, samples=1'."""
    return _usage(_parameters(kind, name))


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


def _parameters(kind: str, name: str) -> dict[str, inspect.Parameter]:
    return {p.name: p for p in _described(kind, name).parameters[CONTEXT[kind] :]}


def _described(kind: str, name: str) -> Described:
    """Signature and docstring: of what comes with NodePert without importing it, of a plug-in by importing it."""
    line = entry(kind, name)
    return (None if line.own else read(line.target)) or described(resolve(kind, name))


def _usage(parameters: dict[str, inspect.Parameter]) -> str:
    def options(p: inspect.Parameter) -> str:
        others = [str(v) for v in typing.get_args(p.annotation) if v != p.default]
        return f" (or {', '.join(others)})" if typing.get_origin(p.annotation) is Literal else ""

    named = [p for p in parameters.values() if p.kind is not p.VAR_KEYWORD]
    return ", ".join(p.name if p.default is p.empty else f"{p.name}={show(p.default)}{options(p)}" for p in named)


def _coerce(kind: str, what: str, annotation: Any, value: Any) -> Any:
    """Hold a value against its annotation: float (may be traced), int, bool, str or Literal (static), Spec (nested)."""
    if annotation is Spec:
        if not isinstance(value, str | Spec):
            raise UserError(f"{what} must be a {kind}; got {show(value)}")
        return check(kind, value)
    if typing.get_origin(annotation) is Literal:
        options = typing.get_args(annotation)
        if value not in options:
            raise UserError(f"{what} must be one of {', '.join(map(str, options))}; got {show(value)}")
        return value
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if annotation is float:
        if isinstance(value, str | bool | None | Spec):
            raise UserError(f"{what} must be a number; got {show(value)}")
        return to_float(what, value) if number else value  # else: a traced value, taken as it is
    if annotation in (int, bool, str) and (not isinstance(value, annotation) or (annotation is int and not number)):
        noun = {int: "a whole number", bool: "True or False", str: "a word"}[annotation]
        raise UserError(f"{what} must be {noun}; got {show(value)}")
    if isinstance(value, int) and abs(value) >= 2**31:
        raise UserError(f"{what} must be below 2**31; got {value}")
    return value


def to_float(what: str, value: Any) -> float:
    """float(value), where a whole number too large for it is the user's error."""
    try:
        return float(value)
    except OverflowError:
        raise UserError(f"{what} is too large for a float") from None


def everything() -> Iterator[tuple[str, str, Entry]]:
    """All registered (kind, name, entry)."""
    for kind in BUILT_IN:
        for name, line in table(kind).items():
            yield kind, name, line
