"""--quiet and --json of every command that has them, and --version."""

import json

import numpy as np
import pytest
from toy import Toy

import nodepert as npt
from nodepert.cli import app as cli
from nodepert.cli.output import plain
from nodepert.studies import train as runner
from nodepert.training.program import State
from nodepert.training.replicas import Epoch

pytestmark = pytest.mark.usefixtures("work", "quickly_compiled")
TINY = ["--dataset", "digits(train=200, test=50)", "--network", "fc(width=8)"]
ROWS = [
    {"epoch": e, "epoch_time": 0.5, "train_acc": 9.0, "test_acc": 8.0, "train_loss": 0.2, "test_loss": 0.3}
    for e in (0, 1)
]
GRID = """
name = "study"
[grid]
dataset = "digits(train=200, test=50)"
network = "fc(width=8)"
rule = ["np", "sgd"]
epochs = 1
"""


@pytest.fixture(autouse=True)
def untrained(monkeypatch):
    """Runs that cost nothing: two rows that are known before."""

    def trained(model, loss, data, hypers, **_):
        state = State({"w": np.zeros(2)}, (), (), np.int32(1))
        return (Epoch(dict.fromkeys(range(len(hypers)), row), lambda i: state) for row in ROWS)

    monkeypatch.setattr(runner, "fit_all", trained)


@pytest.fixture
def asked(capsys):
    """`asked(command, ...)`: what it prints."""

    def ask(*command, status=0):
        if status:
            with pytest.raises(SystemExit) as stop:
                cli.main(command)
            assert stop.value.code == status
        else:
            cli.main(command)
        return capsys.readouterr().out

    return ask


def test_training_and_what_it_leaves(asked):
    run = {"status": "finished", "metrics": ROWS[1]}
    (found,) = json.loads(asked("train", *TINY, "--epochs", "1", "--json"))["runs"]
    assert found | run == found and found["options"]["epochs"] == 1
    assert found["rows"] == f"runs/default/{found['id']}/metrics.csv"
    both = json.loads(asked("compare", *TINY, "--epochs", "1", "--rules", "np", "sgd", "--name", "n", "--json"))
    assert [one["options"]["rule"] for one in both["runs"]] == ["np", "sgd"] and both["figure"] == "runs/n/compare.png"
    listed = json.loads(asked("runs", "n", "--json"))
    assert [one["metrics"] for one in listed] == [ROWS[1]] * 2 and listed[0]["study"] == "n"
    assert len(json.loads(asked("runs", "--json"))) == 3
    rows = json.loads(asked("results", "n", "--json"))
    assert [(row["rule"], row["epoch"]) for row in rows] == [("np", 0), ("np", 1), ("sgd", 0), ("sgd", 1)]
    assert len(json.loads(asked("results", "n", "--to", "n.csv", "--json"))) == 4


def test_training_quietly(asked):
    train = ("train", *TINY, "--epochs", "1")
    loud, quiet = asked(*train, "--name", "a"), asked(*train, "--name", "b", "--quiet")
    assert "epoch   1" in loud and quiet.splitlines() == loud.replace("/a/", "/b/").splitlines()[2:]
    assert asked("results", "a", "--to", "a.csv", "--quiet") == "" and asked("results", "a", "--quiet").count("\n") == 3
    table = asked("runs", "a", "--quiet").splitlines()
    assert len(table) == 2 and set(table) < {*asked("runs", "a").splitlines()}


def test_a_sweep(asked, work):
    (work / "g.toml").write_text(GRID)
    sweep = ("sweep", "g.toml", "--launcher", "debug")
    planned = json.loads(asked(*sweep, "--dry-run", "--json"))
    assert planned["name"] == "study" and [run["status"] for run in planned["runs"]] == ["waiting"] * 2
    done = json.loads(asked(*sweep, "--json"))
    assert [run["metrics"] for run in done["runs"]] == [ROWS[1]] * 2 and done["failures"] == []
    assert json.loads(asked(*sweep, "--json")) == done and asked(*sweep, "--quiet") == ""
    assert "2 runs in 2 groups" in asked(*sweep, "--dry-run", "--quiet")


def test_a_check(asked):
    check = ("check", *TINY, "--batchsize", "5", "--draws", "100", "--rule", "sgd")
    (found,) = json.loads(asked(*check, "--json"))["rules"]
    assert found["rule"] == "sgd" and found["rows"] and "files: runs/check/sgd.csv" in asked(*check, "--quiet")


def test_an_experiment(asked, own):
    npt.register("experiment", "toy", Toy)
    toy = ("experiment", "toy", "--scale", "smoke")
    assert "[1/2] size 1:" in asked(*toy, "--out", "a") and "[1/2]" not in asked(*toy, "--out", "b", "--quiet")
    found = json.loads(asked(*toy, "--out", "a", "--json"))
    assert found["rows"][0] == {"size": 1, "i": 0, "label": "row 0", "value": 0.0, "none": None}
    assert found["findings"][1] == {"says": "a value is negative", "holds": False} and found["table"] == "a/toy.csv"


def test_lists(asked):
    listed = json.loads(asked("list", "rules", "losses", "--json"))
    assert [*listed] == ["rules", "losses"] and "samples=1" in listed["rules"]["np"]["arguments"]
    assert "Bias" in listed["rules"]["np"] and asked("list", "losses", "--quiet").split() == [*listed["losses"]]
    data = json.loads(asked("data", "--json"))
    assert not data["mnist"]["here"] and data["digits"]["here"]
    assert json.loads(asked("data", "fetch", "digits", "--json"))["digits"]["train"] > 1000
    assert asked("data", "fetch", "digits", "--quiet") == "" and asked("data", "--quiet") == asked("data")


def test_a_doctor(asked):
    items = {item["name"]: item for item in json.loads(asked("doctor", "--json"))}
    assert items["packages"]["ok"] and "python" not in asked("doctor", "--quiet")
    wrong = ("doctor", "--data-dir", "nowhere")
    assert not all(item["ok"] for item in json.loads(asked(*wrong, "--json", status=1)) if item["required"])
    assert asked(*wrong, "--quiet", status=1).startswith("\nrequired:")


def test_errors_leave_nothing_on_standard_output(asked):
    assert asked("train", "--epochs", "-1", "--json", status=2) == ""
    assert asked("runs", "nosuch", "--json", status=2) == ""


def test_the_version(asked):
    assert asked("--version") == f"nodepert {npt.__version__}\n"


def test_values_for_json():
    assert plain({1: (np.float32(0.5), float("nan"), {"a": np.int64(3)})}) == {"1": [0.5, None, {"a": 3}]}
