"""What version 0.1 wrote is listed, read back, resumed and reported: store_0_1/ is a store as it left one.

`alone` has a finished run; `broken` two runs interrupted after epoch 2 of 4 and one that diverged; `grid` three of the
four runs of grid.toml; `experiments` linear-theory interrupted after its first part. whole.json and whole.csv have what
undisturbed runs gave.
"""

import csv
import json
import shutil
from pathlib import Path

import pytest

import nodepert as npt
from nodepert.cli import app as cli
from nodepert.experiments.execute import execute
from nodepert.studies.store import checkpoints
from nodepert.studies.store.records import sealed
from nodepert.studies.sweep.jobs import read_job

HERE = Path(__file__).parent / "store_0_1"
RUN = npt.Run(dataset="digits(train=100, test=50)", network="fc(width=3, depth=1)", batchsize=50, lr=1e-2, epochs=4)


@pytest.fixture
def store(tmp_path):
    shutil.copytree(HERE, tmp_path / "store")
    return tmp_path / "store"


class Watch(npt.Callback):
    """Which epochs are trained, and which read back."""

    def __init__(self):
        self.trained, self.read_back = [], []

    def on_epoch(self, run, row, state):
        (self.read_back if state.read_back else self.trained).append((run.rule, row["epoch"]))


def without_time(rows):
    return [{k: v for k, v in row.items() if k != "epoch_time"} for row in rows]


def test_runs_are_listed_and_read_back(store, capsys):
    frame = npt.load_results("broken", store)
    assert sorted(set(frame["status"])) == ["diverged at epoch 1", "interrupted"]
    cli.main(["runs", "broken", "--out", str(store)])
    out = capsys.readouterr().out
    assert "3 runs: 1 diverged, 2 interrupted" in out
    watch = Watch()
    (folder,) = (store / "alone").iterdir()
    result = npt.train(npt.load_run(folder), name="alone", out=store, callbacks=[watch])
    assert result.status == "finished" and not watch.trained and len(result.rows) == 3


def test_interrupted_runs_resume_from_their_checkpoints_and_end_as_undisturbed_ones(store):
    watch = Watch()
    runs = [npt.Run(**{**RUN.config, "rule": rule}) for rule in ("np", "kp")]
    results = npt.train(runs, name="broken", out=store, callbacks=[watch])
    assert {epoch for _, epoch in watch.trained} == {3, 4} and {epoch for _, epoch in watch.read_back} == {0, 1, 2}
    for result, whole in zip(results, json.loads((HERE / "whole.json").read_text()), strict=True):
        for row, expected in zip(without_time(result.rows), without_time(whole), strict=True):
            assert row == pytest.approx(expected, rel=1e-4)  # another processor rounds otherwise


@pytest.mark.parametrize("name", ["a%20b", "a#b?c=%zz", "ü [1]"])
def test_checkpoints_are_found_under_any_path(name, tmp_path):
    """They are no addresses: nothing in a path is a code."""
    shutil.copytree(HERE / "broken", tmp_path / name / "broken")
    for record in (tmp_path / name).glob("broken/*/checkpoints/2.json"):
        assert checkpoints._read(record.with_suffix(""), json.loads(record.read_text()))


def test_a_sweep_trains_what_is_left(store, capsys):
    cli.main(["sweep", str(store / "grid.toml"), "--out", str(store), "--launcher", "debug"])
    out = capsys.readouterr().out
    assert "4 runs in 2 groups" in out and "3 done" in out and "4 of 4 runs have finished" in out


def test_a_job_of_version_1_is_read(tmp_path):
    old = {"name": "a", "out": "/results", "data_dir": None, "checkpoint_every": 5.0, "log": ["tensorboard"]}
    record = {"format": "nodepert-job", "version": 1, **old, "runs": [RUN.config]}
    (tmp_path / "0.json").write_text(sealed(record))
    job = read_job(tmp_path / "0.json")
    assert job.runs[0].id == RUN.id
    assert (job.execution.checkpoint_every, job.execution.log) == (5.0, ("tensorboard",))


def test_an_experiment_resumes_with_the_rows_of_an_undisturbed_one(store):
    parts = []
    execute("linear-theory", "smoke", out=store / "experiments",
            on_part=lambda i, of, part, seconds: parts.append((part["rule"], seconds is None)))  # fmt: skip
    assert parts == [("sgd", True), ("np", False)]
    with open(store / "experiments" / "linear-theory.csv") as new, open(HERE / "experiments" / "whole.csv") as old:
        for row, expected in zip(csv.DictReader(new), csv.DictReader(old), strict=True):
            assert row["rule"] == expected["rule"]
            assert float(row["simulated"]) == pytest.approx(float(expected["simulated"]), rel=1e-3)


@pytest.mark.parametrize("name", ["broken", "linear-theory"])
def test_they_are_reported(name, store, capsys):
    cli.main(["report", name, "--out", str(store), "--to", "report.md"])
    assert capsys.readouterr().out.startswith("report.md: ")
