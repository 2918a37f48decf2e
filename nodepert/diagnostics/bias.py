"""The statistics of bias: is the mean of noisy estimates the gradient? `check`, `check_rule` and the tests share them.

All take NumPy arrays in float64: draws g_k, (K, n), of an estimate with mean m, and the exact gradient g, (n,).
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from scipy.special import stdtr

FLIPS = 2**17
LUCK = 2.0  # standard errors


def mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """The mean of independent values, (K,), and its standard error."""
    return values.mean(), values.std(ddof=1) / len(values) ** 0.5


def mean_test(values: np.ndarray, expected: float) -> np.ndarray:
    """The probability of a mean as far from the expected one, by chance, of independent values, (..., K)."""
    mean, spread, skew, kurtosis = shape(values)
    constant = spread <= 1e-12 * np.abs(mean)
    t = (mean - expected) / np.where(constant, 1, spread) * (values.shape[-1] - 1) ** 0.5
    return np.where(constant, mean == expected, chance(t, skew, kurtosis, values.shape[-1]))


def shape(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Mean, standard deviation, skewness and kurtosis of values, (..., K)."""
    mean, spread = values.mean(-1), values.std(-1)
    z = (values - mean[..., None]) / np.where(spread > 0, spread, 1)[..., None]
    square = z * z  # faster than powers
    return mean, spread, (square * z).mean(-1), (square * square).mean(-1)


def chance(t: np.ndarray, skew: np.ndarray, kurtosis: np.ndarray, count: np.ndarray | int) -> np.ndarray:
    """The probability of a t as large as this, of either sign, of `count` values of this skewness and kurtosis.

    Noise of estimates is skewed and has heavy tails (one unit gives xi^2), so that Student's t of few draws is larger
    than a normal number. Against skew, t is transformed as by Hall (1992), with the sample's skewness; against tails,
    it has K / (kurtosis - 1) degrees of freedom, half of what makes the sample's variance as uncertain as it is.
    """
    a = skew / np.sqrt(count)
    straight = t + a * t**2 / 3 + a**2 * t**3 / 27 + a / 6
    return 2 * stdtr(count / np.maximum(kurtosis - 1, 1), -np.minimum(np.abs(t), np.abs(straight)))


def draws_to_exclude(values: np.ndarray, off: float, level: float) -> float:
    """The number of values like these, (K,), by whose mean `mean_test` excludes at `level` that it is `off` or -`off`.

    The mean is taken to be 0, and to come out LUCK standard errors nearer to `off` than it is.
    """
    _, spread, skew, kurtosis = shape(values)
    ratio = max(spread / off, 1e-12)
    counts = max(ratio**2, kurtosis, 1) * np.geomspace(1, 1e4, 140)  # 7% apart; the last one excludes anything
    t = np.maximum(np.sqrt(counts) / ratio - LUCK, 0)
    excluded = np.maximum(*(chance(side, skew, kurtosis, counts) for side in (t, -t))) < level
    return float(counts[excluded.argmax()])


def gain(estimates: np.ndarray, exact: np.ndarray) -> tuple[float, float]:
    """<m, g> / ||g||^2, which is 1 without bias, and its standard error."""
    return mean_and_error(estimates @ exact / (exact @ exact))


def principal_z(estimates: np.ndarray, exact: np.ndarray, floor: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """z-scores of m - g along the principal axes of the noise, where they are independent; and the rest of m - g.

    The rest, (n,), lies along axes on which the standard error of m is at most `floor`: there is no noise to compare
    it with.
    """
    gap = estimates.mean(0) - exact
    variances, axes = np.linalg.eigh(np.cov(estimates, rowvar=False))
    errors = np.sqrt(np.maximum(variances, 0) / len(estimates))
    noisy = errors > floor
    along = axes.T[noisy] @ gap
    return along / errors[noisy], gap - along @ axes.T[noisy]


def rms(values: np.ndarray) -> float:
    """Root mean square; of z-scores it is 1 without bias, +- (2 x their number)^-1/2. 0 of no values."""
    return float(np.square(values).mean() ** 0.5) if values.size else 0.0


def mixing(along_r: np.ndarray, along_g: np.ndarray, r_g: float, r_r: float, floor: float) -> tuple[float, float]:
    """The component of m - g along r, less what of r is along g, and its standard error; r itself has 1.

    Takes <g_k, r> and <g_k, g>, (K,), <r, g> and ||r||^2, for ||g|| = 1. nan where r is along g but for `floor`: all
    examples are alike, or there is one.
    """
    across = r_r - r_g**2
    return mean_and_error((along_r - r_g * along_g) / across) if across >= floor**2 else (math.nan, math.nan)


def off_diagonal(gram: np.ndarray) -> tuple[float, float]:
    """||m - g||^2 without the contribution of noise, and its jackknife error.

    It is the mean of <m_i - g, m_j - g> over i != j, of the means m_i of groups of draws; `gram` has all products.
    """
    n = len(gram)
    rows = gram.sum(1) - np.diag(gram)
    left_out = (rows.sum() - 2 * rows) / ((n - 1) * (n - 2))
    return rows.sum() / (n * (n - 1)), math.sqrt((n - 1) / n * np.square(left_out - left_out.mean()).sum())


def sign_test(gram: np.ndarray) -> float:
    """The probability of off-diagonal products as large as these, without bias.

    Without bias the mean error of a group is as likely as its negative, whatever its covariance: the sum of the
    off-diagonal products is compared with its values under random signs of the groups.
    """
    products = gram - np.diag(np.diag(gram))
    total, spread = products.sum(), math.sqrt(2 * np.square(products).sum())  # the standard deviation under the signs
    if total < 2 * spread:
        return 1.0  # not unlikely, and not worth the time
    flips = signs(len(gram))
    sums = np.einsum("fi,fi->f", flips @ (products / spread).astype(np.float32), flips)
    return float((1 + (sums >= total / spread - 1e-4).sum()) / (1 + FLIPS))


@cache
def signs(groups: int) -> np.ndarray:
    """Random signs, (FLIPS, groups), the same at every call."""
    return np.random.default_rng(0).choice(np.array([-1, 1], np.float32), (FLIPS, groups))
