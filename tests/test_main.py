"""The command line of the original code works: its options, defaults and table, and many processes at once."""

import csv
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import nodepert
from nodepert import main as original
from nodepert.data import formats

pytestmark = pytest.mark.usefixtures("quickly_compiled")
SCRIPT = Path(nodepert.__file__).with_name("main.py")
FULL = ["epoch", "epoch_time", "train_acc", "test_acc", "dataset", "network", "update_rule", "n_hl", "lr", "batchsize"]
FULL += ["hl_size", "num_epochs", "wd", "exp_name", "log_expdata", "jobid"]
COMMAND = ["-network", "fc", "-dataset", "mnist", "-n_hl", "2", "-hl_size", "8", "-lr", "5e-3", "-batchsize", "10"]
COMMAND += ["-num_epochs", "2", "-update_rule", "np"]


@pytest.fixture(autouse=True)
def work(tmp_path, monkeypatch):
    """An empty working directory, and NODEPERT_DATA_DIR with 60 + 20 images of noise named as MNIST."""
    (tmp_path / "data" / "mnist").mkdir(parents=True)
    (tmp_path / "work").mkdir()
    rng = np.random.default_rng(0)
    for split, count in zip(formats.IDX_SPLITS, (60, 20), strict=True):
        for kind, shape in ((formats.IDX_IMAGES, (count, 28, 28)), (formats.IDX_LABELS, (count,))):
            head = struct.pack(f">{1 + len(shape)}I", 0x800 + len(shape), *shape)
            values = rng.integers(0, 256 if len(shape) == 3 else 10, shape, np.uint8)
            (tmp_path / "data" / "mnist" / kind.format(split)).write_bytes(head + values.tobytes())
    monkeypatch.setenv("NODEPERT_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *arguments],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(started):
    with started:
        out, err = started.communicate(timeout=200)
    return started.returncode, out, err


def table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def files(folder):
    """All files but the lock beside a table."""
    return [str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and p.suffix != ".lock"]


def test_the_defaults_are_those_of_the_original_code():
    assert vars(original.parser().parse_args([])) == {
        "dataset": "mnist",
        "network": "fc",
        "update_rule": "np",
        "n_hl": 2,
        "hl_size": 500,
        "lr": 1e-2,
        "batchsize": 100,
        "num_epochs": 4,
        "wd": 0.0,
        "exp_name": "npexp",
        "log_expdata": False,
        "jobid": 0,
    }


@pytest.mark.parametrize(
    ("words", "value"),
    [([], True), (["True"], True), (["true"], True), (["1"], True), (["False"], False), (["no"], False)],
)
def test_log_expdata_is_a_boolean_and_true_without_a_value(words, value):
    assert original.parser().parse_args(["-log_expdata", *words, "-lr", "1"]).log_expdata is value


def test_the_options_describe_plain_gradient_descent_on_the_named_network():
    run = original.to_run(original.parser().parse_args([*COMMAND, "-n_hl", "3", "-wd", "0.1", "-jobid", "3"]))
    assert run.network == "fc(width=8, depth=3)" and run.optimizer == "sgd" and run.rule == "np"
    assert (run.dataset, run.lr, run.wd, run.seed, run.batchsize, run.epochs) == ("mnist", 5e-3, 0.1, 3, 10, 2)


def test_the_command_logs_its_epochs_and_settings_like_the_original_code(work):
    status, out, err = finish(start(*COMMAND, "-log_expdata", "True"))
    assert (status, err) == (0, "")
    assert "Update rule: np" in out and out.count("epoch") == 3
    assert files(work) == ["explogs/npexp/fc.csv"]
    rows = table(work / "explogs" / "npexp" / "fc.csv")
    assert list(rows[0]) == FULL
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    assert all(0 <= float(row[split]) <= 100 for row in rows for split in ("train_acc", "test_acc"))
    settings = dict(zip(COMMAND[::2], COMMAND[1::2], strict=True)) | {"-lr": "0.005", "-wd": "0.0", "-jobid": "0"}
    settings |= {"-exp_name": "npexp", "-log_expdata": "True"}
    assert {f"-{key}": rows[2][key] for key in FULL[4:]} == settings


def test_processes_at_once_append_complete_rows(work):
    short = [*COMMAND, "-n_hl", "0", "-batchsize", "60", "-num_epochs", "1", "-log_expdata", "-exp_name", "many"]
    started = [start(*short, "-jobid", str(job)) for job in range(3)]
    ends = [finish(process) for process in started]
    assert [(status, err) for status, _, err in ends] == [(0, "")] * 3
    rows = table(work / "explogs" / "many" / "fc.csv")
    assert sorted((row["jobid"], row["epoch"]) for row in rows) == [(str(j), str(e)) for j in range(3) for e in (0, 1)]
    assert all(list(row) == FULL and all(row.values()) for row in rows)  # csv puts None into an incomplete row
    assert len({row["train_acc"] for row in rows}) > 2  # the job is the seed


def logged(monkeypatch, *arguments):
    """Run in this process without training: one row of known numbers."""
    from nodepert.studies import train as runner

    row = {"epoch": 0, "epoch_time": 0.5, "train_acc": 9.0, "test_acc": 8.0, "train_loss": 0.2, "test_loss": 0.3}

    def train(run, callbacks):
        callbacks[0].on_epoch(run, row, None)
        return runner.Result(run, [row], "finished")

    monkeypatch.setattr(runner, "train", train)
    original.main(list(arguments))


@pytest.mark.parametrize("network", ["conv", "conv-large"])
def test_a_convolutional_network_logs_no_layer_sizes(network, work, monkeypatch):
    logged(monkeypatch, "-network", network, "-log_expdata", "-exp_name", "c")
    (row,) = table(work / "explogs" / "c" / f"{network}.csv")
    assert list(row) == [column for column in FULL if column not in ("n_hl", "hl_size")]
    assert row["network"] == network and row["train_acc"] == "9.0"


def test_runs_append_to_one_table(work, monkeypatch):
    for job in "01":
        logged(monkeypatch, "-network", "linfc", "-log_expdata", "-jobid", job)
    assert [row["jobid"] for row in table(work / "explogs" / "npexp" / "linfc.csv")] == ["0", "1"]


def test_without_log_expdata_nothing_is_written(work, monkeypatch, capsys):
    logged(monkeypatch, *COMMAND)
    assert "epoch   0" in capsys.readouterr().out and list(work.iterdir()) == []


BAD = {
    "-lr fast": "argument -lr: invalid float value: 'fast'",
    "-lr -1": "lr (learning rate) must be",
    "-batchsize 61": "at most the 60 training examples",
    "-n_hl 1.5": "argument -n_hl",
    "-hl_size 0": "width must be at least 1",
    "-network nosuch": "unknown network",
    "-network conv_large": "did you mean 'conv-large'?",
    "-dataset nosuch": "unknown dataset",
    "-update_rule nosuch": "unknown rule",
    "-log_expdata maybe": "'maybe' is neither True nor False",
    "-jobid -1": "seed must be",
    "-nosuch 1": "-nosuch",
    "-learning_rate 1": "-learning_rate",
}


@pytest.mark.parametrize("options", BAD)
def test_invalid_options_give_one_line_and_status_2(options, work, capfd):
    with pytest.raises(SystemExit) as stop:
        original.main([*COMMAND, "-log_expdata", "True", *options.split()])
    err = capfd.readouterr().err
    assert stop.value.code == 2
    assert err.startswith("nodepert: error: ") and err.count("\n") == 1 and BAD[options] in err
    assert list(work.iterdir()) == []


def test_invalid_options_end_the_process_with_status_2(work):
    status, out, err = finish(start("-lr", "fast"))
    assert (status, out) == (2, "") and err.startswith("nodepert: error: ") and err.count("\n") == 1


def test_an_unwritable_table_gives_one_line_and_status_2(work, monkeypatch, capsys):
    (work / "explogs").write_text("mine")
    with pytest.raises(SystemExit) as stop:
        logged(monkeypatch, *COMMAND, "-log_expdata")
    err = capsys.readouterr().err
    assert stop.value.code == 2 and err.startswith("nodepert: error: cannot write") and err.count("\n") == 1
    assert (work / "explogs").read_text() == "mine"
