"""Draws of a rule's estimate in a test, and how far their mean is from an expectation."""

import jax
import numpy as np

from nodepert.diagnostics.bias import principal_z, rms
from nodepert.diagnostics.conformance.common import compiled
from nodepert.diagnostics.conformance.mean import vectors


def drawn(rule, params, batch, draws, state=(), key=3, per_pass=1000):
    """Gradients of many draws at one state, stacked."""

    @compiled
    def run(keys, state, params, batch):
        return jax.lax.map(lambda k: rule.grads(k, state, params, batch)[0], keys, batch_size=per_pass)

    return run(jax.random.split(jax.random.key(key), draws), state, params, batch)


def rms_z(draws, expected):
    """rms of (mean of the draws - expected) / standard error along the principal axes of the noise.

    It is 1 +- (2 x number of axes)^-1/2 where the expectation is right.
    """
    draws, expected = vectors(draws), vectors(jax.tree.map(lambda e: e[None], expected))[0]
    limit = 1e-3 * np.abs(expected).max()
    z, rest = principal_z(draws, expected, floor=1e-3 * limit)
    assert np.abs(rest).max() < limit  # a silent presynaptic unit: no gradient, no noise
    return rms(z)
