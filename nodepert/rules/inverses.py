"""Stages of a chain of nodes, and their inverses, for difference target propagation."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nodepert.core import Array, Model, Op, Params, recording
from nodepert.errors import UserError
from nodepert.models.wiring import INPUT, wiring

ACTIVATIONS = {"tanh": jnp.tanh, "relu": jax.nn.relu, "linear": lambda h: h}
Feedback = dict[str, tuple[Params, Array]]  # node -> (V, c)


class Pass(NamedTuple):
    """A clean pass: for every node its operator, parameters, input and output."""

    op: dict[str, Op]
    params: dict[str, Params]
    h: dict[str, Array]  # presynaptic activity
    a: dict[str, Array]  # pre-activation


def clean(model: Model, params: Params, x: Array) -> Pass:
    """Run a clean pass."""
    net = Pass({}, {}, {}, {})

    def node(name, op, own, h):
        net.op[name], net.params[name], net.h[name] = op, own, h
        return op(own, h)

    model.apply(params, x, recording(net.a, node))
    return net


def between(model: Model, params: Params, x: Array, a: dict[str, Array]) -> tuple[dict[str, Array], Array]:
    """({node: presynaptic activity}, outputs) from given pre-activations: what the model computes between its nodes.

    The nodes are cut out, so that a derivative of this reaches from a node to the next and no further.
    """
    h: dict[str, Array] = {}

    def node(name, op, own, activity):
        h[name] = activity
        return a[name]

    outputs = model.apply(params, x, node)
    return h, outputs


def inverse(net: Pass, act: Any, name: str, feedback: Feedback):
    """The inverse of a stage, a function from the next node's presynaptic activity to this node's."""
    (V, c), op, a, zeros = feedback[name], net.op[name], net.a[name], jnp.zeros_like(net.h[name])

    def q(reached: Array) -> Array:
        back: Any = transposed(op, V, zeros, reached.reshape(a.shape).astype(a.dtype))
        return act(back + c)

    return q


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def transposed(op: Op, V: Params, zeros: Array, a: Array) -> Array:
    """op(V, .)^T a, for an operator that is affine in its input; shaped as `zeros`.

    Its derivative with respect to V is the operator's weight gradient, with activity and signal exchanged. JAX would
    compute it as the derivative of a derivative, for which convolution has no fast kernel (see convolution.py).
    """
    return jax.vjp(lambda h: op(V, h), zeros)[1](a)[0]


def _forward(op, V, zeros, a):
    return transposed(op, V, zeros, a), (V, zeros, a)


def _backward(op, residual, r):
    V, zeros, a = residual
    to_a, weight_gradient = jax.vjp(lambda V: jax.jvp(lambda h: op(V, h), (zeros,), (r,))[1], V)  # without the bias
    return weight_gradient(a)[0], zeros, to_a


transposed.defvjp(_forward, _backward)


def inverted(model: Model, params: Params, x: Array, net: Pass) -> dict[str, str]:
    """{node: the next node} for the stages that need an inverse: all but the first and the last.

    Raises UserError for a network that is not a chain, and where the sizes of a stage do not allow an inverse.
    """
    wires = wiring(model, params, x)
    names = list(wires.order)
    fed = [*wires.inputs.items(), ("the outputs", wires.outputs)]
    for (name, sources), below in zip(fed, [INPUT, *names], strict=True):
        if sources != {below}:
            fed_by = ", ".join(sorted(sources)) or "nothing"
            raise UserError("dtp needs a chain of nodes, each fed by the one before it alone; "
                            f"{name} must be fed by {below}, but is fed by {fed_by}")  # fmt: skip
    above = dict(pairwise(names[1:]))
    for name, up in above.items():
        if net.a[name].size != net.h[up].size:
            units, reached = net.a[name][0].size, net.h[up][0].size
            raise UserError(f"dtp cannot invert what lies between nodes {name} and {up}, where {units} units become "
                            f"{reached}; only the first node may be followed by pooling or the like")  # fmt: skip
    return above
