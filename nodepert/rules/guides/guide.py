"""What a guide is: a prediction of the error signals that knows nothing of this step's noise, and how it learns.

    s_l = d_l + (slope - <d, xi>) xi_l,    E s_l = delta_l whatever d is

<d, xi> is over all perturbed units. The variance is that of node perturbation of delta - d: the better the prediction,
the smaller it is, and it is zero where d is the error signal itself. A guide learns from s_l - d_l, which the noise
gives without bias.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from nodepert.core import Array, Model, Params, Signals
from nodepert.rules.between import Between


class Clean(NamedTuple):
    """What a guide may use: the clean pass, and the error of the outputs, dL_b/do, (B, ...)."""

    params: Params
    x: Array
    cut: Between
    error: Array


class Guide(NamedTuple):
    """A guide, as three pure functions. A node that it does not
    predict has its exact signal where it only reaches the outputs, else 0."""

    init: Callable[..., Any]  # (key, clean) -> state; clean: a pass of one example, error included
    signals: Callable[[Any, Clean], Signals]  # (state, clean) -> {node: (B, ...)}, shaped as the pre-activations
    learn: Callable[[Any, Clean, Signals, Signals], Any]  # (state, clean, predicted, residual s - d) -> state


def none(model: Model) -> Guide:
    """No guide: plain node perturbation."""
    return Guide(lambda key, clean: (), lambda state, clean: {}, lambda state, clean, predicted, residual: state)
