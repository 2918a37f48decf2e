"""Whatever a user calls a network, as a model."""

from __future__ import annotations

import functools
import inspect
from typing import Any

from nodepert.core import Model
from nodepert.errors import UserError
from nodepert.models.adapters.equinox import from_equinox
from nodepert.models.adapters.flax import from_flax


def model_of(network: Any, input_shape: tuple[int, ...], classes: int) -> Model:
    """The model of a Flax or Equinox module, or of a factory (input_shape, classes) -> Model or module; a model is
    returned as it is. Raises UserError for anything else."""
    if isinstance(network, Model):
        return network
    if "flax" in _libraries(network):
        return from_flax(network, input_shape)
    if "equinox" in _libraries(network):
        return from_equinox(network)
    if inspect.isroutine(network) or isinstance(network, functools.partial):
        return model_of(network(input_shape, classes), input_shape, classes)
    raise UserError(f"a network is a Model, a Flax or Equinox module, or a factory (input_shape, classes) -> Model; "
                    f"got {type(network).__name__}")  # fmt: skip


def is_network(value: Any) -> bool:
    """Whether this is a model or a module; a factory, or a class, is none."""
    return not isinstance(value, type) and (isinstance(value, Model) or bool({"flax", "equinox"} & _libraries(value)))


def _libraries(network: Any) -> set[str]:
    """The libraries that its classes come from."""
    return {base.__module__.partition(".")[0] for base in type(network).__mro__}
