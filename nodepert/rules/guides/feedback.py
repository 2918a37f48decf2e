"""Direct feedback as a guide: learned, or random and fixed."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from nodepert.core import Array, Model, Signals
from nodepert.registry.ranges import positive
from nodepert.rules.guides.guide import Clean, Guide, flat


def feedback(model: Model, *, rate: float = 0.05) -> Guide:
    """Learned direct feedback: the output error through one matrix per node, which learns to predict the signals.

        d_l = J_l^T (e B_l),    B_l <- B_l + rate sum_b e_b^T J_l (s_l - d_l)[b] / sum_b ||e_b||^2

    with output error e, and J_l the derivative of the activity that follows node l with respect to its
    pre-activation (for a ReLU, whether the unit is active). B starts at 0 and learns by normalised least mean squares.

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
        return {name: jnp.zeros((clean.error[0].size, h[0].size), h.dtype) for name, h in clean.cut.h.items()}

    def learn(weights, clean, predicted, residual):
        e, (changes, _) = flat(clean.error), clean.cut.forward(residual)
        power = jnp.maximum(jnp.square(e).sum(), jnp.finfo(e.dtype).tiny)
        return {name: (b + rate * e.T @ flat(changes[name]) / power).astype(b.dtype) for name, b in weights.items()}

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
        def matrix(key, h):
            return scale / h[0].size ** 0.5 * jax.random.normal(key, (clean.error[0].size, h[0].size), h.dtype)

        keys = jax.random.split(key, len(clean.cut.h))
        return {name: matrix(k, h) for k, (name, h) in zip(keys, clean.cut.h.items(), strict=True)}

    return Guide(init, direct, lambda state, clean, predicted, residual: state)


def direct(weights: dict[str, Array], clean: Clean) -> Signals:
    """J_l^T (e B_l) at every node; e itself where a node reaches the outputs."""
    e = flat(clean.error)
    errors = {name: (e @ b).astype(b.dtype).reshape(clean.cut.h[name].shape) for name, b in weights.items()}
    return clean.cut.back(errors, clean.error)
