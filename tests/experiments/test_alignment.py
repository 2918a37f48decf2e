"""Alignment: the law is what is measured, rule by rule; its ingredients are those of backpropagation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nodepert.core import backprop
from nodepert.errors import UserError
from nodepert.experiments import build
from nodepert.experiments.experiment import of_part
from nodepert.experiments.shared.cosines import cosines, known, law, unbiased, variance, vector
from nodepert.models.fc import fc
from nodepert.registry import make
from nodepert.training.losses import cross_entropy

MODEL = fc((6,), 3, width=5, depth=2)


def task():
    keys = jax.random.split(jax.random.key(0), 3)
    batch = jax.random.normal(keys[0], (8, 6)), jax.random.randint(keys[1], (8,), 0, 3)
    return MODEL.init(keys[2]), batch


def test_the_squared_norms_of_the_examples_gradients_are_inputs_times_deltas():
    params, (x, y) = task()
    about = known(MODEL, cross_entropy, params, (x, y))
    rule = backprop(MODEL, cross_entropy)
    alone = jax.jit(lambda x, y: rule.grads(jax.random.key(0), (), params, (x[None], y[None]))[0])
    for b in range(len(x)):
        one = alone(x[b], y[b])
        for name, gradient in one.items():
            square = float(jnp.square(vector(gradient)).sum())
            assert about.inputs[name][b] * about.deltas[name][b] == pytest.approx(square, rel=1e-4)


@pytest.mark.parametrize(
    "rule", ["np", "np(noise=rademacher)", "np(noise=sphere)", "inp", "inp(noise=rademacher)", "wp",
             "wp(noise=rademacher)", "np(difference=central)"])  # fmt: skip
def test_the_variance_of_an_estimate_is_the_laws(rule):
    params, batch = task()
    spec, about = unbiased(rule), known(MODEL, cross_entropy, params, batch)
    built = make("rule", spec, MODEL, cross_entropy)

    def square(key):
        return jnp.square(vector(built.grads(key, (), params, batch)[0]) - about.gradient).sum()

    found = np.asarray(jax.jit(jax.vmap(square))(jax.random.split(jax.random.key(1), 20_000)), np.float64)
    assert abs(found.mean() - variance(spec, about)) < 4 * found.std() / len(found) ** 0.5
    other = unbiased({"np": "inp", "inp": "np", "wp": "np"}[spec.name])  # and not another rule's
    assert abs(found.mean() - variance(other, about)) > 10 * found.std() / len(found) ** 0.5


def test_measured_cosines_are_those_of_the_rule_s_own_mean_over_draws():
    params, batch = task()
    gradient = known(MODEL, cross_entropy, params, batch).gradient

    def mean(samples):
        rule = make("rule", f"np(difference=jvp, samples={samples})", MODEL, cross_entropy)
        estimate = jax.jit(lambda key: vector(rule.grads(key, (), params, batch)[0]))
        found = jax.vmap(estimate)(jax.random.split(jax.random.key(2), 2000))
        return np.asarray(found @ gradient / jnp.linalg.norm(found, axis=1) / jnp.linalg.norm(gradient), np.float64)

    one = make("rule", "np(difference=jvp)", MODEL, cross_entropy)
    found = cosines(one, params, batch, gradient, jax.random.key(3), trials=500, draws=8)
    assert [len(values) for values in found] == [4000, 2000, 1000, 500]
    for values, samples in ((found[0], 1), (found[3], 8)):
        expected = mean(samples)
        error = (values.var() / len(values) + expected.var() / len(expected)) ** 0.5
        assert abs(values.mean() - expected.mean()) < 4 * error


def test_at_smoke_measurement_and_law_agree_and_the_cosine_grows_as_the_square_root_of_draws():
    experiment = build("alignment", "smoke")
    rows = list(of_part(experiment, experiment.parts[0]))
    apart = [(r["cosine"] - r["law"]) / (2 * r["error"] + 0.03 * r["law"]) for r in rows]
    assert np.sqrt(np.mean(np.square(apart))) < 1
    assert sum(finding.holds for finding in experiment.findings(rows)) >= 4


def test_averaging_without_end_gives_the_gradient():
    params, batch = task()
    about = known(MODEL, cross_entropy, params, batch)
    for rule in ("np", "inp", "wp"):
        found = [law(unbiased(rule), about, 4**k) for k in range(15)]
        assert found == sorted(found) and 0.999 < found[-1] <= 1
    few = [law(unbiased("wp"), about, k) for k in (1, 2)]
    assert few[0] == pytest.approx(0.7979 / (2 + about.gradient.size) ** 0.5, rel=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rules": ("fa",)}, "alignment knows the variance of np, inp and wp, with noise and difference; got 'fa'"),
        ({"rules": ("np(samples=4)",)}, r"got 'np\(samples=4\)'"),
        ({"rules": ("wp(rank=1)",)}, r"got 'wp\(rank=1\)'"),
        ({"draws": 12}, "draws must be a power of 2"),
        ({"axis_draws": 64}, "axis_draws at most draws; got 64"),
        ({"estimates": 10}, "estimates must be at least 64; got 10"),
        ({"widths": (0,)}, "width must be at least 1"),
    ],
)
def test_what_it_cannot_do_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        build("alignment", "smoke", **options)
