"""A validation split chooses the network of a run, and may stop it; checkpoints, replicas and readers follow."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from small import RUN, Told, distance, same_rows

import nodepert as npt
from nodepert.cli import app as cli
from nodepert.data.validation import held_out
from nodepert.studies.course import end_of
from nodepert.studies.stopping import Stopped
from nodepert.training.metrics import best_epoch, final

pytestmark = pytest.mark.usefixtures("quickly_compiled")
VALIDATED = replace(RUN, validation=0.25, epochs=5, lr=0.05)
STOPS = replace(VALIDATED, patience=2, epochs=12, lr=0.02, seed=1)  # the best epoch is the third
DATA = npt.load_dataset(RUN.dataset)


class Params(npt.Callback):
    """The parameters after every epoch."""

    def __init__(self):
        self.found = []

    def on_epoch(self, run, row, state):
        self.found.append(state().params)


@pytest.fixture(scope="module")
def stopped():
    result = npt.train(STOPS)
    assert result.status == "stopped at epoch 5" and result.epoch == 3
    return result


def examples(x, y):
    return sorted(zip(map(bytes, x), y.tolist(), strict=True))


@pytest.mark.parametrize(("validation", "count"), [(0.25, 50), (30, 30)])
def test_held_out_examples_are_a_part_of_the_training_examples_and_the_same_every_time(validation, count):
    data, again = held_out(DATA, validation), held_out(DATA, validation)
    assert len(data.val_y) == count and np.array_equal(data.val_x, again.val_x)
    both = examples(data.train_x, data.train_y) + examples(data.val_x, data.val_y)
    assert sorted(both) == examples(DATA.train_x, DATA.train_y)
    np.testing.assert_allclose(data.mean, data.train_x.mean((0, 1, 2)), rtol=1e-6)
    assert held_out(DATA, 0.0) is DATA


def test_values_are_standardised_by_the_examples_that_remain():
    data = held_out(npt.load_dataset("diabetes"), 0.5)
    np.testing.assert_allclose(data.target_mean, data.train_y.mean(0))


def test_the_result_is_the_network_with_the_best_validation_score(tmp_path):
    kept = Params()
    result = npt.train(VALIDATED, callbacks=[kept], name="v", out=tmp_path)
    best = max(range(6), key=lambda e: result.rows[e]["val_acc"])
    assert result.epoch == best < 5 and result.status == "finished"
    assert result.test_acc == result.rows[best]["test_acc"]
    for a, b in zip(jax.tree.leaves(result.params), jax.tree.leaves(kept.found[best]), strict=True):
        np.testing.assert_array_equal(a, b)
    again = npt.load(result.folder)
    assert distance(result, again) == 0 and again.epoch == best
    measured = again.evaluate()
    assert measured == pytest.approx({name: result.rows[best][name] for name in measured}, rel=1e-5)
    assert {"val_acc", "val_loss"} <= measured.keys()
    assert npt.load(result.save("v.npz")).epoch == best


def test_without_a_split_it_is_that_of_the_last_epoch():
    rows = [{"epoch": e, "test_acc": 90.0 - e, "train_loss": 1.0, "test_loss": 1.0} for e in range(3)]
    assert best_epoch(rows) == 2 and final(rows) is rows[2] and final([]) == {}


@pytest.mark.parametrize(
    ("scores", "epoch", "status"),
    [
        ([1, 2, 2, 1], 3, "stopped at epoch 3"),  # the first of equal ones is the best
        ([1, 2, 3, 1], 9, None),
        ([3, 1, 1], 2, "finished"),
        ([1, np.nan, np.nan], 9, "stopped at epoch 2"),
    ],
)
def test_patience_counts_epochs_since_the_best(scores, epoch, status):
    rows = [
        {"epoch": e, "train_loss": 1.0, "test_loss": 1.0, "val_acc": float(score)} for e, score in enumerate(scores)
    ]
    assert end_of(rows, epoch if status == "finished" else 9, patience=2) == status
    assert end_of(rows, 9) is None


def test_a_loss_decides_where_there_is_no_score():
    rows = [{"epoch": e, "val_loss": value} for e, value in enumerate([3.0, 1.0, 2.0])]
    assert best_epoch(rows) == 1


def test_replicas_that_stop_early_leave_the_others_as_they_are(stopped):
    others = [replace(STOPS, seed=2), replace(STOPS, patience=0)]
    alone = [npt.train(run) for run in others]
    together = npt.train([STOPS, *others])
    assert [len(result.rows) for result in together] == [6, 4, 13]
    for one, other in zip([stopped, *alone], together, strict=True):
        assert one.status == other.status and same_rows(one, other) and distance(one, other) == 0


@pytest.mark.parametrize("after", [1, 3])
def test_an_interrupted_run_resumes_with_its_best_network(after, stopped, tmp_path):
    epochs = []
    options = {"name": "v", "out": tmp_path, "callbacks": [Told(lambda run, row: epochs.append(row["epoch"]))]}
    with pytest.raises(Stopped):
        npt.train(STOPS, stop=lambda: len(epochs) > after - 1, **options)
    resumed = npt.train(STOPS, **options)
    assert resumed.status == stopped.status and same_rows(resumed, stopped) and distance(resumed, stopped) == 0
    read = npt.train(STOPS, **options)
    assert read.read_back and read.status == stopped.status and distance(read, stopped) == 0


def test_runs_without_a_split_keep_their_identity_and_configurations_without_the_options_are_read():
    assert "validation" not in RUN.config and "patience" not in RUN.config
    assert len({RUN.id, VALIDATED.id, replace(VALIDATED, patience=3).id, replace(RUN, epochs=5, lr=0.05).id}) == 4
    assert npt.Run(**VALIDATED.config).id == VALIDATED.id


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patience": 3}, "patience=3 needs a validation split"),
        ({"validation": 1.5}, "a share of the training examples below 1, or a whole number"),
        ({"validation": -0.1}, "a share of the training examples below 1, or a whole number"),
        ({"validation": float("nan")}, "a share of the training examples below 1, or a whole number"),
        ({"validation": float("inf")}, "a share of the training examples below 1, or a whole number"),
        ({"validation": 0.1, "patience": -1}, "patience must not be negative"),
        ({"validation": 200}, "validation=200 of 200 training examples is 200"),
        ({"validation": 0.001}, "validation=0.001 of 200 training examples is 0"),
        ({"validation": 180}, "batchsize must be at most the 20 training examples"),
    ],
)
def test_wrong_splits_are_one_line(options, message, tmp_path):
    with pytest.raises(npt.UserError, match=message):
        npt.train(replace(RUN, **options), name="v", out=tmp_path)
    assert not any(tmp_path.iterdir())


def test_readers_show_the_network_that_was_chosen(stopped, tmp_path, capsys):
    cli.main(["train", "--dataset", RUN.dataset, "--network", "fc(width=8)", "--batchsize", "50", "--epochs", "12",
              "--lr", "0.02", "--seed", "1", "--validation", "0.25", "--patience", "2", "--name", "v", "--out",
              str(tmp_path)])  # fmt: skip
    out = capsys.readouterr().out
    assert "stopped at epoch 5" in out and f"{stopped.test_acc:.2f}" in out
    table = npt.load_results("v", tmp_path)
    assert set(table.validation) == {0.25} and set(table.patience) == {2} and "val_acc" in table
    cli.main(["runs", "v", "--out", str(tmp_path), "--status", "stopped"])
    out = capsys.readouterr().out
    assert "val %" in out and f"{stopped.test_acc:.2f}" in out and f"{len(stopped.rows) - 1}/12" in out
    cli.main(["report", "v", "--out", str(tmp_path), "--to", "report.md"])
    with open("report.md") as file:
        report = file.read()
    assert "--validation 0.25 --patience 2" in report and f"{stopped.test_acc:.2f}" in report
