"""Is the mean of many noisy estimates the gradient? Two tests, whose power is stated."""

from __future__ import annotations

import numpy as np

from nodepert.diagnostics.conformance.common import require

RMS_Z = 1.5  # limit of the rms z-score, which is 1 but for chance
FACTOR_Z = 4.0  # limit of the z-score of the factor between mean and gradient
RESOLUTION = 0.035  # limit of that factor's standard error: 1.15 is then 4 of them from 1, on each of three networks


def check_unbiased(where: str, estimates: dict[str, np.ndarray], exact: dict[str, np.ndarray]) -> None:
    """Hold estimates {node: (draws, size)} against gradients {node: (size,)}. Raises AssertionError.

    The factor is the length of the mean along the gradient, node by node and in all; a wrong scale or sign shows in few
    draws. z-scores, (mean - gradient) / standard error, are taken along the principal axes of the noise, where they
    are independent; their rms finds errors in any direction, as of noise that examples share. Estimates too noisy to
    tell a factor of 1.15 are refused.
    """
    for node, g in exact.items():
        check_factor(f"{where}, at node '{node}'", estimates[node] @ g / (g @ g))
    e, g = np.concatenate([estimates[n] for n in exact], axis=1), np.concatenate(list(exact.values()))
    error = check_factor(where, e @ g / (g @ g))
    need = int(len(e) * (error / RESOLUTION) ** 2) + 1
    require(error <= RESOLUTION, where, f"it is too noisy for {len(e):,} draws to tell its bias; give draws={need}")

    gap, limit = e.mean(0) - g, 1e-3 * np.abs(g).max()
    variances, axes = np.linalg.eigh(np.cov(e, rowvar=False))
    errors = np.sqrt(np.maximum(variances, 0) / len(e))
    noisy = errors > 1e-3 * limit
    along = axes.T[noisy] @ gap
    rms = np.square(along / errors[noisy]).mean() ** 0.5 if noisy.any() else 0.0
    shared = "is noise shared by examples whose losses are averaged?"
    require(rms < RMS_Z, where, f"its mean is not the gradient (rms z-score {rms:.2f}, limit {RMS_Z}); {shared}")
    off = np.abs(gap - along @ axes.T[noisy]).max()
    require(off < limit, where, f"its mean is off the gradient by {off:.1e} in directions without noise; {shared}")


def check_factor(where: str, along: np.ndarray) -> float:
    """The mean of draws along the gradient, in units of its length, must be 1; gives the standard error."""
    mean, error = along.mean(), along.std() / len(along) ** 0.5
    found = (f"its mean is {mean:.3f} +- {error:.3f} times the gradient, not 1; is a factor or a sign wrong, or is "
             "noise shared by examples whose losses are averaged?")  # fmt: skip
    require(abs(mean - 1) <= max(FACTOR_Z * error, 1e-4), where, found)
    return float(error)
