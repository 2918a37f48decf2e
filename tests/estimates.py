"""Draws of a rule's estimate in a test, and their mean against an expectation."""

import jax
import numpy as np

from nodepert.diagnostics.bias import principal_z, rms
from nodepert.diagnostics.conformance.common import compiled
from nodepert.diagnostics.conformance.mean import check_unbiased, vectors


def drawn(rule, params, batch, draws, state=(), key=3, per_pass=1000):
    """Gradients of many draws at one state, stacked."""

    @compiled
    def run(keys, state, params, batch):
        return jax.lax.map(lambda k: rule.grads(k, state, params, batch)[0], keys, batch_size=per_pass)

    return run(jax.random.split(jax.random.key(key), draws), state, params, batch)


def check_expected(draws, expected):
    """Require the expected mean, by its gain and by z-scores, as the conformance tests do of the gradient."""
    draws, expected = flat(draws, expected)
    check_unbiased("these draws", {"all nodes": draws}, {"all nodes": expected})


def rms_z(draws, expected):
    """rms of (mean of the draws - expected) / standard error along the principal axes of the noise."""
    draws, expected = flat(draws, expected)
    return rms(principal_z(draws, expected, floor=1e-6 * np.abs(expected).max())[0])


def flat(draws, expected):
    return vectors(draws), vectors(jax.tree.map(lambda e: e[None], expected))[0]
