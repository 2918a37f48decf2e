"""Direct feedback: the output error is sent to every node at once, past the layers between."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp

from nodepert.core import Array, Info, Loss, Model, Params, Rule, as_values, batchsize, per_example, pullback, recording
from nodepert.registry.ranges import positive

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
) -> Rule:
    """Direct feedback alignment, DFA: the output error is sent to every node, through a fixed random matrix for each.

        s_l[b] = B_l e[b],    g_l = 1/B sum_b s_l[b] z_l[b]^T

    with output error e, (B, outputs). The node whose pre-activation is the output has the signal e itself, so that a
    network of one layer learns as by backpropagation. Unlike in the paper, s_l is not multiplied by f'(a_l).

    Cost: a forward pass and the weight gradients.
    Bias: biased, except for the output node; the forward weights align with the feedback.
    Derivative of the loss: with respect to the outputs; none with error=linear, sigmoid or softmax.

    Args:
        model: The network to train.
        loss: (outputs, targets) -> losses, (B,).
        error: loss: e = dL_b/do. linear, sigmoid, softmax: e = f(o) - y, with f the identity or that function.
        scale: Standard deviation of B_l, in units of the Xavier deviation sqrt(2 / (outputs + units)).
        seed: Selects other matrices for the same run seed.

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
        outputs, shapes = jax.eval_shape(lambda p, x: observed(model, p, x), params, x)
        drawn = {}
        for i, (name, s) in enumerate(shapes.items()):
            shape = (outputs.size // batchsize(x), *s.shape[1:])
            deviation = (2 / (shape[0] + s.size // batchsize(x))) ** 0.5
            drawn[name] = scale * deviation * jax.random.normal(jax.random.fold_in(key, i), shape, s.dtype)
        return drawn

    def grads(key, feedback, params, batch):
        x, y = batch
        outputs, a = observed(model, params, x)
        losses = per_example(loss, outputs, y)
        if error == "loss":
            e = jax.grad(lambda o: per_example(loss, o, y).sum())(outputs)
        else:
            e = ERRORS[error](outputs) - as_values(y, outputs)
        e = e / batchsize(x)
        signals = {n: e if a[n] is outputs else jnp.tensordot(flat(e), feedback[n], 1) for n in a}
        return pullback(model, params, x, signals), feedback, Info(losses, outputs)

    return Rule(init, grads)


def observed(model: Model, params: Params, x: Array) -> tuple[Array, dict[str, Array]]:
    """(outputs, {node: pre-activation}) of one clean pass."""
    a: dict[str, Array] = {}
    return model.apply(params, x, recording(a)), a


def flat(e: Array) -> Array:
    """(B, ...) -> (B, units)."""
    return e.reshape(len(e), -1)
