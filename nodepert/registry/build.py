"""What a spec names, built."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nodepert.errors import UserError
from nodepert.registry.catalogue import GIVES
from nodepert.registry.spec import Spec
from nodepert.registry.table import imported, resolve
from nodepert.registry.validate import check

if TYPE_CHECKING:
    from nodepert.core import Loss, Model, Rule


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


def make_model(spec: str, input_shape: tuple[int, ...], classes: int) -> Model:
    """A network by spec: `make_model("fc(width=100)", (28, 28, 1), 10)`. Raises UserError."""
    return make("network", spec, input_shape, classes)


def make_rule(spec: str, model: Model, loss: Loss) -> Rule:
    """A learning rule by spec: `make_rule("np(sigma=1e-3)", model, loss)`. Raises UserError."""
    return make("rule", spec, model, loss)


def make_loss(spec: str | Spec) -> Callable[..., Any]:
    """A per-example loss by spec: `make_loss("cross-entropy")(outputs, targets) -> (B,)`. Raises UserError."""
    spec = check("loss", spec)
    return functools.partial(resolve("loss", spec.name), **dict(spec.kwargs))
