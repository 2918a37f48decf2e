"""Mean and standard deviation of inputs."""

from __future__ import annotations

import numpy as np

BLOCK = 1 << 24  # pixels counted at a time: np.bincount widens each to 8 bytes


def statistics(images: np.ndarray, tokens: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each channel of inputs (N, ..., C); both float32 (C,), std 1 instead of 0.

    Of tokens they are 0 and 1. For uint8 images they are computed from counts of the values: exact, and without a float
    copy of the images.
    """
    channels = images.shape[-1]
    if tokens:
        return np.zeros(channels, np.float32), np.ones(channels, np.float32)
    if images.dtype != np.uint8:
        flat = images.reshape(-1, channels)
        mean, std = flat.mean(0, dtype=np.float64), flat.std(0, dtype=np.float64)
        constant = flat.min(0) == flat.max(0)  # its std may be a rounding error
        return mean.astype(np.float32), np.where(constant, 1, std).astype(np.float32)
    counts = np.zeros((channels, 256), np.int64)
    block = max(1, BLOCK // images[0].size)
    for start in range(0, len(images), block):
        part = images[start : start + block].reshape(-1, channels)
        for c in range(channels):
            counts[c] += np.bincount(part[:, c], minlength=256)
    values = np.arange(256.0)
    share = counts / counts.sum(axis=1, keepdims=True)
    mean = share @ values
    std = np.sqrt((share * (values - mean[:, None]) ** 2).sum(axis=1))
    return mean.astype(np.float32), np.where(std == 0, 1, std).astype(np.float32)
