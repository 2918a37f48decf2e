"""Values, several labels and soft labels are learned, measured by metrics of their own, and compared by them."""

from dataclasses import replace

import numpy as np
import pytest
from small import own as own

import nodepert as npt
from nodepert.cli import app as cli
from nodepert.cli.measuring import Setting
from nodepert.registry.tasks import fitting
from nodepert.studies.trackers.tracker import charted
from nodepert.training.metrics import measured, score_of, scores

pytestmark = pytest.mark.usefixtures("quickly_compiled")

VALUES = npt.Run(dataset="teacher(inputs=6, outputs=3, train=300, test=90)", network="linfc(depth=0)", rule="sgd",
                 lr=3e-2, epochs=4, batchsize=20)  # fmt: skip
X = np.random.default_rng(0).normal(size=(150, 6))
Y = X @ np.random.default_rng(1).normal(size=(6, 3))


def trained(y, **options):
    """The data, made known, and the result of a run on it."""
    data = npt.make_dataset(X[:100], y[:100], X[100:], y[100:], name="mine")
    npt.register("dataset", "mine", lambda data_dir: data, task=data.task)
    run = npt.Run(dataset="mine", network="linfc(depth=0)", rule="sgd", lr=0.1, epochs=8, batchsize=10)
    return data, npt.train(run, **options)


def outputs_of(data, result, x):
    model = npt.make_model(result.run.network, x.shape[1:], data.outputs)
    return np.asarray(model.apply(result.params, data.standardised(x)), np.float64)


def test_the_metrics_of_values_are_their_formulas_in_the_units_of_the_values(own):
    y = Y * [1, 10, 100] + [0, 5, -1e4]
    y = np.hstack([y, np.full((150, 1), 3.0)])  # R2 leaves out what is constant
    data, result = trained(y, metrics=["train_mae", "test_mae"])
    row = result.rows[-1]
    for split, x, targets in (("train", data.train_x, data.train_y), ("test", data.test_x, data.test_y)):
        error = data.in_units(outputs_of(data, result, x)) - targets
        share = (error[:, :3] ** 2).mean(0) / targets[:, :3].var(0)
        assert row[f"{split}_r2"] == pytest.approx(1 - share.mean(), rel=1e-4)
        assert row[f"{split}_rmse"] == pytest.approx(np.sqrt((error**2).mean()), rel=1e-4)
        assert row[f"{split}_mae"] == pytest.approx(abs(error).mean(), rel=1e-4)
    assert row["test_r2"] > 0.9 and "test_acc" not in row


def test_one_value_per_example_trains_one_output(own):
    data, result = trained(Y[:, 0])
    error = data.targets(data.test_y) - outputs_of(data, result, data.test_x)
    assert error.shape == (50, 1)  # not (50, 50)
    assert result.rows[-1]["test_loss"] == pytest.approx((error**2).mean(), rel=1e-4)


def test_several_labels_per_example_are_measured_by_f1_and_per_label(own):
    data, result = trained((Y > 1).astype(int))
    assert result.run.loss == "sigmoid-cross-entropy"
    found, there = outputs_of(data, result, data.test_x) > 0, data.test_y == 1
    assert result.rows[-1]["test_label_acc"] == pytest.approx(100 * (found == there).mean(), abs=1e-3)
    total = found.sum(1) + there.sum(1)
    f1 = np.where(total, 2 * (found & there).sum(1) / np.maximum(total, 1), 1)
    assert result.rows[-1]["test_f1"] == pytest.approx(100 * f1.mean(), abs=1e-3) and f1.mean() > 0.7


def test_probabilities_are_targets_of_cross_entropy_and_have_accuracies(own):
    soft = np.exp(Y) / np.exp(Y).sum(1, keepdims=True)
    data, result = trained(soft)
    outputs = outputs_of(data, result, data.test_x)
    log = outputs - np.log(np.exp(outputs).sum(1, keepdims=True))
    assert result.run.loss == "cross-entropy"
    assert result.rows[-1]["test_loss"] == pytest.approx(-(data.test_y * log).sum(1).mean(), rel=1e-4)
    assert result.rows[-1]["test_acc"] == 100 * (outputs.argmax(1) == data.test_y.argmax(1)).mean()


