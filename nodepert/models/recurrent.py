"""Recurrent networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from nodepert.contract.loops import scan
from nodepert.core import Array, Key, Model, Node, Params, plain
from nodepert.models.layers import dense, xavier
from nodepert.models.sequences import Readout, features, normal, steps
from nodepert.registry.ranges import at_least

Step = Callable[[Params, Node, Any, Array], Any]  # (params, node, carry, x_t) -> carry


def rnn(
    input_shape: tuple[int, ...], classes: int, *, width: int = 100, leak: float = 1.0, gain: float = 1.0,
    activation: Literal["tanh", "relu"] = "tanh", readout: Readout = "last", tokens: bool = False,
) -> Model:  # fmt: skip
    """A recurrent network; nodes cell and out.

        a_t = W [x_t, h_{t-1}] + b,    v_t = (1 - leak) v_{t-1} + leak a_t,    h_t = tanh(v_t),    o = W_out h + b_out

    Args:
        input_shape: Shape of one input, (T, ...): T steps, each of which is one vector.
        classes: Number of outputs.
        width: Units of the hidden state.
        leak: Time step over time constant, in (0, 1]; 1: no memory but h.
        gain: Size of the recurrent weights: their standard deviation times sqrt(width).
        activation: tanh or relu.
        readout: last: outputs (B, classes), after the last step. every: outputs (B, T, classes).
        tokens: The input is T whole numbers below `classes`, which become one-hot vectors.

    Returns:
        The `Model`.

    Raises:
        ValueError: width < 1, or leak is not in (0, 1].

    Examples:
        >>> import nodepert as npt
        >>> model = npt.make_model("rnn(width=50, readout=every)", (20, 3), 10)
    """
    if not 0 < leak <= 1:
        raise ValueError(f"leak must be in (0, 1]; got {leak}")
    n, f = features(input_shape, classes, tokens), jnp.tanh if activation == "tanh" else jax.nn.relu

    def init(key: Key) -> Params:
        into, back, out = jax.random.split(key, 3)
        w = jnp.concatenate([normal(into, n, width)["w"], normal(back, width, width, gain)["w"]])
        return {"cell": {"w": w, "b": jnp.zeros(width)}, "out": xavier(out, (width, classes))}

    def step(params: Params, node: Node, v: Array, x: Array) -> Array:
        a = node("cell", dense, params["cell"], jnp.concatenate([x, f(v)], -1))
        return (1 - leak) * v + leak * a

    return recurrent(init, step, f, width, classes, readout, tokens)


def gru(
    input_shape: tuple[int, ...], classes: int, *, width: int = 100, readout: Readout = "last", tokens: bool = False
) -> Model:
    """A network of gated recurrent units (Cho et al. 2014); nodes gates, candidate and out.

        z_t, r_t = sigmoid(W [x_t, h_{t-1}] + b),    c_t = tanh(U [x_t, r_t h_{t-1}] + d),
        h_t = (1 - z_t) h_{t-1} + z_t c_t,    o = W_out h + b_out

    Args:
        input_shape: Shape of one input, (T, ...).
        classes: Number of outputs.
        width: Units of the hidden state.
        readout: last: outputs (B, classes), after the last step. every: outputs (B, T, classes).
        tokens: The input is T whole numbers below `classes`, which become one-hot vectors.

    Returns:
        The `Model`.

    Raises:
        ValueError: width < 1.

    Examples:
        >>> import nodepert as npt
        >>> model = npt.make_model("gru(width=50)", (28, 28, 1), 10)
    """
    n = features(input_shape, classes, tokens) + width

    def init(key: Key) -> Params:
        gates, candidate, out = jax.random.split(key, 3)
        return {"gates": normal(gates, n, 2 * width), "candidate": normal(candidate, n, width),
                "out": xavier(out, (width, classes))}  # fmt: skip

    def step(params: Params, node: Node, h: Array, x: Array) -> Array:
        gates = jax.nn.sigmoid(node("gates", dense, params["gates"], jnp.concatenate([x, h], -1)))
        z, r = gates[..., :width], gates[..., width:]
        c = jnp.tanh(node("candidate", dense, params["candidate"], jnp.concatenate([x, r * h], -1)))
        return (1 - z) * h + z * c

    return recurrent(init, step, lambda h: h, width, classes, readout, tokens)


def recurrent(
    init: Callable[[Key], Params], step: Step, activity: Callable[[Any], Array], width: int, classes: int,
    readout: Readout, tokens: bool,
) -> Model:  # fmt: skip
    """The network of a step, from a state of zeros; the node `out` reads its activity. Raises ValueError: width < 1."""
    at_least("width", width, 1)

    def apply(params: Params, x: Array, node: Node = plain) -> Array:
        def once(node: Node, carry: Any, x: Array) -> tuple[Any, Any]:
            carry = step(params, node, carry, x)
            return carry, activity(carry) if readout == "every" else None

        dtype = jax.tree.leaves(params)[0].dtype
        last, every = scan(once, node, jnp.zeros((len(x), width), dtype), steps(x, classes, tokens).astype(dtype))
        return node("out", dense, params["out"], every if readout == "every" else activity(last))

    return Model(init, apply)
