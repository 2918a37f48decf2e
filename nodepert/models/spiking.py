"""Spiking networks, which have no derivative."""

from __future__ import annotations

from functools import partial
from math import prod
from typing import Literal

import jax
import jax.numpy as jnp

from nodepert.contract.loops import scan
from nodepert.core import Array, Key, Model, Node, Params, plain
from nodepert.models.layers import dense, xavier
from nodepert.models.sequences import normal
from nodepert.registry.ranges import at_least

Surrogate = Literal["none", "fast-sigmoid"]
SLOPE = 10.0  # of the surrogate at the threshold


def lif(
    input_shape: tuple[int, ...], classes: int, *, width: int = 100, depth: int = 1, steps: int = 10,
    decay: float = 0.9, threshold: float = 1.0, surrogate: Surrogate = "none",
) -> Model:  # fmt: skip
    """Layers of leaky integrate-and-fire neurons, and a readout of their spike rates; nodes lif0, lif1, ..., out.

        v_t = decay (1 - s_{t-1}) v_{t-1} + a_t,    s_t = 1 if v_t > threshold else 0,    o = W_out <s> + b_out

    with the input current a_t of a layer, from the spikes of the layer below at the same step, and <s> the mean of the
    last layer over steps. The input is presented as a constant current at every step. A spike has no derivative: rules
    that need one get 0 below the readout, unless there is a surrogate.

    Args:
        input_shape: Shape of one input; it is flattened.
        classes: Number of outputs.
        width: Neurons of a layer.
        depth: Number of layers.
        steps: Time steps.
        decay: Share of the membrane potential that is left after a step, in [0, 1).
        threshold: Membrane potential of a spike, after which it is reset to 0.
        surrogate: What differentiation takes for the derivative of a spike. none: 0. fast-sigmoid:
            1 / (1 + 10 |v - threshold|)^2 (Zenke and Ganguli 2018).

    Returns:
        The `Model`.

    Raises:
        ValueError: width, depth or steps is below 1, or decay is not in [0, 1).

    Examples:
        >>> import nodepert as npt
        >>> model = npt.make_model("lif(width=50, steps=20)", (8, 8, 1), 10)
    """
    for name, number in (("width", width), ("depth", depth), ("steps", steps)):
        at_least(name, number, 1)
    if not 0 <= decay < 1:
        raise ValueError(f"decay must be in [0, 1); got {decay}")
    names = [f"lif{i}" for i in range(depth)]
    sizes = [prod(input_shape), *[width] * depth]

    def init(key: Key) -> Params:
        *keys, out = jax.random.split(key, depth + 1)
        layers = {name: normal(k, sizes[i], width) for i, (name, k) in enumerate(zip(names, keys, strict=True))}
        return layers | {"out": xavier(out, (width, classes))}

    def apply(params: Params, x: Array, node: Node = plain) -> Array:
        current = x.reshape(len(x), -1)

        def step(node: Node, carry: tuple[Array, ...], _: None) -> tuple[tuple[Array, ...], Array]:
            h, after = current, []
            for name, v in zip(names, carry, strict=True):
                v = decay * v + node(name, dense, params[name], h)
                h = spike(surrogate, v - threshold)
                after.append(v * (1 - h))
            return tuple(after), h

        rest = tuple(jnp.zeros((len(x), width), params[name]["w"].dtype) for name in names)
        _, spikes = scan(step, node, rest, length=steps)
        return node("out", dense, params["out"], spikes.mean(1))

    return Model(init, apply)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def spike(surrogate: Surrogate, v: Array) -> Array:
    """1 where v > 0, else 0."""
    return (v > 0).astype(v.dtype)


@spike.defjvp
def _surrogate(surrogate: Surrogate, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (v,), (dv,) = primals, tangents
    slope = jnp.zeros_like(v) if surrogate == "none" else 1 / jnp.square(1 + SLOPE * jnp.abs(v))
    return spike(surrogate, v), slope * dv
