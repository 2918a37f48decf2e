"""credit-in-time: the law of one linear unit, and estimates measured beside it."""

import itertools
import math

import jax.numpy as jnp
import numpy as np
import pytest

from nodepert.core import backprop
from nodepert.errors import UserError
from nodepert.experiments import build
from nodepert.experiments.questions.credit_in_time import RNN, UNIT, half_square, law, linear_unit
from nodepert.experiments.shared.tables import where
from nodepert.rules.noise import key_of

CREDITS = ["own", "future", "trial", "future(gamma=0.5)"]
W = 0.8
X = np.random.default_rng(0).normal(size=(2, 3, 1)).astype(np.float32)


def test_every_part_has_a_bias_or_a_learning_curve(smoke):
    rows = smoke("credit-in-time").rows
    for row in rows:
        assert math.isfinite(row["loss"] if row["measure"] == "learning" else row["variance"])
        assert math.isfinite(row["law_bias"]) == (row["measure"] == UNIT)
    for measure in (UNIT, RNN):
        (own,) = where(rows, measure=measure)
        assert own["bias"] > 3 * own["resolution"]
        assert measure == RNN or own["bias"] == pytest.approx(own["law_bias"], abs=3 * own["resolution"])


@pytest.mark.parametrize("credit", CREDITS)
def test_the_law_of_the_linear_unit_is_the_mean_and_variance_over_all_signs(credit):
    """Over all 8 signs of three steps; Gaussian noise adds twice the square of each mean signal to the variance."""
    params = {"w": jnp.float32(W)}
    a = np.asarray(linear_unit(W).apply(params, X))[..., 0]
    lag = np.subtract.outer(range(3), range(3))
    passed, gamma = np.where(lag >= 0, W ** np.maximum(lag, 0), 0), 0.5 if "gamma" in credit else 1.0
    later = np.where(lag <= 0, gamma ** np.maximum(-lag, 0), 0)
    parts = {"own": np.eye(3), "trial": np.ones((3, 3))}.get(credit, later)
    signs = np.array(list(itertools.product((-1, 1), repeat=3)))
    change = a[:, None] * (signs @ passed.T)  # (B, 8, T) of every loss
    signals = change @ parts.T * signs
    before = np.concatenate([np.ones((2, 1)), a[:, :-1]], 1)
    estimates = (signals * before[:, None]).sum(-1)
    gradient = float(backprop(linear_unit(W), half_square).grads(key_of(0), (), params, (X, X))[0]["w"])
    variance = (estimates.var(1).sum() + 2 * np.square(signals.mean(1) * before).sum()) / 4
    found = law(W, a[..., None], credit)
    assert found["law_bias"] == pytest.approx(abs(estimates.mean() / gradient - 1), abs=1e-5)
    assert found["law_variance"] == pytest.approx(variance / gradient**2, rel=1e-4)


@pytest.mark.parametrize("wrong", [{"draws": 100}, {"steps": (0,)}, {"w": 0.0}, {"credits": ("past",)},
                                   {"credits": ("future(gamma=2)",)}, {"lrs": (-1.0,)}])  # fmt: skip
def test_bad_options_are_refused(wrong):
    with pytest.raises(UserError):
        build("credit-in-time", "smoke", **wrong)
