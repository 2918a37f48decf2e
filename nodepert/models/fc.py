"""Fully connected networks."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from math import prod
from typing import Literal

import jax

from nodepert.core import Array, Model, plain
from nodepert.models.layers import dense, xavier
from nodepert.registry.ranges import at_least

ACTIVATIONS = {"relu": jax.nn.relu, "leaky-relu": jax.nn.leaky_relu, "tanh": jax.numpy.tanh, "gelu": jax.nn.gelu}


def fc(
    input_shape: tuple[int, ...], classes: int, *, width: int = 500, depth: int = 2,
    activation: Literal["relu", "leaky-relu", "tanh", "gelu"] = "relu",
) -> Model:  # fmt: skip
    """A fully connected network with a linear output; nodes fc0, fc1, ..., out.

    Xavier-normal weights, zero biases. Inputs of any shape are flattened.

    Args:
        input_shape: Shape of one input.
        classes: Number of outputs.
        width: Units of each hidden layer.
        depth: Number of hidden layers.
        activation: Activation function of the hidden layers; leaky-relu has slope 0.01.

    Returns:
        The `Model`.

    Raises:
        ValueError: width < 1 or depth < 0.

    Examples:
        >>> import nodepert as npt
        >>> model = npt.make_model("fc(width=100, depth=3)", (28, 28, 1), 10)
    """
    return chain(input_shape, classes, width, depth, ACTIVATIONS[activation])


def linfc(input_shape: tuple[int, ...], classes: int, *, width: int = 500, depth: int = 2) -> Model:
    """A deep linear network: `fc` without activation functions.

    Args:
        input_shape: Shape of one input.
        classes: Number of outputs.
        width: Units of each hidden layer.
        depth: Number of hidden layers.

    Returns:
        The `Model`.

    Raises:
        ValueError: width < 1 or depth < 0.

    Examples:
        >>> import nodepert as npt
        >>> model = npt.make_model("linfc(width=100)", (28, 28, 1), 10)
    """
    return chain(input_shape, classes, width, depth, lambda a: a)


def chain(
    input_shape: tuple[int, ...], classes: int, width: int, depth: int, activation: Callable[[Array], Array]
) -> Model:
    """A chain of dense layers with `activation` between them. Raises ValueError for width < 1 or depth < 0."""
    at_least("width", width, 1)
    at_least("depth", depth, 0)
    sizes = [prod(input_shape), *[width] * depth, classes]
    names = [*(f"fc{i}" for i in range(depth)), "out"]

    def init(key):
        keys = jax.random.split(key, len(names))
        shapes = pairwise(sizes)
        return {name: xavier(k, shape) for name, k, shape in zip(names, keys, shapes, strict=True)}

    def apply(params, x, node=plain):
        h = x.reshape(len(x), -1)
        for name in names[:-1]:
            h = activation(node(name, dense, params[name], h))
        return node(names[-1], dense, params[names[-1]], h)

    return Model(init, apply)
