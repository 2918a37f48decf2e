"""Direct feedback: the output error is sent to every node at once, past the layers between."""

from __future__ import annotations

from math import prod
from typing import Any, Literal

import jax
import jax.numpy as jnp

from nodepert.core import Array, Info, Loss, Model, Params, Rule, as_values, batchsize, per_example, pullback, recording
from nodepert.registry.ranges import positive
from nodepert.rules.between import active as active_units
from nodepert.rules.between import between
from nodepert.rules.credit import shared_axes

ERRORS = {
    "linear": lambda outputs: outputs,
    "sigmoid": jax.nn.sigmoid,
    "softmax": jax.nn.softmax,
}


def direct_feedback_alignment(
    model: Model,
    loss: Loss,
    *,
    error: Literal["loss", "linear", "sigmoid", "softmax"] = "loss",
    scale: float = 1.0,
    seed: int = 0,
    active: bool = False,
) -> Rule:
    """Direct feedback alignment, DFA: the output error is sent to every node, through a fixed random matrix for each.

        s_l[b] = B_l e[b],    g_l = 1/B sum_b s_l[b] z_l[b]^T

    with output error e, (B, outputs); in time, that of each step, through the same matrices. A node that only reaches
    the outputs has its exact signal, e where its pre-activation is the output, so that a network of one layer learns as
    by backpropagation. Unlike in the paper, s_l is not multiplied by f'(a_l); for ReLU active=True does so.

    Cost: a forward pass and the weight gradients.
    Bias: biased, except for the output node; the forward weights align with the feedback.
    Derivative of the loss: with respect to the outputs; none with error=linear, sigmoid or softmax.

    Args:
        model: The network to train.
        loss: (outputs, targets) -> losses, (B,).
        error: loss: e = dL_b/do. linear, sigmoid, softmax: e = f(o) - y, with f the identity or that function.
        scale: Standard deviation of B_l, in units of the Xavier deviation sqrt(2 / (outputs + units)).
        seed: Selects other matrices for the same run seed.
        active: No signal for units that cannot change what follows, as an inactive ReLU.

    Returns:
        The `Rule`; its state is {node: B_l, (outputs, *units of the node)}.

    Raises:
        ValueError: scale is not positive and finite.

    Examples:
        >>> import nodepert as npt
        >>> model, loss = npt.make_model("fc(width=20)", (4,), 3), npt.make_loss("mse")
        >>> rule = npt.make_rule("dfa(error=softmax)", model, loss)

    References:
        Nøkland 2016.
    """
    positive("scale", scale)

    def init(key, params, x):
        key = jax.random.fold_in(key, seed)
        drawn = {}
        for i, (name, s) in enumerate(matrix_shapes(model, params, x).items()):
            deviation = (2 / (s.shape[0] + prod(s.shape[1:]))) ** 0.5
            drawn[name] = scale * deviation * jax.random.normal(jax.random.fold_in(key, i), s.shape, s.dtype)
        return drawn

    def grads(key, feedback, params, batch):
        x, y = batch
        cut = between(model, params, x)
        losses = per_example(loss, cut.outputs, y)
        if error == "loss":
            e = jax.grad(lambda o: per_example(loss, o, y).sum())(cut.outputs)
        else:
            predicted = ERRORS[error](cut.outputs)
            e = predicted - as_values(y, predicted)
        e = e / batchsize(x)
        exact = cut.back({}, e)
        gates = active_units(cut) if active else {}
        signals = {n: exact[n] if n in cut.last else sent(e, feedback[n], cut.a[n]) * gates.get(n, 1) for n in cut.a}
        return pullback(model, params, x, signals), feedback, Info(losses, cut.outputs)

    return Rule(init, grads)


def matrix_shapes(model: Model, params: Params, x: Array) -> dict[str, jax.ShapeDtypeStruct]:
    """Shape and dtype of each node's feedback matrix, (outputs, *units), both of a step where both have time."""

    def observed(params, x):
        a: dict[str, Array] = {}
        return model.apply(params, x, recording(a)), a

    outputs, shapes = jax.eval_shape(observed, params, x)

    def matrix(a):
        axes = common(outputs, a)
        return jax.ShapeDtypeStruct((prod(outputs.shape[axes:]), *a.shape[axes:]), a.dtype)

    return {name: matrix(a) for name, a in shapes.items()}


def sent(error: Array, feedback: Array, a: Array) -> Array:
    """The output error through a node's feedback matrix, shaped as its pre-activation."""
    axes = common(error, a)
    return jnp.tensordot(error.reshape(*error.shape[:axes], -1), feedback, 1)


def common(outputs: Any, a: Any) -> int:
    """How many axes a node has in common with the outputs, as examples and time, in which B_l is the same."""
    return 1 + shared_axes(jax.ShapeDtypeStruct(outputs.shape[:-1], outputs.dtype), a)
