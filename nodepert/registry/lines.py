"""The registry line of what is a user's own: a factory, or the object itself that a factory would return."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable
from typing import Any

from nodepert.errors import UserError
from nodepert.registry.catalogue import CONTEXT
from nodepert.registry.entry import Entry
from nodepert.registry.signatures import described

TAKES = {
    "rule": "a factory (model, loss) -> Rule, as in functools.partial(npt.node_perturbation, samples=4)",
    "network": "a Model, a Flax or Equinox module, or a factory (input_shape, classes) -> one of these",
    "loss": "a function (outputs, targets) -> losses, (B,)",
    "optimizer": "an optax.GradientTransformation, as in optax.adam(1e-3)",
    "dataset": "a Dataset, or arrays: (x, y), or (train_x, train_y, test_x, test_y)",
}  # beside a name


def line_of(kind: str, given: Any, name: str, **declared: Any) -> Entry:
    """The registry line of a factory or an object. Raises UserError for anything else.

    `declared`: what a factory does not say: `loss`, `passes`, `task`.
    """
    if kind in _OBJECTS and not _is_function(given):
        return _OBJECTS[kind](given, declared)
    if isinstance(given, tuple) or not callable(given) or (kind == "network" and isinstance(given, type)):
        raise not_one(kind, given)
    if kind == "optimizer" and str(getattr(given, "__module__", "")).partition(".")[0] == "optax":
        raise not_one(kind, given)
    _check_parameters(kind, name, given)
    return Entry("", factory=given, **declared)


def not_one(kind: str, given: Any) -> UserError:
    """The error for something that cannot be of this kind."""
    what = repr(given) if isinstance(given, int | float) else f"a {type(given).__name__}"
    if isinstance(given, type) or inspect.isroutine(given):
        what = f"the {'class' if isinstance(given, type) else 'function'} {given.__name__}"
    article = "an" if kind[0] in "aeiou" else "a"
    return UserError(f"{article} {kind} is {TAKES.get(kind, 'given by the function that returns it')}; got {what}")


def imported(target: str) -> Any:
    """The object at "module:attribute"."""
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _is_function(given: Any) -> bool:
    return inspect.isroutine(given) or isinstance(given, functools.partial)


def _network(given: Any, declared: dict[str, Any]) -> Entry:
    if not imported("nodepert.models.adapters.anything:is_network")(given):
        raise not_one("network", given)
    return Entry("", loss=declared.get("loss", "mse"), given=given, factory=lambda input_shape, classes: given)


def _optimizer(given: Any, declared: dict[str, Any]) -> Entry:
    if not isinstance(given, imported("optax:GradientTransformation")):
        raise not_one("optimizer", given)
    return Entry("", given=given, factory=lambda lr, steps: given)


def _dataset(given: Any, declared: dict[str, Any]) -> Entry:
    data = imported("nodepert.data.given:dataset_of")(given)
    return Entry("", examples=len(data.train_y), shape=data.train_x.shape[1:], outputs=data.outputs,
                 steps=data.steps, task=data.task, given=data, factory=lambda data_dir: data)  # fmt: skip


_OBJECTS: dict[str, Callable[[Any, dict[str, Any]], Entry]] = {
    "network": _network, "optimizer": _optimizer, "dataset": _dataset
}  # fmt: skip


def _check_parameters(kind: str, name: str, factory: Any) -> None:
    """Raises UserError for a factory that does not take the positional arguments of its kind."""
    try:
        found = described(factory).parameters
    except (TypeError, NameError, ValueError) as error:
        raise UserError(f"the signature of the {kind} '{name}' cannot be read: {error}") from None
    given = [p for p in found if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(given) < CONTEXT[kind] and not any(p.kind is p.VAR_POSITIONAL for p in found):
        raise UserError(f"the factory of a {kind} takes {CONTEXT[kind]} positional arguments, then those of its spec "
                        f"after a *; that of '{name}' takes {len(given)}")  # fmt: skip
