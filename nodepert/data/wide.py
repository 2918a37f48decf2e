"""Inputs of a large offset, such as a Unix time: float32 has no digits left for their spread.

They keep their dtype, and are standardised on the host in float64, or for 64-bit integers in numpy's longdouble.
"""

from __future__ import annotations

from typing import Any

import numpy as np

LOST = 1e-3  # of a channel's std: rounding above this is too much
NOISE = 4  # units in the last place of float64: a std below this is rounding itself


def loses_spread(x: np.ndarray, rounded: np.ndarray, std: np.ndarray) -> bool:
    """Whether float32 loses the spread of a channel of x; `rounded` are x as float32, std that of its channels."""
    others = tuple(range(x.ndim - 1))
    low, high = rounded.min(others), rounded.max(others)
    single = np.finfo(np.float32)
    rounding = np.maximum(np.maximum(np.abs(low), np.abs(high)) * 2.0**-24, single.tiny)  # below, a device has 0
    wide = high - low.astype(np.float64) > single.max
    lost = np.flatnonzero((rounding > LOST * std) | (low == high) | wide)
    return any(x[..., c].min() != x[..., c].max() for c in lost)


def statistics(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel, (C,), with which `standardise` works on the host.

    A channel that has no spread in float64 either is constant: its std is 1, or its size where rounding makes it vary.
    """
    wide = np.longdouble if x.dtype.kind in "iu" and x.dtype.itemsize == 8 else np.float64
    flat = x.reshape(-1, x.shape[-1]).astype(wide)
    first = flat[0].copy()
    size = np.abs(flat).max(0)
    flat -= first  # exact, or nearly: sums of the inputs themselves would round
    mean, std = first + flat.mean(0), flat.std(0)
    if x.dtype == np.float64:
        std = np.where(std > NOISE * np.spacing(size), std, np.where(std > 0, np.maximum(size, 1), 1))
    return mean, np.where(std > 0, std, 1)


def standardise(x: Any, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """(x - mean) / std on the host, rounded to float32 at the end."""
    return ((np.asarray(x).astype(mean.dtype) - mean) / std).astype(np.float32)
