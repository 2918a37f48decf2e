"""Momentum feedback: what its matrices and signals are on average, on a linear network and behind a ReLU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from estimates import check_expected, drawn

import nodepert as npt
from nodepert.core import adding, backprop, preactivations
from nodepert.diagnostics.conformance.common import compiled
from nodepert.models.fc import fc, linfc
from nodepert.rules import momentum
from nodepert.rules.guided import output_error
from nodepert.training.losses import cross_entropy, linear_mse

pytestmark = pytest.mark.usefixtures("quickly_compiled", "strict_dtypes")

DRAWS = 2000
LINEAR = linfc((5,), 3, width=6, depth=2)
PARAMS = LINEAR.init(jax.random.key(2))
BATCH = jnp.asarray(np.random.default_rng(2).normal(size=(4, 5)), jnp.float32), jnp.array([0, 1, 2, 1])


def step(rule, state, params=PARAMS):
    return compiled(lambda s, p, b: rule.grads(jax.random.key(1), s, p, b))(state, params, BATCH)


def jacobians(model, params, x):
    """{node: the transposed Jacobian of the outputs with respect to its pre-activation, (outputs, units)}, of an x."""
    zeros = jax.tree.map(jnp.zeros_like, preactivations(model, params, x[None]))
    found = jax.jacobian(lambda eps: model.apply(params, x[None], adding(eps))[0])(zeros)
    return {name: j[:, 0] for name, j in found.items()}


def matrices(form):
    """Draws of what one step adds to M_l."""
    rule = npt.make_rule(f"opzo(momentum=0.0, {form})", LINEAR, linear_mse)
    state = rule.init(jax.random.key(0), PARAMS, BATCH[0])
    new = rule._replace(grads=lambda key, s, params, batch: (rule.grads(key, s, params, batch)[1], s, None))
    return drawn(new, PARAMS, BATCH, DRAWS, state)


@pytest.mark.parametrize(
    "form", ["sigma=2.0", "difference=central, noise=rademacher", "difference=jvp, noise=sphere",
             "difference=single, sigma=2.0"]
)  # fmt: skip
def test_on_a_linear_network_the_matrices_are_the_transposed_jacobian_on_average(form):
    found, expected = matrices(form), jacobians(LINEAR, PARAMS, BATCH[0][0])
    check_expected(found, expected)
    with pytest.raises(AssertionError, match="factor or a sign"):
        check_expected(jax.tree.map(lambda m: 1.25 * m, found), expected)


def test_noise_of_another_example_is_no_feedback(monkeypatch):
    right = momentum.effect
    monkeypatch.setattr(momentum, "effect", lambda xi, change: right(jnp.roll(xi, 1, 0), change))
    with pytest.raises(AssertionError):
        check_expected(matrices("sigma=0.1"), jacobians(LINEAR, PARAMS, BATCH[0][0]))


def test_with_converged_matrices_a_linear_network_learns_as_by_backpropagation():
    state = jacobians(LINEAR, PARAMS, BATCH[0][0])
    exact = step(backprop(LINEAR, cross_entropy), ())[0]
    rule = npt.make_rule("opzo(momentum=0.999999)", LINEAR, cross_entropy)
    found, new, _ = step(rule, state)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(exact), strict=True):
        assert np.allclose(a, b, atol=1e-4)
    assert all(np.allclose(new[name], state[name], atol=1e-4) for name in state)


def test_the_matrices_are_a_running_mean():
    def after(momentum, state):
        return step(npt.make_rule(f"opzo(momentum={momentum})", LINEAR, linear_mse), state)[1]

    state = jacobians(LINEAR, PARAMS, BATCH[0][0])
    new, mixed = after(0.0, state), after(0.75, state)
    assert all(np.allclose(mixed[name], 0.75 * state[name] + 0.25 * new[name], atol=1e-5) for name in state)


@pytest.mark.parametrize("difference", ["forward", "single"])
def test_inactive_units_get_no_signal_and_active_ones_m_e(difference):
    model = fc((5,), 3, width=6, depth=1)
    params = model.init(jax.random.key(4))
    state = {"fc0": jax.random.normal(jax.random.key(5), (3, 6)), "out": jnp.zeros((3, 3))}
    rule = npt.make_rule(f"opzo(momentum=0.999999, sigma=1e-5, difference={difference})", model, linear_mse)
    grads, _, info = step(rule, state, params)
    a, e = preactivations(model, params, BATCH[0])["fc0"], output_error(linear_mse, info.outputs, BATCH[1])
    expected = jnp.where(a > 0, e @ state["fc0"], 0).mean(0)
    assert 0 < (a > 0).mean() < 1 and np.allclose(grads["fc0"]["b"], expected, atol=0.02)
    assert np.allclose(grads["out"]["b"], e.mean(0), atol=1e-3)


def test_it_learns():
    run = npt.Run(dataset="digits(train=600)", network="fc(width=30)", loss="cross-entropy", rule="opzo", lr=1e-2,
                  epochs=5, batchsize=20)  # fmt: skip
    with jax.numpy_dtype_promotion("standard"):
        assert npt.train(run).test_acc > 88


@pytest.mark.parametrize("spec", ["opzo(sigma=0)", "opzo(momentum=1.0)", "opzo(difference=double)"])
def test_wrong_arguments_are_refused(spec):
    with pytest.raises(npt.UserError):
        npt.make_rule(spec, LINEAR, linear_mse)
