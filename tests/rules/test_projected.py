"""Projected slopes: mean and second moment in closed form, and the exact limit of as many draws as units."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from estimates import check_expected, drawn

import nodepert as npt
from nodepert.core import backprop
from nodepert.diagnostics.conformance.common import compiled
from nodepert.models.fc import fc
from nodepert.training.losses import mse

pytestmark = pytest.mark.usefixtures("quickly_compiled", "strict_dtypes")

WIDTH, UNITS, DRAWS = 5, 8, 4000
MODEL = fc((5,), 3, width=WIDTH, depth=1)
PARAMS = MODEL.init(jax.random.key(2))
BATCH = jnp.asarray(np.random.default_rng(1).normal(size=(3, 5)), jnp.float32), jnp.array([2, 0, 1])
ONE = jax.tree.map(lambda a: a[:1], BATCH)


def draws(options, batch=BATCH, count=DRAWS):
    return drawn(npt.make_rule(f"np(difference=jvp, {options})", MODEL, mse), PARAMS, batch, count)


def gradient(batch=BATCH, factor=1.0):
    found = compiled(lambda b: backprop(MODEL, mse).grads(jax.random.key(0), (), PARAMS, b)[0])(batch)
    return jax.tree.map(lambda g: factor * g, found)


def signals(grads):
    """Of one example: the gradients of the biases, (..., units)."""
    return np.concatenate([np.asarray(g["b"], np.float64) for g in grads.values()], -1)


@pytest.mark.parametrize("samples", [1, 2, 4])
def test_the_mean_of_projected_slopes_is_k_of_n_of_the_gradient(samples):
    found = draws(f"samples={samples}, estimate=projected")
    check_expected(found, gradient(factor=samples / UNITS))
    with pytest.raises(AssertionError, match="factor or a sign"):
        check_expected(found, gradient())


@pytest.mark.parametrize("form", ["samples=3, estimate=rescaled", "samples=3, estimate=rescaled, sharing=batch"])
def test_rescaled_ones_are_unbiased(form):
    check_expected(draws(form), gradient())


@pytest.mark.parametrize("samples", [1, 2, 4])
@pytest.mark.parametrize(
    ("estimate", "factor"), [("projected", lambda k: 1 - k / UNITS), ("rescaled", lambda k: UNITS / k - 1)]
)
def test_the_squared_error_is_that_of_a_projection(samples, estimate, factor):
    delta = signals(gradient(ONE))
    squares = np.square(signals(draws(f"samples={samples}, estimate={estimate}", ONE)) - delta).sum(1)
    error = squares.std() / len(squares) ** 0.5
    expected = factor(samples) * np.square(delta).sum()
    assert abs(squares.mean() - expected) < 4 * error + 1e-4 * expected  # for n = 2 K it is the same in every draw


def test_a_projection_is_not_longer_than_the_signal_and_has_the_measured_slopes():
    delta, found = signals(gradient(ONE)), signals(draws("samples=3, estimate=projected", ONE, 200))
    assert (np.square(found).sum(1) <= np.square(delta).sum() * 1.001).all()
    assert np.allclose(found @ delta, np.square(found).sum(1), rtol=1e-3)  # what is left is orthogonal to it


@pytest.mark.parametrize("estimate", ["projected", "rescaled"])
def test_as_many_draws_as_units_give_the_gradient(estimate):
    found = draws(f"samples={UNITS}, estimate={estimate}", count=4)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(gradient()), strict=True):
        assert np.allclose(a, b, atol=1e-3)


def test_more_draws_than_units_and_other_noise_are_one_line():
    rule = npt.make_rule("np(samples=9, estimate=projected)", MODEL, mse)
    with pytest.raises(npt.UserError, match="at most the number of perturbed units, 8; got 9"):
        rule.grads(jax.random.key(0), (), PARAMS, BATCH)
    for option in ("noise=rademacher", "active=True", "replay=True", "credit=own", "baseline=running"):
        with pytest.raises(npt.UserError, match="needs noise=gaussian and a clean pass"):
            npt.make_rule(f"np(estimate=rescaled, {option})", MODEL, mse)


def test_the_default_has_the_identity_that_it_had():
    assert npt.Run(rule="np(samples=4, estimate=mean)").id == npt.Run(rule="np(samples=4)").id
