"""delta-loss: what an update is judged by, and the share that it keeps of backpropagation's."""

import math

import jax
import numpy as np
import pytest

import nodepert as npt
from nodepert.errors import UserError
from nodepert.experiments import build
from nodepert.experiments.questions.delta_loss import shares

SMALL = {"dataset": "digits(train=200, test=50)", "depths": (1,), "width": 10, "epochs": 2, "seeds": 1, "draws": 40}


def test_an_update_of_backpropagation_is_its_own_standard():
    for row in npt.experiments.delta_loss(scale="smoke", rules=("sgd",), depths=(1,)):
        assert row["batch_change"] == row["sgd_batch_change"] < 0
        assert row["test_change"] == row["sgd_test_change"]


def test_small_updates_of_np_lower_the_loss_as_backpropagation_does():
    """To first order only the mean of the estimate counts; where the batch is all there is, only noise differs."""
    rows = list(npt.experiments.delta_loss(scale="smoke", rules=("np",), lr=1e-4, **SMALL | {"draws": 300}))
    assert len(rows) == 3
    for row in rows:
        assert abs(row["test_change"] - row["sgd_test_change"]) < 4 * (row["test_error"] + row["sgd_test_error"])
        assert row["batch_change"] < -3 * row["batch_error"]


def test_the_change_is_that_of_the_loss():
    """The whole training split as one batch, a network as it is initialised: W - lr G, computed by hand."""
    chosen = SMALL | {"batchsize": 200, "epochs": 1, "lr": 0.1, "rules": ("sgd",)}
    found = next(iter(npt.experiments.delta_loss(scale="smoke", **chosen)))
    data = npt.load_dataset("digits(train=200, test=50)")
    model, loss = npt.make_model("fc(width=10, depth=1)", data.train_x.shape[1:], 10), npt.make_loss("cross-entropy")
    params = model.init(jax.random.split(jax.random.key(0), 4)[0])
    pixels = np.asarray(data.train_x, np.float32)
    mean, std = pixels.mean((0, 1, 2)), pixels.std((0, 1, 2))

    def value(params):
        return loss(model.apply(params, (pixels - mean) / std), data.train_y).mean()

    before, gradient = jax.value_and_grad(value)(params)
    after = value(jax.tree.map(lambda w, g: w - 0.1 * g, params, gradient))
    assert found["batch_change"] == pytest.approx(float(after - before), rel=1e-3)


def test_shares_are_ratios_of_sums_of_runs_that_came_through():
    def row(seed, epoch, own, sgd):
        return {"rule": "np", "depth": 2, "seed": seed, "epoch": epoch, "test_change": own, "sgd_test_change": sgd}

    rows = [row(0, 0, -1.0, -2.0), row(0, 1, 0.5, -2.0), row(1, 0, -1.0, -1.0), row(1, 1, math.nan, -1.0)]
    assert shares(rows, "np", 2) == [0.125]


@pytest.mark.parametrize("wrong", [{"lr": 0.0}, {"draws": 1}, {"depths": (-1,)}, {"rules": ("decorrelate(np)",)}])
def test_bad_options_are_refused(wrong):
    with pytest.raises(UserError):
        build("delta-loss", "smoke", **wrong)
