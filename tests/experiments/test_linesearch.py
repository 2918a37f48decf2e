"""The step that lowers the loss most: against a quadratic of known curvature, and rows of the experiment."""

import math
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nodepert.errors import UserError
from nodepert.experiments import build
from nodepert.experiments.questions.linesearch import optimum, trained_to
from nodepert.experiments.shared.steps import one_step_change
from nodepert.experiments.shared.tasks import log_spaced


def quadratic(seed, n=6):
    """(H, W, L) of L(W) = W . H W / 2 with curvatures from 1 to 10."""
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))
    hessian = jnp.asarray(q @ np.diag(np.linspace(1, 10, n)) @ q.T, jnp.float32)
    weights = jax.random.normal(jax.random.key(seed), (n,))
    return hessian, weights, lambda w: (w @ hessian @ w / 2)[None]


@pytest.mark.parametrize("seed", range(3))
def test_the_best_step_on_a_quadratic_is_the_known_one(seed):
    hessian, w, loss = quadratic(seed)
    g = hessian @ w
    known = float(g @ g / (g @ hessian @ g))
    lrs = jnp.asarray(log_spaced(known / 10, known * 10, 81))
    found = one_step_change(w, lambda key: (g, loss), lrs, jax.random.split(jax.random.key(0), 2))
    assert found.shape == (2, 81)
    assert float(lrs[found[0].argmin()]) == pytest.approx(known, rel=10 ** (2 / 80) - 1)
    np.testing.assert_allclose(found[0], -lrs * (g @ g) + lrs**2 / 2 * (g @ hessian @ g), rtol=1e-3, atol=1e-4)


def test_noise_of_the_estimate_moves_the_best_step_as_its_second_moment_says():
    """With g = (G . v) v, v ~ N(0, I): E[g . H g] = 2 G . H G + tr(H) |G|^2."""
    hessian, w, loss = quadratic(5)
    g = hessian @ w

    def update(key):
        v = jax.random.normal(key, w.shape)
        return (g @ v) * v, loss

    known = float(g @ g / (2 * g @ hessian @ g + jnp.trace(hessian) * g @ g))
    lrs = jnp.asarray([known / 2, known, 2 * known])
    found = np.asarray(one_step_change(w, update, lrs, jax.random.split(jax.random.key(1), 20_000)), np.float64)
    mean, error = found.mean(0), found.std(0) / len(found) ** 0.5
    expected = np.array([-3 / 8, -1 / 2, 0]) * known * float(g @ g)  # half the best step, the best, and twice it
    assert (abs(mean - expected) < 4 * error).all() and (error < 0.05 * abs(expected[1])).all()


def test_lanes_change_nothing_and_every_set_is_judged():
    _, w, loss = quadratic(0)

    def found(lanes):
        def update(key):
            return jax.random.normal(key, w.shape), lambda w: {"one": loss(w), "two": jnp.stack([2 * loss(w)[0]] * 3)}

        return one_step_change(w, update, jnp.asarray([1e-2, 0.1, 1]), jax.random.split(jax.random.key(3), 4), lanes)

    alone, together = found(1), found(2)
    np.testing.assert_allclose(alone["two"], 2 * alone["one"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(alone["one"], together["one"], rtol=1e-4, atol=1e-5)


def test_rows_have_the_network_asked_for_and_np_shares_the_slope_but_not_the_optimum():
    experiment = build("linesearch", "smoke", widths=(40,), draws=60, count=13)
    rows = {part["rule"]: list(experiment.rows(part)) for part in experiment.parts}
    assert [row["lr"] for row in rows["np"]] == log_spaced(1e-4, 10.0, 13)
    assert len({(r["accuracy"], r["updates"]) for own in rows.values() for r in own}) == 1  # one network for all rules
    assert 80 <= rows["np"][0]["accuracy"] < 90
    small = {rule: own[0] for rule, own in rows.items()}
    assert small["sgd"]["change"] < 0
    assert abs(small["np"]["change"] - small["sgd"]["change"]) < 4 * math.hypot(*(r["error"] for r in small.values()))
    assert optimum(rows["np"])["lr"] < optimum(rows["sgd"])["lr"] / 3
    assert rows["np"][-1]["change"] > 0  # too large a step


def test_a_best_step_at_the_edge_of_the_range_is_no_finding():
    experiment = build("linesearch", "smoke", widths=(40,))

    def said(np_best, sgd_best):
        row = {"width": 40, "error": 0.0}
        return experiment.findings([
            row | {"rule": rule, "lr": lr, "change": -1.0 if lr == best else 1.0}
            for rule, best in (("np", np_best), ("sgd", sgd_best)) for lr in log_spaced(1e-4, 10.0, 16)
        ])[0]  # fmt: skip

    rates = log_spaced(1e-4, 10.0, 16)
    assert said(rates[5], rates[10]).holds
    assert not said(rates[0], rates[10]).holds and not said(rates[10], rates[10]).holds


def test_what_cannot_be_is_refused():
    for wrong, words in (
        ({"low": 1.0, "high": 0.1}, "low must be positive and below high"),
        ({"accuracy": 100.0}, "accuracy must be in per cent"),
        ({"rules": ("nope",)}, "unknown rule 'nope'"),
        ({"rules": ("decorrelate(np)",)}, "adds parameters to the network"),
        ({"widths": (0,)}, "widths must be at least 1"),
        ({"draws": 1}, "draws must be at least 2"),
    ):
        with pytest.raises(UserError, match=words):
            build("linesearch", "smoke", **wrong)


def test_an_accuracy_out_of_reach_is_told(monkeypatch):
    monkeypatch.setattr(sys.modules[trained_to.__module__], "LIMIT", 10)
    experiment = build("linesearch", "smoke", accuracy=99.9)
    with pytest.raises(UserError, match="in 10 updates, not 99"):
        next(experiment.rows(experiment.parts[0]))
