"""Optimizers. Each is a factory `optimizer(lr, steps, *, ...) -> optax.GradientTransformation`."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
import optax

from nodepert.registry import make
from nodepert.registry.ranges import fraction, not_negative, positive
from nodepert.registry.spec import Spec

Schedule = Literal["constant", "cosine"]


def sgd(lr: float, steps: int, *, schedule: Schedule = "constant") -> optax.GradientTransformation:
    """Gradient descent: W <- W - lr g.

    Args:
        lr: Learning rate.
        steps: Steps of the whole run.
        schedule: constant, or cosine (from lr to 0 over the run).

    Returns:
        An optax.GradientTransformation.

    Examples:
        >>> import nodepert as npt
        >>> run = npt.Run(optimizer="sgd(schedule=cosine)")
    """
    return optax.sgd(rate(lr, steps, schedule))


def momentum(
    lr: float, steps: int, *, momentum: float = 0.9, nesterov: bool = False, schedule: Schedule = "constant"
) -> optax.GradientTransformation:
    """Gradient descent with momentum: m <- momentum m + g; W <- W - lr m.

    Args:
        lr: Learning rate.
        steps: Steps of the whole run.
        momentum: Decay of m per step.
        nesterov: Use Nesterov's form, W <- W - lr (momentum m + g).
        schedule: constant, or cosine (from lr to 0 over the run).

    Returns:
        An optax.GradientTransformation.

    Raises:
        ValueError: momentum is outside 0 <= momentum < 1.

    Examples:
        >>> import nodepert as npt
        >>> run = npt.Run(optimizer="momentum(momentum=0.5)")
    """
    fraction("momentum", momentum)
    return optax.sgd(rate(lr, steps, schedule), momentum=momentum, nesterov=nesterov)


def adam(
    lr: float, steps: int, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, schedule: Schedule = "constant"
) -> optax.GradientTransformation:
    """Adam (Kingma and Ba 2015).

    Args:
        lr: Learning rate.
        steps: Steps of the whole run.
        b1: Decay of the first moment.
        b2: Decay of the second moment.
        eps: Added to the root of the second moment.
        schedule: constant, or cosine (from lr to 0 over the run).

    Returns:
        An optax.GradientTransformation.

    Raises:
        ValueError: b1 or b2 is outside [0, 1), or eps is not positive and finite.

    Examples:
        >>> import nodepert as npt
        >>> run = npt.Run(optimizer="adam(b1=0.5)")
    """
    fraction("b1", b1)
    fraction("b2", b2)
    positive("eps", eps)
    return optax.adam(rate(lr, steps, schedule), b1=b1, b2=b2, eps=eps)


def adamw(
    lr: float, steps: int, *, weight_decay: float = 1e-4, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8,
    schedule: Schedule = "constant",
) -> optax.GradientTransformation:  # fmt: skip
    """AdamW (Loshchilov and Hutter 2019): W <- W - lr (m + weight_decay W), with m the step of Adam.

    The decay follows the learning rate and its schedule; that of the run's `wd` does not.

    Args:
        lr: Learning rate.
        steps: Steps of the whole run.
        weight_decay: Decay per step, in units of lr.
        b1: Decay of the first moment.
        b2: Decay of the second moment.
        eps: Added to the root of the second moment.
        schedule: constant, or cosine (from lr to 0 over the run).

    Returns:
        An optax.GradientTransformation.

    Raises:
        ValueError: b1 or b2 is outside [0, 1), eps is not positive and finite, or weight_decay is negative.

    Examples:
        >>> import nodepert as npt
        >>> run = npt.Run(optimizer="adamw(weight_decay=0.01)")
    """
    fraction("b1", b1)
    fraction("b2", b2)
    positive("eps", eps)
    not_negative("weight_decay", weight_decay)
    return optax.adamw(rate(lr, steps, schedule), b1=b1, b2=b2, eps=eps, weight_decay=weight_decay)


def rmsprop(
    lr: float, steps: int, *, decay: float = 0.9, eps: float = 1e-8, schedule: Schedule = "constant"
) -> optax.GradientTransformation:
    """RMSProp (Tieleman and Hinton 2012).

    Args:
        lr: Learning rate.
        steps: Steps of the whole run.
        decay: Decay of the mean square.
        eps: Added to the mean square.
        schedule: constant, or cosine (from lr to 0 over the run).

    Returns:
        An optax.GradientTransformation.

    Raises:
        ValueError: decay is outside [0, 1), or eps is not positive and finite.

    Examples:
        >>> import nodepert as npt
        >>> run = npt.Run(optimizer="rmsprop(decay=0.99)")
    """
    fraction("decay", decay)
    positive("eps", eps)
    return optax.rmsprop(rate(lr, steps, schedule), decay=decay, eps=eps)


def clip(lr: float, steps: int, optimizer: Spec, *, norm: float = 1.0) -> optax.GradientTransformation:
    """Another optimizer on clipped gradients: clip(adam), clip(sgd, norm=0.5).

        g <- g min(1, norm / ||g||)

    with ||g|| the norm of the whole estimated gradient (`--metrics grad_norm` shows it, before clipping).

    Args:
        lr: Learning rate.
        steps: Steps of the whole run.
        optimizer: The wrapped optimizer.
        norm: The largest norm.

    Returns:
        An optax.GradientTransformation.

    Raises:
        ValueError: norm is not positive and finite.

    Examples:
        >>> import nodepert as npt
        >>> run = npt.Run(optimizer="clip(adam, norm=1.0)")
    """
    positive("norm", norm)
    return optax.chain(optax.clip_by_global_norm(norm), make("optimizer", optimizer, lr, steps))


def normalise(lr: float, steps: int, optimizer: Spec) -> optax.GradientTransformation:
    """Normalise weights after each step of another optimizer: normalise(sgd), normalise(adam(b1=0.5)).

        w_i <- s w_i / rms(w_i)

    with w_i the incoming weights of one unit (the leading axes of a parameter with two or more axes; biases are not
    normalised) and s the root mean square of that parameter at the start. Prevents the weights from diffusing, and
    thereby node perturbation from crashing (Hiratani et al. 2022).

    Args:
        lr: Learning rate.
        steps: Steps of the whole run.
        optimizer: The wrapped optimizer.

    Returns:
        An optax.GradientTransformation.

    Examples:
        >>> import nodepert as npt
        >>> run = npt.Run(optimizer="normalise(sgd)")
    """
    return optax.chain(make("optimizer", optimizer, lr, steps), normalised())


def normalised() -> optax.GradientTransformation:
    """The normalisation alone, to be chained after an optimizer; it needs `params`."""

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
    """The learning rate: constant, or a function of the step."""
    return lr if schedule == "constant" else optax.cosine_decay_schedule(lr, max(steps, 1))
