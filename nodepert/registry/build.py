"""Building the object that a spec names."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from nodepert.errors import UserError, first_line, refuse_fork
from nodepert.registry.catalogue import GIVES
from nodepert.registry.generator import pinned
from nodepert.registry.lines import imported
from nodepert.registry.spec import Spec
from nodepert.registry.table import entry, resolve
from nodepert.registry.validate import check, within

if TYPE_CHECKING:
    from nodepert.core import Loss, Model, Rule


def make(kind: str, spec: str | Spec, *context: Any) -> Any:
    """Build the object that a spec names: `make("rule", "np(sigma=1e-3)", model, loss)`.

    Keys that the factory makes have NodePert's generator. Numeric arguments may be traced (a Spec is a pytree whose
    floats are leaves, see training/hyper.py), so that this can be called inside a compiled step.

    Raises UserError for an invalid spec, for a ValueError of the factory, and for a registered factory that returns
    something of another type.
    """
    spec = check(kind, spec)
    factory = resolve(kind, spec.name)
    if kind in ("network", "rule"):  # data need no JAX
        refuse_fork()
    try:
        with pinned():
            made = factory(*context, *spec.args, **dict(spec.kwargs))
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{kind} '{spec}': {error}") from error
    except Exception as error:
        if not own(kind, spec):
            raise
        raise UserError(f"{kind} '{spec}' fails: {type(error).__name__}: {first_line(error)}") from error
    if kind == "network" and imported("nodepert.models.adapters.anything:is_network")(made):
        made = imported("nodepert.models.adapters.anything:model_of")(made, *context)
    if kind in GIVES and not isinstance(made, imported(GIVES[kind])):
        expected = re.sub(r"[.:].*:|:", ".", GIVES[kind]).replace("nodepert", "npt")
        raise UserError(f"{kind} '{spec}' returns {type(made).__name__}; its factory must return {expected}")
    if kind == "network" and not own(kind, spec):
        imported("nodepert.contract.tested:accept")(made.apply)
    if kind == "rule":
        return imported("nodepert.rules.shards:per_device")(made)
    return made


def make_model(spec: str | Spec, input_shape: tuple[int, ...], classes: int) -> Model:
    """Build a network from a spec.

    Args:
        spec: The network, as in "fc(width=100)"; `nodepert list networks` lists the names.
        input_shape: Shape of one input, without the batch axis.
        classes: Number of outputs.

    Returns:
        The `Model`, a pair `init(key) -> params` and `apply(params, x) -> outputs`, (B, classes).

    Raises:
        UserError: The spec is invalid, or the network does not accept this input shape.

    Examples:
        >>> import jax, nodepert as npt
        >>> model = npt.make_model("fc(width=100)", (28, 28, 1), 10)
        >>> params = model.init(jax.random.key(0))
        >>> model.apply(params, jax.numpy.zeros((5, 28, 28, 1))).shape
        (5, 10)
    """
    return make("network", spec, input_shape, classes)


def make_rule(spec: str | Spec, model: Model, loss: Loss) -> Rule:
    """Build a learning rule from a spec.

    Args:
        spec: The rule, as in "np(sigma=1e-3)", "np; out=exact"; `nodepert list rules` lists the names.
        model: The network it trains.
        loss: (outputs, targets) -> losses, (B,), one per example.

    Returns:
        The `Rule`: `init(key, params, x) -> state` and `grads(key, state, params, batch) -> (grads, state, info)`.

    Raises:
        UserError: The spec is invalid, or an argument is out of range.
        ValueError: At the first step, the network or the loss mixes the examples of a batch.

    Examples:
        >>> import jax, nodepert as npt
        >>> model = npt.make_model("fc(width=20)", (4,), 3)
        >>> rule = npt.make_rule("np(sigma=1e-3)", model, npt.make_loss("mse"))
        >>> params, x = model.init(jax.random.key(0)), jax.numpy.ones((5, 4))
        >>> state = rule.init(jax.random.key(1), params, x)
        >>> grads, state, info = rule.grads(jax.random.key(2), state, params, (x, jax.numpy.zeros(5, int)))
        >>> info.loss.shape
        (5,)
    """
    rule = make("rule", spec, model, loss)

    def grads(key, state, params, batch):
        imported("nodepert.contract.mixing:check_network")(model, batch[0])
        return rule.grads(key, state, params, batch)

    return rule._replace(grads=grads)


def make_loss(spec: str | Spec) -> Callable[..., Any]:
    """Build a loss from a spec.

    Args:
        spec: The loss, as in "cross-entropy"; `nodepert list losses` lists the names.

    Returns:
        A function (outputs, targets) -> losses, (B,). Targets are class indices, (B,), or values, (B, n).

    Raises:
        UserError: The spec is invalid.

    Examples:
        >>> import jax, nodepert as npt
        >>> npt.make_loss("mse")(jax.numpy.zeros((2, 3)), jax.numpy.array([0, 2]))
        Array([0.25, 0.25], dtype=float32)
    """
    spec = check("loss", spec)
    loss = functools.partial(resolve("loss", spec.name), **dict(spec.kwargs))
    if not own("loss", spec):
        imported("nodepert.contract.tested:accept")(loss)
    return loss


def own(kind: str, spec: Spec) -> bool:
    """Whether a spec names anything that does not come with NodePert."""
    return any(entry(kind, name).own for name in within(kind, spec))
