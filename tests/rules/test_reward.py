"""Reward alone: REINFORCE on units, noise on a share of the units, and the losses of a policy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from estimates import check_expected, drawn, rms_z

import nodepert as npt
from nodepert.core import differentiate
from nodepert.diagnostics.conformance.common import compiled
from nodepert.diagnostics.reference import smoothed_gradient
from nodepert.models.fc import fc
from nodepert.rules.noise import sparse
from nodepert.rules.prediction import Expected
from nodepert.training.losses import mse, reward, zero_one

pytestmark = pytest.mark.usefixtures("quickly_compiled")

MODEL = fc((4,), 3, width=5, depth=1)
BATCH = jax.random.normal(jax.random.key(1), (3, 4)), jnp.array([0, 2, 1])
PARAMS = MODEL.init(jax.random.key(2))


def estimates(spec, loss=mse, count=8000):
    rule = npt.make_rule(spec, MODEL, loss)
    state = rule.init(jax.random.key(0), PARAMS, BATCH[0])
    state = Expected(jnp.full_like(state.loss, 0.3)) if spec.startswith("reinforce") else state
    return drawn(rule, PARAMS, BATCH, count, state)


def smoothed(loss, sigma):
    return compiled(lambda key: smoothed_gradient(MODEL, loss, PARAMS, BATCH, sigma, key, 60_000))(jax.random.key(9))


@pytest.mark.parametrize("loss", [mse, zero_one])
def test_reinforce_estimates_the_gradient_of_the_smoothed_loss(loss):
    """At a large sigma, whatever the baseline; another sigma, or another sign, is found."""
    found, exact = estimates("reinforce(sigma=0.7)", loss), smoothed(loss, 0.7)
    check_expected(found, exact)
    assert rms_z(found, exact) < 1.3
    assert rms_z(jax.tree.map(lambda g: -g, found), exact) > 1.5
    assert rms_z(jax.tree.map(lambda g: 1.5 * g, found), exact) > 1.3


def test_the_baseline_of_reinforce_is_the_running_mean_of_all_losses():
    rule = npt.make_rule("reinforce(sigma=1e-6, rate=0.25)", MODEL, mse)
    losses = mse(MODEL.apply(PARAMS, BATCH[0]), BATCH[1])
    state, step = rule.init(jax.random.key(0), PARAMS, BATCH[0]), compiled(rule.grads)
    for expected in (losses.mean(), losses.mean()):  # the first mean, then a quarter of the next one
        state = step(jax.random.key(1), state, PARAMS, BATCH)[1]
        np.testing.assert_allclose(state.loss, expected[None], rtol=1e-4)
    state = step(jax.random.key(1), Expected(jnp.zeros(1)), PARAMS, BATCH)[1]
    np.testing.assert_allclose(state.loss, 0.25 * losses.mean()[None], rtol=1e-4)


@pytest.mark.parametrize("share", [0.1, 0.6, 1.0])
def test_sparse_noise_has_unit_variance_on_a_share_of_the_units(share):
    xi = np.asarray(sparse(share, jax.random.key(0), (4000, 25)), np.float64)
    error = (share * (1 - share) / xi.size) ** 0.5
    assert abs((xi != 0).mean() - share) <= 4 * error
    square = xi**2
    assert abs(square.mean() - 1) < 4 * square.std() / xi.size**0.5
    assert np.array_equal(xi[:10], sparse(share, jax.random.key(0), (10, 25)))  # whatever the batch size


@pytest.mark.parametrize("form", ["", ", replay=True", ", head=evaluated"])
def test_sparse_noise_is_unbiased_in_every_form(form):
    """Without the division by the share the estimate is too small: found."""
    exact = differentiate(MODEL, mse, PARAMS, BATCH)[0]
    found = estimates(f"np(noise=sparse, share=0.3{form})")
    check_expected(found, exact)
    with pytest.raises(AssertionError):
        check_expected(jax.tree.map(lambda g: 0.3 * g, found), exact)


def test_backpropagation_of_the_reward_is_the_policy_gradient():
    """sum over actions of p(action) (R - mean R) d log p(action), R = 1 for the right one."""
    o, y = jax.random.normal(jax.random.key(0), (3, 4)), jnp.array([1, 0, 3])
    p = jax.nn.softmax(o)
    right = jax.nn.one_hot(y, 4)
    np.testing.assert_allclose(reward(o, y), -(p * right).sum(1), rtol=1e-6)
    mean = (p * right).sum(1, keepdims=True)
    np.testing.assert_allclose(jax.grad(lambda o: reward(o, y).sum())(o), -p * (right - mean), atol=1e-6)
    assert reward(o[None], jnp.array([[1, -1, 3]]))[0, 1] == 0  # a step that is not graded


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("np(noise=sparse, share=0)", "share is a probability"),
        ("np(noise=sparse, share=1.5)", "share is a probability"),
        ("np(noise=sparse, samples=4, estimate=projected)", "needs noise=gaussian"),
        ("reinforce(rate=0)", "rate must be above 0"),
        ("reinforce(sigma=-1)", "sigma must be positive"),
    ],
)
def test_bad_arguments_are_errors(spec, message):
    with pytest.raises(npt.UserError, match=message):
        npt.make_rule(spec, MODEL, mse)
