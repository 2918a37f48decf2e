"""Optimizers by name: `factory(lr, steps, *, ...) -> optax.GradientTransformation`; steps: of the whole run.

Every one takes `schedule=constant` or `schedule=cosine` (from lr to 0 over the run).
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
import optax

from nodepert.registry import make
from nodepert.registry.ranges import fraction, positive
from nodepert.registry.spec import Spec

Schedule = Literal["constant", "cosine"]


def sgd(lr: float, steps: int, *, schedule: Schedule = "constant") -> optax.GradientTransformation:
    """W <- W - lr g."""
    return optax.sgd(rate(lr, steps, schedule))


def momentum(
    lr: float, steps: int, *, momentum: float = 0.9, nesterov: bool = False, schedule: Schedule = "constant"
) -> optax.GradientTransformation:
    """m <- momentum m + g; W <- W - lr m."""
    fraction("momentum", momentum)
    return optax.sgd(rate(lr, steps, schedule), momentum=momentum, nesterov=nesterov)


def adam(
    lr: float, steps: int, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, schedule: Schedule = "constant"
) -> optax.GradientTransformation:
    """Adam (Kingma and Ba 2015)."""
    fraction("b1", b1)
    fraction("b2", b2)
    positive("eps", eps)
    return optax.adam(rate(lr, steps, schedule), b1=b1, b2=b2, eps=eps)


def rmsprop(
    lr: float, steps: int, *, decay: float = 0.9, eps: float = 1e-8, schedule: Schedule = "constant"
) -> optax.GradientTransformation:
    """RMSProp (Tieleman and Hinton 2012)."""
    fraction("decay", decay)
    positive("eps", eps)
    return optax.rmsprop(rate(lr, steps, schedule), decay=decay, eps=eps)


def normalise(lr: float, steps: int, optimizer: Spec) -> optax.GradientTransformation:
    """Weight normalisation after each step of another optimizer: normalise(sgd), normalise(adam(b1=0.5)).

        w_i <- s w_i / rms(w_i)

    with w_i the incoming weights of one unit (the leading axes of a parameter of two or more axes; biases are left
    alone) and s the root mean square of that parameter at the start. Keeps the weights from diffusing, and with that
    node perturbation from crashing (Hiratani et al. 2022).
    """
    return optax.chain(make("optimizer", optimizer, lr, steps), normalised())


def normalised() -> optax.GradientTransformation:
    """The projection alone: to be chained after an optimizer, it needs `params`."""

    def rms(w, axes=None):
        return jnp.sqrt(jnp.square(w).mean(axes, keepdims=axes is not None))

    def init(params):
        return jax.tree.map(rms, params)

    def update(updates, state, params=None):
        if params is None:
            raise ValueError("weight normalisation needs params: optimizer.update(grads, state, params)")

        def leaf(u, w, size):
            if w.ndim < 2:
                return u
            new = w + u
            length = rms(new, tuple(range(w.ndim - 1)))
            return jnp.where(length > 0, size * new / jnp.where(length > 0, length, 1), new) - w

        return jax.tree.map(leaf, updates, params, state), state

    return optax.GradientTransformation(init, update)


def rate(lr: float, steps: int, schedule: Schedule):
    """The learning rate, constant or as a function of the step."""
    return lr if schedule == "constant" else optax.cosine_decay_schedule(lr, max(steps, 1))