@pytest.mark.parametrize("rule", ["sgd", "np(samples=4)"])
def test_a_linear_student_learns_its_teacher_to_the_noise(rule):
    dataset = "teacher(inputs=20, outputs=4, train=2000, test=500, noise=0.3)"
    last = npt.train(replace(VALUES, dataset=dataset, rule=rule, lr=1e-2, epochs=6)).rows[-1]
    assert 0.27 < last["test_rmse"] < 0.33


def test_the_default_loss_is_that_of_the_task_and_a_wrong_one_names_those_that_fit(own):
    assert npt.Run(dataset="diabetes").loss == "linear-mse" and npt.Run(dataset="digits").loss == "mse"
    assert npt.Run(dataset="table(path='a.csv', target=b)").loss == "by-target"
    with pytest.raises(npt.UserError, match=r"loss mse does not fit .* diabetes, which are values; give one of: lin"):
        npt.Run(dataset="diabetes", loss="mse")
    assert fitting("multilabel") == ["mse", "linear-mse", "sigmoid-cross-entropy"]
    npt.register("loss", "cubic", lambda outputs, targets: (abs(outputs - targets) ** 3).mean(-1))
    assert npt.Run(dataset="diabetes", loss="cubic").loss == "cubic"
    with pytest.raises(npt.UserError, match=r"no task 'value' \(did you mean 'values'\?\)"):
        npt.register("dataset", "mine", lambda data_dir: None, task="value")


def test_a_data_set_of_values_that_is_not_declared_as_such_says_so_before_training(own):
    data = npt.make_dataset(X, Y, X, Y, name="mine")
    npt.register("dataset", "mine", lambda data_dir: data)
    with pytest.raises(npt.UserError, match=r"give one of: linear-mse, by-target, or register .* task='values'"):
        npt.train(npt.Run(dataset="mine"), name="n")
    assert npt.Run(dataset="mine", loss="linear-mse").id  # what fits is accepted


def test_a_file_of_classes_and_one_of_values_train_by_the_same_default_loss():
    import pandas as pd

    frame = pd.DataFrame(X, columns=list("abcdef")).assign(kind=np.where(Y[:, 0] > 0, "high", "low"), y=Y[:, 0])
    frame.to_csv("own.csv", index=False)
    specs = ["table(path='own.csv', target=kind, drop=y)", "table(path='own.csv', target=y, drop=kind)"]
    several = [npt.Run(dataset=spec, network="linfc(depth=0)", loss="auto", epochs=0) for spec in specs]
    assert [score_of(result.rows[-1]) for result in npt.train(several)] == ["test_acc", "test_r2"]


def test_scores_follow_the_rows():
    assert scores(measured(task="values")) == ["test_r2"] and scores(measured(task="multilabel")) == ["test_f1"]
    assert score_of(measured(task="probabilities")) == score_of(()) == "test_acc"
    assert charted({"epoch": 1, "test_r2": 0.5, "test_loss": 0.1}) == {"R2/test": 0.5, "loss/test": 0.1}


def test_check_takes_values_as_training_does_and_curves_have_a_panel_of_r2(capsys):
    data = npt.load_dataset(VALUES.dataset)
    x, y = Setting(None, None, data, data.standardised).examples(300, 0)
    np.testing.assert_allclose(y.std(0), 1, rtol=1e-5)
    model = npt.make_model(VALUES.network, x.shape[1:], data.outputs)
    assert npt.check(model, "sgd", npt.make_loss("linear-mse"), (x, y), study=False).verdict
    task = ("--dataset", VALUES.dataset, "--network", VALUES.network, "--epochs", "0")
    cli.main(["compare", *task, "--rules", "np", "sgd"])
    assert "test R2" in capsys.readouterr().out


def test_an_experiment_on_values_is_refused(capsys):
    with pytest.raises(SystemExit) as error:
        cli.main(["experiment", "alignment", "--scale", "smoke", "--dataset", "diabetes"])
    assert error.value.code == 2 and "experiments take data sets of classes" in capsys.readouterr().err
