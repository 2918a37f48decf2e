"""Targets for every time step: trained, measured over the graded steps, predicted, saved; misfits are one line."""

import csv

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recurrent import leaky
from small import own as own

import nodepert as npt
from nodepert.cli import app as cli
from nodepert.core import as_values, in_parts

pytestmark = pytest.mark.usefixtures("quickly_compiled")

X = np.random.default_rng(0).normal(size=(60, 5, 3))
SUM = X.cumsum(1)[..., :2]
SIGNS = np.where(np.arange(5) < 2, -1, SUM[..., 0] > 0)  # of the last three steps
HIDDEN = np.zeros(SUM.shape, bool)
HIDDEN[:40, 0] = HIDDEN[::7, 3] = True
MASKED = np.ma.array(7 + 20 * SUM, mask=HIDDEN)


def made(task):
    y = {"steps": SIGNS, "series": MASKED}[task]
    return npt.make_dataset(X[:40], y[:40], X[40:], y[40:], task=task)


def batch_of(data):
    return data.standardised(data.train_x[:4]), data.targets(data.train_y[:4])


def run(data, network=leaky, **more):
    return npt.Run(dataset=data, network=network, rule="np(credit=future)", lr=1e-2, batchsize=20, epochs=1, **more)


def test_accuracy_and_loss_are_means_over_the_graded_steps():
    data = made("steps")
    result = npt.train(run(data))
    assert (result.run.loss, data.train_y.dtype, data.outputs, data.steps) == ("cross-entropy", np.int32, 2, 5)
    outputs, there = result.outputs(X[40:]), SIGNS[40:] >= 0
    losses = -np.take_along_axis(np.log(jax.nn.softmax(outputs)), np.maximum(SIGNS[40:], 0)[..., None], -1)[..., 0]
    row = result.rows[-1]
    assert row["test_loss"] == pytest.approx(losses[there].mean(), rel=1e-4)
    assert row["test_acc"] == pytest.approx(100 * (result.predict(X[40:]) == SIGNS[40:])[there].mean(), abs=1e-3)
    assert result.score == row["test_acc"] and result.predict(X[:3]).shape == (3, 5)


def test_values_of_every_step_are_measured_in_their_units_where_they_are_not_masked():
    result = npt.train(run(made("series"), validation=0.25), metrics=["test_mae"])
    error, row = result.predict(X[40:]) - MASKED[40:], result.rows[-1]
    assert row["test_rmse"] == pytest.approx(np.sqrt((error**2).mean()), rel=1e-4)
    assert row["test_mae"] == pytest.approx(abs(error).mean(), rel=1e-4)
    share = (error**2).mean((0, 1)) / MASKED[40:].var((0, 1))
    assert row["test_r2"] == pytest.approx(1 - share.mean(), rel=1e-4) and np.isfinite(row["val_r2"])


@pytest.mark.parametrize("task", ["steps", "series"])
def test_a_network_of_time_steps_is_saved_loaded_and_evaluated(task, tmp_path):
    data = made(task)
    result = npt.train(run(data))
    again = npt.load(result.save(tmp_path / "a.npz"), network=leaky)
    np.testing.assert_array_equal(again.predict(X[:3]), result.predict(X[:3]))
    assert again.evaluate((X[40:], data.test_y)) == result.evaluate((X[40:], data.test_y))
    assert again.evaluate(data)["test_loss"] == result.rows[-1]["test_loss"]


@pytest.mark.parametrize("name", ["cross-entropy", "mse", "linear-mse", "sigmoid-cross-entropy", "by-target"])
def test_a_step_that_is_not_graded_has_neither_loss_nor_gradient(name):
    loss, outputs = npt.make_loss(name), jax.random.normal(jax.random.key(0), (2, 3, 2))
    targets = {"classes": jnp.array([[-1, 0, 1], [1, -1, -1]])}
    if name != "cross-entropy":
        targets["values"] = jnp.where(outputs * 0 + targets["classes"][..., None] < 0, jnp.nan, 0.25)
    for y in targets.values():
        there = targets["classes"] >= 0
        parts = in_parts(loss, outputs, y)
        np.testing.assert_array_equal(parts == 0, ~there)
        whole = loss(outputs, jnp.maximum(y, 0) if y.ndim == 2 else jnp.nan_to_num(y, nan=0.25))
        np.testing.assert_allclose(parts[there], whole[there], rtol=1e-6)
        slope = jax.grad(lambda o, y=y: loss(o, y).sum())(outputs)
        np.testing.assert_array_equal(abs(slope).sum(-1) == 0, ~there)


