"""Mismatch, and the linear students it shares with width-scaling: exact steps, closed forms, findings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nodepert import UserError
from nodepert.experiments import build
from nodepert.experiments.questions.linear_theory import constants
from nodepert.experiments.shared.linear_student import example, in_float64, learn, student, times, xavier


def test_sgd_takes_the_steps_that_numpy_takes():
    n, h, m, lr, noise, steps = 5, 7, 3, 0.01, 0.5, 20
    teacher_key, weights, examples, _ = jax.random.split(jax.random.key(3), 4)
    teacher, start = xavier(teacher_key, n, m), student((n, h, m)).init(weights)
    w1, w2, errors, norms = np.asarray(start["fc0"], float), np.asarray(start["out"], float), [], []
    drawn = jax.jit(lambda t: example(examples, t, teacher, noise))
    for t in range(steps + 1):
        errors.append(np.square(w1 @ w2 - teacher).sum() / 2)
        norms.append(np.sqrt(np.square(w1).sum() + np.square(w2).sum()))
        x, target = (np.asarray(a, float) for a in drawn(t))
        e = x @ w1 @ w2 - target
        w1, w2 = w1 - lr * x.T @ e @ w2.T, w2 - lr * (x @ w1).T @ e
    found = learn("sgd", (n, h, m), lr, noise, [0, 7, 20], jax.random.key(3)[None])
    np.testing.assert_allclose(found.error[0], [errors[i] for i in (0, 7, 20)], rtol=1e-4)
    np.testing.assert_allclose(found.norm[0], [norms[i] for i in (0, 7, 20)], rtol=1e-5)


@pytest.mark.parametrize("rule", ["sgd", "np(difference=jvp)", "np(noise=rademacher,difference=central,sigma=0.01)"])
def test_a_single_layer_learns_as_the_closed_form_says(rule):
    n, m, noise, at = 6, 2, 0.3, [0, 5, 20, 60, 300]
    k, _ = constants(rule, n, m)
    eta = 0.7 / (k * (n + 2))
    found = learn(rule, (n, m), eta, noise, at, jax.random.split(jax.random.key(1), 2000)).error
    v, z = 2 * found[:, 0].mean(), []
    for t in range(1, at[-1] + 1):
        v = v * (1 - 2 * eta + eta**2 * k * (n + 2)) + eta**2 * k * n * m * noise**2
        if t in at:
            # What the start differs by from its mean is no error of the theory: it enters with the start's own share.
            shares = found[:, at.index(t)] - found[:, 0] * (1 - 2 * eta + eta**2 * k * (n + 2)) ** t
            z.append((found[:, at.index(t)].mean() - v / 2) / (shares.std(ddof=1) / len(shares) ** 0.5))
    assert np.sqrt(np.mean(np.square(z))) < 2, z
    wrong = learn(rule, (n, m), eta, 1.5 * noise, at, jax.random.split(jax.random.key(1), 2000)).error[:, -1]
    assert abs(wrong.mean() - v / 2) > 4 * wrong.std(ddof=1) / len(wrong) ** 0.5  # a mutant: too much target noise


def test_in_64_bits_a_tiny_sigma_is_as_good_as_the_exact_derivative():
    with in_float64(True):
        tiny, exact = (
            learn(rule, (4, 6, 2), 0.01, 0.3, [100], jax.random.split(jax.random.key(0), 3))
            for rule in ("np(sigma=1e-6)", "np(difference=jvp)")
        )
        assert jnp.zeros(1).dtype == jnp.float64
    np.testing.assert_allclose(tiny.error, exact.error, rtol=1e-4)
    assert jnp.zeros(1).dtype == jnp.float32


def test_what_is_expected_shows_at_smoke(smoke):
    experiment, (rows, findings, *_) = build("mismatch", "smoke"), smoke("mismatch")
    assert len(findings) == 4 and all(finding.holds for finding in findings)
    assert "times the lowest" in findings[-1].says
    lost = [row | {"diverged": int(row["step"] > 1000)} for row in rows]  # sgd's students must not diverge
    assert [f.holds for f in experiment.findings(lost)][:3] == [False] * 3
    rising = [row | {"error": row["step"] + 1.0, "error_se": 0.0} for row in rows]  # what never fell cannot rise again
    assert not any(f.holds for f in experiment.findings(rising))
    falling = [row | {"error": 1 / (1 + row["step"])} for row in rows]  # no rise: then the finding does not hold
    assert not all(f.holds for f in experiment.findings([row | {"diverged": 0} for row in falling]))


def test_options_that_cannot_be_are_refused_in_one_line():
    for given in ({"hidden": 0}, {"replicas": 1}, {"lr": -1.0}, {"noises": (-0.1,)}, {"rules": ("nonsense",)}):
        with pytest.raises(UserError) as error:
            build("mismatch", "smoke", **given)
        assert len(str(error.value).splitlines()) == 1


def test_times_are_whole_numbers_that_rise():
    assert times(1000, 3) == [0, 1, 10, 100, 1000] and times(1) == [0, 1]
