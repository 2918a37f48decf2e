"""Specs validated against the signatures that they name, and their two forms: all defaults filled in, or none."""

from __future__ import annotations

import typing
from typing import Any, Literal

from nodepert.errors import UserError
from nodepert.registry.catalogue import ALIASES, BUILT_IN
from nodepert.registry.describe import parameters, usage_of
from nodepert.registry.spec import BY_NODE, Spec, parse, show
from nodepert.registry.table import entry, names


def check(kind: str, spec: str | Spec) -> Spec:
    """The canonical spec: aliases resolved, values converted. Raises UserError for a wrong name or argument."""
    if not isinstance(spec, str | Spec):
        raise UserError(f"a {kind} is named by a string, as in '{next(iter(names(kind)))}'; got {spec!r}")
    spec = parse(spec) if isinstance(spec, str) else spec
    name = ALIASES.get(kind, {}).get(spec.name, spec.name)
    if name == BY_NODE and kind != "rule":
        raise UserError(f"{kind} '{spec}': only rules can be assigned to nodes by a map")
    takes = parameters(kind, name)
    wrapped = [k for k, p in takes.items() if p.kind is p.POSITIONAL_OR_KEYWORD]  # the specs that it wraps
    if len(spec.args) > len(wrapped):
        raise UserError(f"{kind} '{spec}': give its arguments by name: {usage_of(takes)}")
    any_name = next((p for p in takes.values() if p.kind is p.VAR_KEYWORD), None)
    values: dict[str, Any] = {}
    for key, value in [*zip(wrapped, spec.args, strict=False), *spec.kwargs]:
        if key in values:
            raise UserError(f"{kind} '{spec.name}': {key} is given twice")
        parameter = any_name or takes.get(key)
        if not parameter:
            known = f"it takes {usage_of(takes)}" if takes else "it takes none"
            raise UserError(f"{kind} '{spec.name}' has no argument '{key}'; {known}")
        what, of = f"{kind} '{spec.name}': {key}", kind_of(key, spec, kind)
        values[key] = _coerce(of, what, parameter.annotation, value, parameter.default)
    if not values.keys() >= set(wrapped):
        raise UserError(f"{kind} '{spec.name}' wraps another {kind}, as in {name}({next(iter(names(kind)))})")
    required = (key for key, p in takes.items() if p.kind is p.KEYWORD_ONLY and p.default is p.empty)
    if missing := [key for key in required if key not in values]:
        raise UserError(f"{kind} '{spec.name}' needs the argument '{missing[0]}', as in {name}({missing[0]}=...)")
    args = tuple(values.pop(key) for key in wrapped)
    return Spec(name, args, tuple(values.items()))


def full(kind: str, spec: str | Spec) -> Spec:
    """The canonical spec with all defaults filled in, as in a run's record and identity.

    Only the defaults of arguments that a later version has added are left out, so that identities stay as they are.
    """

    given = check(kind, spec)

    def filled(value: Any, key: str = "") -> Any:
        return full(kind_of(key, given, kind), value) if isinstance(value, Spec) else value

    later = entry(kind, given.name).later
    defaults = {p.name: p.default for p in parameters(kind, given.name).values() if p.kind is p.KEYWORD_ONLY}
    values = {k: filled(v, k) for k, v in (defaults | dict(given.kwargs)).items()}
    kept = tuple((k, v) for k, v in values.items() if k not in later or v != defaults[k])
    return Spec(given.name, tuple(map(filled, given.args)), kept)


def short(kind: str, spec: str | Spec) -> Spec:
    """The canonical spec without the arguments that equal their defaults: for display, the inverse of `full`."""
    return shortened(kind, full(kind, spec))


def shortened(kind: str, spec: Spec) -> Spec:
    """`short` of a spec that `full` returned."""

    def trimmed(value: Any, key: str = "") -> Any:
        return shortened(kind_of(key, spec, kind), value) if isinstance(value, Spec) else value

    defaults = {p.name: p.default for p in parameters(kind, spec.name).values()}
    short = [(k, trimmed(v, k)) for k, v in spec.kwargs]
    given = tuple((k, v) for k, v in short if k not in defaults or v != defaults[k])
    return Spec(spec.name, tuple(map(trimmed, spec.args)), given)


def within(kind: str, spec: str | Spec) -> list[str]:
    """The names in a spec: its own, then those of nested specs. Raises UserError."""
    spec = check(kind, spec)
    return [spec.name, *(name for one in inner(kind, spec) for name in within(kind, one))]


def inner(kind: str, spec: Spec) -> list[Spec]:
    """The specs of the same kind that a spec wraps."""
    values = [*spec.args, *(value for key, value in spec.kwargs if kind_of(key, spec, kind) == kind)]
    return [value for value in values if isinstance(value, Spec)]


def kind_of(argument: str, spec: Spec, kind: str) -> str:
    """What a nested spec names, by its argument: the guide of np is a guide; else what the outer one names."""
    return argument if argument in BUILT_IN and spec.name != BY_NODE else kind


def _coerce(kind: str, what: str, annotation: Any, value: Any, default: Any = ...) -> Any:
    """Check and convert a value by its annotation: float (may be traced), int, bool, str, Literal, list, dict, Spec."""
    value = plain(value)
    if value is None and default is None:
        return None
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
        return to_float(what, value) if number else value  # else: traced
    nouns = {int: "a whole number", bool: "True or False", str: "a word", list: "a list", dict: "a table"}
    if annotation in nouns and (not isinstance(value, annotation) or (annotation is int and not number)):
        noun = nouns[annotation]
        raise UserError(f"{what} must be {noun}; got {show(value)}")
    if isinstance(value, int) and abs(value) >= 2**31:
        raise UserError(f"{what} must be below 2**31; got {value}")
    return value


def plain(value: Any) -> Any:
    """A scalar of numpy or JAX as a Python value of the same shortest decimal: np.float32(1e-3) is 1e-3.

    Everything else, traced numbers among them, is returned as it is.
    """
    if getattr(value, "shape", None) != () or not hasattr(value, "dtype"):
        return value
    import numpy as np

    try:
        scalar = np.asarray(value)[()]
    except Exception:  # traced, or a key
        return value
    if not isinstance(scalar, np.generic):
        return value
    return float(str(scalar)) if isinstance(scalar, np.floating) or scalar.dtype.kind == "V" else scalar.item()


def to_float(what: str, value: Any) -> float:
    """float(value). Raises UserError for a whole number that is too large."""
    try:
        return float(value)
    except OverflowError:
        raise UserError(f"{what} is too large for a float") from None
