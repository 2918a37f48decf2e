"""The running mean of the signals as a guide."""

from __future__ import annotations

import jax.numpy as jnp

from nodepert.core import Model
from nodepert.registry.ranges import fraction
from nodepert.rules.guides.guide import Guide


def last(model: Model, *, decay: float = 0.9) -> Guide:
    """The running mean of earlier signals, the same prediction for every example:

        d_l <- decay d_l + (1 - decay) mean_b s_l[b]

    It helps where the error signals of all examples have something in common, as at the start of training.

    Args:
        model: The network.
        decay: Weight of the past, at least 0 and below 1.

    Returns:
        The `Guide`; its state is {node: mean signal}.
    """
    fraction("decay", decay)

    def init(key, clean):
        return {name: jnp.zeros_like(a[0]) for name, a in clean.cut.a.items()}

    def signals(means, clean):
        return {name: jnp.broadcast_to(mean, clean.cut.a[name].shape) for name, mean in means.items()}

    def learn(means, clean, predicted, residual):
        def moved(name, mean):
            return (mean + (1 - decay) * residual[name].mean(0)).astype(mean.dtype)

        return {name: moved(name, mean) for name, mean in means.items()}

    return Guide(init, signals, learn)
