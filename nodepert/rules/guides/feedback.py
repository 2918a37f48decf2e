"""Direct feedback as a guide: learned, or random and fixed."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from nodepert.core import Array, Model, Signals
from nodepert.registry.ranges import positive
from nodepert.rules.credit import rows, shared_axes
from nodepert.rules.guides.guide import Clean, Guide


def feedback(model: Model, *, rate: float = 0.05) -> Guide:
    """Learned direct feedback: the output error through one matrix per node, which learns to predict the signals.

        d_l = J_l^T (e B_l),    B_l <- B_l + rate sum_b e_b^T J_l (s_l - d_l)[b] / sum_b ||e_b||^2

    with output error e (in time, that of each step, through the same B), and J_l the derivative of the activity that
    follows node l with respect to its pre-activation (for a ReLU, whether the unit is active). B starts at 0 and learns
    by normalised least mean squares.

    Into the last hidden layer B_l comes to be W_out^T: weight transport that is learned from noise. Below it, the error
    signal is not a linear function of e, and B_l is the best linear prediction.

    Args:
        model: The network.
        rate: Learning rate of B, between 0 and 2.

    Returns:
        The `Guide`; its state is {node above: B, (outputs, its inputs)}.

    References:
        Widrow and Hoff 1960 (least mean squares); Nøkland 2016 (direct feedback); Lansdell, Prakash and Kording 2020
        (feedback learned by node perturbation).
    """
    positive("rate", rate)

    def init(key, clean):
        return {name: jnp.zeros(matrix_shape(clean.error, h), h.dtype) for name, h in clean.cut.h.items()}

    def learn(weights, clean, predicted, residual):
        changes, _ = clean.cut.forward(residual)
        power = jnp.maximum(jnp.square(clean.error).sum(), jnp.finfo(clean.error.dtype).tiny)

        def step(b, change):
            e, change = per_part(clean.error, change)
            return (b + rate * e.T @ change / power).astype(b.dtype)

        return {name: step(b, changes[name]) for name, b in weights.items()}

    return Guide(init, direct, learn)


def dfa(model: Model, *, scale: float = 1.0) -> Guide:
    """Fixed random direct feedback, d_l = J_l^T (e B_l): the signals of direct feedback alignment.

    Args:
        model: The network.
        scale: Standard deviation of B, in units of 1/sqrt(inputs of the node above).

    Returns:
        The `Guide`; its state is B.

    References:
        Nøkland 2016.
    """
    positive("scale", scale)

    def init(key, clean):
        def matrix(i, h):
            shape = matrix_shape(clean.error, h)
            return scale / shape[1] ** 0.5 * jax.random.normal(jax.random.fold_in(key, i), shape, h.dtype)

        return {name: matrix(i, h) for i, (name, h) in enumerate(clean.cut.h.items())}

    return Guide(init, direct, lambda state, clean, predicted, residual: state)


def direct(weights: dict[str, Array], clean: Clean) -> Signals:
    """J_l^T (e B_l) at every node; e itself where a node reaches the outputs."""
    h = clean.cut.h
    errors = {name: (per_part(clean.error, h[name])[0] @ b).astype(b.dtype) for name, b in weights.items()}
    return clean.cut.back({name: e.reshape(h[name].shape) for name, e in errors.items()}, clean.error)


def per_part(error: Array, h: Array) -> tuple[Array, Array]:
    """Both as rows: one for each example, or for each time step of each example where both have time."""
    axes = shared_axes(error[..., 0], h)
    return rows(error, axes), rows(h, axes)


def matrix_shape(error: Array, h: Array) -> tuple[int, int]:
    """(outputs, inputs of a node), of a part."""
    e, h = jax.eval_shape(per_part, error, h)
    return e.shape[1], h.shape[1]
