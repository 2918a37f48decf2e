"""Grids: what a file describes, what is refused and how, the shipped example, and the command."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodepert.cli import app as cli
from nodepert.errors import UserError
from nodepert.studies.grid import load_grid, make_grid

GRIDS = Path(__file__).parents[2] / "grids"
SMALL = {"dataset": "digits(train=200, test=50)", "network": "fc(width=8)", "epochs": 1}


def test_a_grid_is_every_combination_once_with_seeds_fastest():
    name, runs, slurm = make_grid({"name": "a", "seeds": 2, "grid": {"rule": ["np", "sgd"], "lr": [0.1, 0.2]}})
    assert name == "a" and not slurm and len(runs) == len(set(runs)) == 8
    assert [(run.rule, run.lr, run.seed) for run in runs[:3]] == [("np", 0.1, 0), ("np", 0.1, 1), ("np", 0.2, 0)]
    assert [run.seed for run in make_grid({"seeds": ["1..2", 7]}).runs] == [1, 2, 7]


def test_lists_of_their_own_and_exceptions():
    table = {
        "dataset": "digits",
        "grid": {"rule": ["np", "np(samples=4)"], "lr": [0.1, 0.2]},
        "runs": [{"rule": "sgd", "lr": 0.3}, {"rule": "np", "lr": 0.1}],  # the second one is there already
        "except": [{"rule": "np( samples = 4 )", "lr": [0.2, 9.0]}],  # specs are compared as specs
    }
    found = [(run.rule, run.lr) for run in make_grid(table).runs]
    assert found == [("np", 0.1), ("np", 0.2), ("np(samples=4)", 0.1), ("sgd", 0.3)]
    only = make_grid({"dataset": "digits", "runs": [{"rule": "sgd"}, {"rule": "wp"}]})
    assert [run.rule for run in only.runs] == ["sgd", "wp"]


def test_the_shipped_grid_is_the_ancestors_432_runs(capsys):
    cli.main(["sweep", str(GRIDS / "weight-decay.toml"), "--dry-run"])
    out = capsys.readouterr().out
    assert "weight-decay: 432 runs in 4 groups" in out and "0 done" in out
    assert out.count(" 108 ") == 4


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rule = [", "not readable as TOML"),
        ("rule = []", "rule needs a value"),
        ("lr = [0.1, 0.1]", "lr has a value twice"),
        ("rul = 'np'", "unknown option rul; there are: dataset, "),
        ("hl_size = 3", "as in 'fc(width=500, depth=2)'"),
        ("rule = 'nq'", "unknown rule 'nq'"),
        ("lr = 'fast'", "lr must be a number; got 'fast'"),
        ("seeds = 0", "seeds are a number of them"),
        ("seeds = true", "seeds are a number of them"),
        ("seeds = '4..1'", "a range goes upwards"),
        ("seeds = 2\nseed = 1", "give seeds or seed, not both"),
        ("runs = 3", "written as [[runs]]"),
        ("runs = [3]", "[[runs]] is a table of options"),
        ("grid = 3", "[grid] is a table of options"),
        ("name = '../up'", "becomes a folder"),
        ("name = 3", "name must be a string"),
        ("[[except]]\nrule = 'np'", "the grid has no runs"),
        ("seeds = 9999\nlr = [1e-1, 1e-2, 1e-3]\nwd = [0.1, 0.2, 0.3, 0.4]", "at most 100,000"),
        ("epochs = [1, [2]]", "epochs must be a whole number; got [2]"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_that_names_the_file(tmp_path, capsys, text, words):
    path = tmp_path / "study.toml"
    path.write_text(text)
    with pytest.raises(SystemExit) as stop:
        cli.main(["sweep", str(path), "--out", str(tmp_path / "out")])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and len(error.splitlines()) == 1
    assert words in error and str(path) in error
    assert not (tmp_path / "out").exists()


def test_a_grid_file_that_is_none(tmp_path):
    for path in (tmp_path / "missing.toml", tmp_path):
        with pytest.raises(UserError, match="cannot read"):
            load_grid(path)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not a text file"):
        load_grid(tmp_path / "binary.toml")


WORDS = st.sampled_from(["rule", "lr", "seeds", "seed", "grid", "runs", "except", "name", "np", "sgd", "epochs", "x"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(WORDS, VALUES, max_size=4))
def test_any_table_is_a_grid_or_one_line_of_refusal(table):
    try:
        assert make_grid(table).runs
    except UserError as error:
        assert len(str(error).splitlines()) == 1


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40))
def test_any_text_is_a_table_or_refused(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("grid") / "g.toml"
    path.write_text(text, encoding="utf-8", errors="replace")
    try:
        load_grid(path)
    except UserError as error:
        assert len(str(error).splitlines()) == 1 or "\n" in text
    else:
        tomllib.loads(path.read_text(encoding="utf-8"))


def test_a_sweep_trains_what_is_not_there_yet(tmp_path, capsys):
    path = tmp_path / "study.toml"
    path.write_text("".join(f"{key} = {value!r}\n" for key, value in SMALL.items()) + "lr = [0.1, 0.2]\nseeds = 2\n")
    cli.main(["sweep", str(path), "--out", str(tmp_path)])
    out = capsys.readouterr().out
    assert "study: 4 runs in 1 groups" in out and "2 finished" in out
    assert len(list((tmp_path / "study").glob("*/metrics.csv"))) == 4
    cli.main(["sweep", str(path), "--out", str(tmp_path)])
    assert "4 done, 0 epochs to train" in capsys.readouterr().out