def test_the_error_of_a_step_that_is_not_graded_is_zero_without_a_derivative():
    outputs = jnp.ones((1, 2, 3))
    np.testing.assert_array_equal(outputs - as_values(jnp.array([[-1, 0]]), outputs), [[[0, 0, 0], [0, 1, 1]]])


@pytest.mark.parametrize("label", [-2, 3])
def test_other_labels_without_an_output_are_refused_in_time_too(label):
    with pytest.raises(ValueError, match=rf"label {label} has no output: .* in 0\.\.2, or -1 where a step is not"):
        npt.make_loss("mse")(jnp.zeros((1, 2, 3)), jnp.array([[0, label]]))


NO_TIME = r"^there is a target for each of 5 time steps, and .* one output per example: .*readout=every\) \(network fc,"
TIME = r"^there is one target per example, and .* an output for each of 5 time steps: .*readout=last\) \(network leaky"
MISMATCHES = {
    "no axis of time": (lambda: made("steps"), "fc", NO_TIME),
    "values": (lambda: made("series"), "fc", NO_TIME),
    "one label": (lambda: (X, SIGNS[:, 4]), leaky, TIME),
    "one value": (lambda: (X, SUM[:, 4]), leaky, TIME),
    "other steps": (lambda: npt.make_dataset(X, SIGNS[:, 1:], X, SIGNS[:, 1:], task="steps"), leaky,
                    "the targets have 4 time steps, and the outputs of this network 5"),
    "a loss": (lambda: made("series"), leaky, "which are values for every time step; give one of: linear-mse, by-t"),
}  # fmt: skip


@pytest.mark.parametrize("what", MISMATCHES)
def test_outputs_that_do_not_fit_the_time_of_the_targets_are_one_line(what, own):
    data, network, says = MISMATCHES[what]
    with pytest.raises(npt.UserError, match=says) as error:
        npt.train(run(data(), network, loss="mse" if what == "a loss" else "auto"))
    assert "\n" not in str(error.value)


def test_a_network_with_an_output_for_the_last_step_learns_one_label_per_example(own):
    npt.register("network", "leaky", leaky)
    assert "test_acc" in npt.train(run((X, SIGNS[:, 4]), "leaky(last=True)")).rows[-1]


def test_the_command_line_takes_tasks_with_time_and_predicts_a_column_per_step(own, capsys):
    npt.register("network", "leaky", leaky, loss="cross-entropy")
    data = made("steps")
    npt.register("dataset", "signs", data)
    np.save("x.npy", X[40:43])
    cli.main(["compare", "--dataset", "signs", "--network", "leaky", "--rules", "np", "sgd", "--epochs", "1", "--name",
              "c", "--batchsize", "20"])  # fmt: skip
    assert "test %" in capsys.readouterr().out
    cli.main(["report", "c"])
    path = npt.train(run(data, "leaky")).save("a.npz")
    cli.main(["predict", str(path), "x.npy", "--outputs", "--to", "p.csv"])
    with open("p.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [*rows[0]][:3] == ["index", "prediction_0", "prediction_1"] and "output_4_1" in rows[0]
    predicted = npt.load(path).predict(X[40:43])
    assert [[int(row[f"prediction_{t}"]) for t in range(5)] for row in rows] == predicted.tolist()


def test_check_tells_own_credit_apart_on_targets_in_time():
    model, batch = leaky((5, 3), 2), batch_of(made("series"))
    result = npt.check(model, "np(credit=own)", npt.make_loss("by-target"), batch, draws=2000, study=False)
    assert {row["node"]: row["verdict"] for row in result.rows} == {
        "in": "biased",
        "out": "unbiased",
        "all nodes": "biased",
    }


@pytest.mark.parametrize("rule", ["np(credit=future)", "wp"])
def test_the_study_of_sigma_takes_losses_in_parts(rule):
    model, batch = leaky((5, 3), 2), batch_of(made("steps"))
    result = npt.check(model, rule, npt.make_loss("cross-entropy"), batch, draws=100)
    assert max(row["correlation"] for row in result.steps) > 0.99
