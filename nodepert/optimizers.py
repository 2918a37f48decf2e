"""Optimizers by name: `factory(lr, steps, *, ...) -> optax.GradientTransformation`; steps: of the whole run.

Every one takes `schedule=constant` or `schedule=cosine` (from lr to 0 over the run).
"""

from __future__ import annotations

from typing import Literal

import optax

from nodepert.arguments import fraction, positive

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


def rate(lr: float, steps: int, schedule: Schedule):
    """The learning rate, constant or as a function of the step."""
    return lr if schedule == "constant" else optax.cosine_decay_schedule(lr, max(steps, 1))
