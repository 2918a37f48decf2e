"""The verdict of a check, decided here: is a rule exact, unbiased within error, or biased, at each node and in all?

Undecided: these draws show no bias, but one of ALONG or IN_ALL could hide in their noise.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from nodepert.diagnostics.bias import (
    FLIPS,
    LUCK,
    draws_to_exclude,
    mean_and_error,
    mean_test,
    mixing,
    off_diagonal,
    sign_test,
)
from nodepert.diagnostics.moments import FEWEST, Moments, together

ALL = "all nodes"
ALPHA = 1e-3  # probability that a check of a rule without bias finds one
# A rule is unbiased only if its draws exclude a bias as large as these, in units of the gradient's norm. 1,000 draws of
# 300,000 weights can exclude 20% in one direction; in all directions their mean has itself an error of 30%.
ALONG = 0.2  # along the gradient, where it is a gain of 0.8 or 1.2, and along the bias of mixing
IN_ALL = 0.5  # in all directions together
MARGIN = 1.2  # of the draws that would decide, since the spread is itself an estimate
COLUMNS = ("cosine", "cosine_error", "cosine_mean", "gain", "gain_error", "mixing", "mixing_error", "bias", "bias_low",
           "bias_high", "variance", "norm_ratio", "draws_to_half", "draws_to_decide")  # fmt: skip


def judged(nodes: dict[str, Moments], tolerance: float) -> dict[str, dict[str, Any]]:
    """{node: its columns and verdict}, and those of all nodes last: biased if a node is.

    Gain, mixing and bias of every node and of all nodes are tested, each at ALPHA over the number of tests. Errors
    below `tolerance`, relative to the gradient, are taken for rounding.
    """
    level = ALPHA / (3 * (len(nodes) + 1))
    found = {name: numbers(m, level, tolerance) for name, m in nodes.items()}
    total = numbers(together(nodes), level, tolerance)
    if any(f["verdict"] == "biased" for f in found.values()):
        total["verdict"] = "biased"
    return found | {ALL: total}


def numbers(m: Moments, level: float, tolerance: float) -> dict[str, Any]:
    """The columns of a row of `nodepert.check`, and its verdict; `level`: probability of a false alarm in each test."""
    if m.norm == 0:
        return dict.fromkeys(COLUMNS, math.nan) | {"verdict": "no gradient"}
    gain, gain_error = mean_and_error(m.along)
    mixed, mixed_error = mixing(m.mixed, m.along, m.r_along, m.r_square, tolerance)
    variance = m.change.sum() / (2 * (len(m.along) - 1))
    apart = m.gram.mean()  # ||m - g||^2, with the contribution of noise
    length = math.sqrt(max(apart + 2 * gain - 1, 0))  # ||m||
    square, error = off_diagonal(m.gram)
    silent = variance <= (0.1 * tolerance) ** 2 * m.square.mean()
    if silent:
        variance, gain_error, mixed_error, square, error = 0.0, 0.0, 0.0, apart, 0.0
    low, mid, high = (math.sqrt(max(s, 0)) for s in (square - 2 * error, square, max(square, 0) + 2 * error))
    offs = deviations(m, tolerance)
    needed = draws_to_decide(offs, error, level)
    if silent:
        verdict = "exact" if apart < tolerance**2 else "biased"
    elif is_biased(m, offs, level, tolerance):
        verdict = "biased"
    elif high <= IN_ALL and all(mean_test(off, side) < level for off in offs for side in (-ALONG, ALONG)):
        verdict = "unbiased"
    else:
        verdict, needed = "undecided", max(needed, 2.0 * len(m.along))
    values = (
        *(*mean_and_error(m.along / np.where(m.square > 0, np.sqrt(m.square), 1)), gain / length if length else 0.0),
        *(gain, gain_error, mixed, mixed_error, mid, low, high, variance, math.sqrt(m.square.mean())),
        draws_to_half(gain, square, variance) if verdict == "biased" else draws_to_half(1, 0, variance),
        needed,
    )
    return {k: float(v) for k, v in zip(COLUMNS, values, strict=True)} | {"verdict": verdict}


def deviations(m: Moments, tolerance: float) -> list[np.ndarray]:
    """The components of g_k - g, (K,), along g, and along what of r is across g, if anything is."""
    across = m.r_square - m.r_along**2
    mixed = [(m.mixed - m.r_along * m.along) / math.sqrt(across)] if across >= tolerance**2 else []
    return [m.along - 1, *mixed]


def is_biased(m: Moments, offs: list[np.ndarray], level: float, tolerance: float) -> bool:
    """Whether gain, mixing, or bias across the gradient is more than chance, and more than rounding.

    The bias across the gradient is tested by random signs, which need symmetric noise; along it, noise is skewed.
    """
    if any(abs(off.mean()) > tolerance and mean_test(off, 0.0) < level for off in offs):
        return True
    along = m.along.reshape(len(m.gram), -1).mean(1) - 1
    rest = m.gram - np.outer(along, along)
    return off_diagonal(rest)[0] > tolerance**2 and sign_test(rest) < max(level, 1 / FLIPS)


def draws_to_decide(offs: list[np.ndarray], error: float, level: float) -> float:
    """The number of draws, to two digits, that would give a rule without bias the verdict unbiased.

    `error`: of the squared bias, which falls as 1 / draws; it may come out LUCK errors above 0, and its upper limit is
    2 more.
    """
    in_all = len(offs[0]) * (LUCK + 2) * error / IN_ALL**2
    needed = max(FEWEST, MARGIN * max(in_all, *(draws_to_exclude(off, ALONG, level) for off in offs)))
    unit = 10 ** (math.floor(math.log10(needed)) - 1)
    return float(math.ceil(needed / unit) * unit)


def draws_to_half(gain: float, bias2: float, variance: float) -> float:
    """The number of draws K whose mean has cosine 1/2 with g: <m, g> / sqrt(||m||^2 + variance / K) = 1/2.

    Here ||m||^2 = bias^2 + 2 gain - 1.
    """
    square = max(max(bias2, 0) + 2 * gain - 1, gain**2)
    room = 4 * gain**2 - square
    if gain <= 0 or room < 0 or (room == 0 and variance > 0):
        return math.inf
    return max(1.0, math.ceil(variance / room)) if variance else 1.0
