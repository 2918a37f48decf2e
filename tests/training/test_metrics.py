"""METRICS is one table: an entry is measured, saved, listed, sorted by, drawn and reported without any other change."""

import numpy as np
import pytest
from small import RUN

import nodepert as npt
from nodepert.cli import app as cli
from nodepert.studies.store.tables import from_csv, to_csv
from nodepert.studies.trackers.tracker import charted
from nodepert.training import metrics
from nodepert.training.metrics import METRICS, Metric, columns_of, measured

pytestmark = pytest.mark.usefixtures("quickly_compiled")


def test_the_norm_of_the_gradient_is_measured_on_request_and_is_its_mean_over_updates(tmp_path, capsys):
    """One batch per epoch: the norm is that of the gradient at the state before; one update of sgd shows it."""
    run = npt.Run(dataset="digits(train=200,test=50)", network="linfc(depth=0)", rule="sgd", optimizer="sgd",
                  loss="linear-mse", lr=0.1, epochs=1, batchsize=200)  # fmt: skip
    assert "grad_norm" not in npt.train(run).rows[-1]
    states = []

    class Keep(npt.Callback):
        def on_epoch(self, run, row, state):
            states.append(state().params["out"])

    result = npt.train(run, metrics=["grad_norm"], callbacks=[Keep()], name="n", out=tmp_path)
    step = np.sqrt(sum(np.square(states[1][k] - states[0][k]).sum() for k in ("w", "b")))
    assert np.isnan(result.rows[0]["grad_norm"])
    assert result.rows[1]["grad_norm"] == pytest.approx(step / 0.1, rel=1e-4)
    assert list(npt.load_results("n", tmp_path).columns)[-1] == "grad_norm"
    cli.main(["runs", "n", "--out", str(tmp_path), "--sort", "grad_norm"])
    assert "grad norm" in capsys.readouterr().out
    assert charted(result.rows[1])["gradient/norm"] == result.rows[1]["grad_norm"]


def test_one_entry_is_a_metric_everywhere(tmp_path, monkeypatch, capsys):
    margin = Metric("test margin", "", "higher", "margin", ".3f", "margin/test", "test",
                    lambda outputs, targets, losses: outputs.max(-1) - outputs.mean(-1))  # fmt: skip
    monkeypatch.setitem(METRICS, "test_margin", margin)
    result = npt.train(RUN, name="n", out=tmp_path)
    assert result.rows[-1]["test_margin"] > 0
    cli.main(["runs", "n", "--out", str(tmp_path), "--sort", "test_margin"])
    assert "margin" in capsys.readouterr().out
    cli.main(["report", "n", "--out", str(tmp_path), "--to", "report.md"])
    with open("report.md") as file:
        assert "| margin |" in file.read()
    assert npt.learning_curves({"np": result.rows}, "curves.png").exists()


def test_tables_with_more_or_fewer_columns_are_read():
    rows = [
        {"epoch": 0, "train_loss": 1.0, "test_loss": 1.5},
        {"epoch": 1, "train_loss": 0.5, "test_loss": 1.0, "x": 2.0},
    ]
    assert from_csv(to_csv(rows)) == rows and columns_of(rows) == ["train_loss", "test_loss", "x"]
    assert metrics.metric_of("x").heading == "x"
    for text in (
        "epoch,train_loss\n0,1.0\n",
        "epoch,train_loss,test_loss\n1,1.0,1.0\n",
        "epoch,train_loss,test_loss\n0,1.0\n",
    ):
        with pytest.raises(ValueError, match=r"not the rows|fewer cells"):
            from_csv(text)


def test_an_unknown_metric_is_one_line():
    with pytest.raises(npt.UserError, match=r"unknown metric 'gradnorm' \(did you mean 'grad_norm'\?\)"):
        measured(["gradnorm"])
