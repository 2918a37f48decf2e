"""`check` where there is no derivative: the gradient of the smoothed loss, against its closed form, and mutants."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nodepert as npt
from nodepert.core import Model, Rule, plain
from nodepert.diagnostics.bias import mean_and_error
from nodepert.diagnostics.conformance.common import compiled
from nodepert.diagnostics.reference import smoothed_gradient
from nodepert.models.layers import dense
from nodepert.training.losses import zero_one

pytestmark = pytest.mark.usefixtures("quickly_compiled")

SIGMA = 0.5
X = jnp.array([[0.4], [-0.7]])
PARAMS = {"a": {"w": jnp.array([[0.5]]), "b": jnp.array([0.1])}}
BATCH = X, jnp.zeros((2, 1))


def apply(params, x, node=plain):
    return (node("a", dense, params["a"], x) > 0).astype(x.dtype)


STEP = Model(lambda key: PARAMS, apply)  # one unit with a step at 0


def output(outputs, targets):
    return outputs[:, 0] - targets[:, 0]


def closed_form():
    """dE[1(a + sigma xi > 0)]/da = N(a / sigma) / sigma, for each example."""
    a = np.asarray(X @ PARAMS["a"]["w"] + PARAMS["a"]["b"], np.float64)
    slope = np.exp(-((a / SIGMA) ** 2) / 2) / np.sqrt(2 * np.pi) / SIGMA / len(a)
    return {"w": (slope * np.asarray(X)).sum(), "b": slope.sum()}


def test_the_smoothed_gradient_is_the_closed_form():
    @compiled
    def means(keys):
        return jax.vmap(lambda key: smoothed_gradient(STEP, output, PARAMS, BATCH, SIGMA, key, 500)["a"])(keys)

    found = means(jax.random.split(jax.random.key(0), 40))
    for name, exact in closed_form().items():
        mean, error = mean_and_error(np.asarray(found[name], np.float64).ravel())
        assert abs(mean - exact) < 3 * error < 0.1 * abs(exact)


def checked(rule, **options):
    return npt.check(STEP, rule, output, BATCH, params=PARAMS, draws=4000, **options)


@pytest.mark.parametrize("difference", ["forward", "central"])
def test_np_is_unbiased_at_a_step(difference):
    """Backpropagation gives 0, and check says that it compares with something else."""
    found = checked(f"np(sigma={SIGMA}, difference={difference})")
    assert found.verdict == "unbiased" and found.agrees and not found.steps
    assert "of the loss smoothed by Gaussian noise of sigma=0.5" in str(found)
    assert "its derivative is 0 at a, where noise does lower it; it is the mean of 40,000 draws" in str(found)
    assert "smoothed" in found.to_dict()["about"]


def louder(model, loss):
    """np, 1.3 times too large."""
    rule = npt.make_rule(f"np(sigma={SIGMA})", model, loss)

    def grads(*args):
        found, state, info = rule.grads(*args)
        return jax.tree.map(lambda g: 1.3 * g, found), state, info

    return Rule(rule.init, grads)


@pytest.mark.parametrize("mutant", ["np(sigma=0.1)", "np(difference=jvp)", "sgd", louder])
def test_mutants_are_biased_at_a_step(mutant):
    """Another sigma, the derivative of a step, a factor."""
    assert checked(mutant, smoothed=SIGMA, study=False).verdict == "biased"


def test_a_rule_without_sigma_is_compared_with_the_exact_gradient():
    assert checked("sgd").verdict == "no gradient"


@pytest.mark.parametrize(("targets", "about"), [(1.0, "at a, where noise"), (0.0, "")])
def test_what_noise_can_only_raise_is_a_minimum(targets, about):
    """At a minimum the gradient is 0 too."""
    bowl = Model(lambda key: PARAMS, lambda params, x, node=plain: node("a", dense, params["a"], 0 * x))
    params = {"a": {"w": jnp.ones((1, 1)), "b": jnp.zeros(1)}}
    signed = 1 - 2 * targets  # a maximum, or a minimum
    found = npt.check(bowl, "np", lambda o, y: signed * jnp.square(o[:, 0]), BATCH, params=params, draws=100)
    assert about in found.about and bool(about) == bool(found.about)


@pytest.mark.parametrize("smoothed", [0, -1.0, float("inf"), "much"])
def test_smoothed_is_a_positive_number(smoothed):
    with pytest.raises(npt.UserError, match="smoothed must be a positive number"):
        checked("np", smoothed=smoothed)


# ---------------------------------------------------------------------------------------- zero-one


def test_zero_one_is_the_classification_error():
    o = jnp.array([[0.0, 1.0, 0.5], [2.0, 1.0, 0.0]])
    assert zero_one(o, jnp.array([1, 1])).tolist() == [0, 1]
    assert zero_one(o[None], jnp.array([[-1, 1]])).tolist() == [[0, 1]]  # a step that is not graded
    with pytest.raises(ValueError, match="needs class indices"):
        zero_one(o, o)


@pytest.mark.parametrize("rule", ["sgd", "np(difference=jvp)", "fa"])
def test_rules_that_need_a_derivative_of_zero_one_are_refused(rule):
    run = npt.Run(dataset="digits(train=40,test=10)", network="fc(width=5)", loss="zero-one", rule=rule, batchsize=20)
    with pytest.raises(npt.UserError, match="zero-one has no derivative, and this rule needs one; take np"):
        npt.train(run)


def test_a_loss_without_a_derivative_is_smoothed():
    x, y = jax.random.normal(jax.random.key(0), (4, 5)), jnp.arange(4) % 3
    found = npt.check(npt.make_model("fc(depth=0)", (5,), 3), "np(sigma=0.5)", "zero-one", (x, y), draws=4000)
    assert found.verdict == "unbiased" and "sigma=0.5 on all pre-activations, as it has no derivative" in found.about
