"""What runs left, read back: the table that it becomes, what is damaged, which runs are chosen, what is shown."""

import csv
import io
import json
import logging
import os
import re
import subprocess
import sys
from dataclasses import asdict, replace

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

import nodepert as npt
from nodepert.cli import app as cli
from nodepert.cli import display
from nodepert.cli.runs import compared
from nodepert.errors import UserError
from nodepert.registry import full, names, short
from nodepert.studies.filters import best, of_status, ordered, where
from nodepert.studies.results import differing, load_results, saved_runs, studies
from nodepert.studies.run import Run
from nodepert.studies.store.run_folder import open_run
from nodepert.studies.store.tables import write_table

RUN = Run("digits(train=200, test=50)", "fc(width=8, depth=1)", "auto", 100, 2, 0.0, 0, "np", "sgd", 0.1)
OPTIONS = ["dataset", "network", "rule", "loss", "optimizer", "lr", "wd", "batchsize", "epochs", "seed"]
FIGURES = ["epoch", "epoch_time", "train_acc", "test_acc", "train_loss", "test_loss"]
GRID = [replace(RUN, rule=rule, seed=seed) for rule in ("np(sigma=1e-2, samples=1)", "np") for seed in (1, 0)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a study of four runs that were trained (as one program) and one of one, and what training gave."""
    out = tmp_path_factory.mktemp("runs")
    found = npt.train(GRID, name="grid", out=out)
    put(out, replace(RUN, seed=5), [row(0, 5.0)], study="other")
    (out / "grid" / "jobs").mkdir()
    (out / "notes").mkdir()
    (out / "notes" / "text.md").write_text("mine")
    return out, found


def row(epoch, test_acc, loss=0.25):
    return dict(zip(FIGURES, [epoch, 0.5, test_acc / 3, test_acc, loss, loss], strict=True))


def put(out, run, rows=(), status="finished", study="study", **more):
    """A run that was not trained, with the rows that it is to have; its folder."""
    with open_run(out, study, run, "data") as folder:
        if rows:
            folder.write_rows(rows, last=True)
        folder.set_status(status, **more)
    return folder.path


def record(run=RUN, **changes):
    """The text of a config.json, as the first version had it."""
    valid = {"format": "nodepert-run", "version": 1, "status": "finished", "config": run.config}
    return json.dumps(valid | changes)


def shown(capsys, *arguments):
    """The lines that a command prints, each as its columns."""
    cli.main(["runs", *arguments])
    out, err = capsys.readouterr()
    assert err == "" and all(c.isprintable() or c == "\n" for c in out)
    return [re.split(r"\s{2,}", line.strip()) for line in out.splitlines()]


# ---------------------------------------------------------------------------------------------- the table


def test_the_table_has_the_rows_that_training_gave(trained):
    out, found = trained
    table = load_results("grid", out)
    assert len(table) == sum(len(result.rows) for result in found) == 12
    for result in found:
        own = table[table["id"] == result.run.id]
        assert own[FIGURES].to_dict("records") == result.rows  # every float, to the last bit
        assert set(own["status"]) == {"finished"} and set(own["study"]) == {"grid"}
        assert set(own["seed"]) == {result.run.seed} and set(own["lr"]) == {0.1}


def test_its_columns_are_the_options_the_arguments_that_differ_and_the_figures(trained):
    out, _ = trained
    table = load_results("grid", out)
    assert list(table) == ["study", "id", "status", *OPTIONS, "rule.sigma", *FIGURES]
    first = table.iloc[0]
    expected = asdict(RUN) | {"loss": "mse", "rule": "np", "network": "fc(width=8, depth=1)"}
    assert {name: first[name] for name in OPTIONS} == {name: expected[name] for name in OPTIONS}
    assert table.groupby("rule")["rule.sigma"].unique().map(list).to_dict() == {"np": [1e-3], "np(sigma=0.01)": [1e-2]}


def test_all_studies_are_one_table(trained):
    out, _ = trained
    table = load_results(out=out)
    assert table.groupby("study")["id"].nunique().to_dict() == {"grid": 4, "other": 1}
    assert set(table[table["study"] == "other"]["seed"]) == {5}
    assert studies(out) == ["grid", "other"]  # neither notes nor grid/jobs


def test_last_is_one_row_per_run(trained):
    out, found = trained
    table = load_results("grid", out, last=True)
    assert table["id"].is_unique and set(table["epoch"]) == {2}
    assert dict(zip(table["id"], table["test_acc"], strict=True)) == {r.run.id: r.test_acc for r in found}


def test_runs_are_sorted_by_their_options_numbers_by_size(tmp_path):
    variants = [
        {"network": f"fc(width={width})", "lr": lr, "seed": seed} for width in (20, 100) for lr in (1e-5, 0.3, 2.0)
        for seed in (2, 10)
    ]  # fmt: skip
    for variant in reversed(variants):
        put(tmp_path, replace(RUN, **variant), [row(0, 1.0), row(1, 2.0)])
    table = load_results("study", tmp_path)
    assert table[["network", "lr", "seed"]].to_dict("records") == [v for v in variants for _ in range(2)]
    assert list(table["epoch"]) == [0, 1] * len(variants)


def test_a_run_without_figures_is_there_with_none(tmp_path, caplog):
    put(tmp_path, RUN, [row(0, 5.0)])
    put(tmp_path, replace(RUN, seed=1), status="failed")
    damaged = put(tmp_path, replace(RUN, seed=2), [row(0, 5.0)])
    (damaged / "metrics.csv").write_text("epoch,epoch_time\n0,what\n")
    table = load_results("study", tmp_path)
    assert list(table["seed"]) == [0, 1, 2] and list(table["status"]) == ["finished", "failed", "finished"]
    assert table.loc[0, FIGURES].to_dict() == row(0, 5.0) and table.loc[1:, FIGURES].isna().all(axis=None)
    (warning,) = caplog.records
    assert str(damaged / "metrics.csv") in warning.getMessage() and warning.name == "nodepert"


def test_the_types_of_columns_do_not_depend_on_what_is_missing(trained, tmp_path):
    out, _ = trained
    put(tmp_path, RUN)
    fixed = ["study", "id", "status", *OPTIONS, *FIGURES]
    assert load_results("study", tmp_path)[fixed].dtypes.to_dict() == load_results("grid", out)[fixed].dtypes.to_dict()


def test_a_study_that_is_not_there_is_refused_with_those_that_are(trained, tmp_path):
    out, _ = trained
    with pytest.raises(UserError, match=r"no study 'girds'.*did you mean 'grid'.*there are: grid, other$"):
        load_results("girds", out)
    for name in ("../grid", "", "notes", "grid/jobs"):
        with pytest.raises(UserError, match=r"name|there are: grid, other$"):
            load_results(name, out)
    with pytest.raises(UserError, match="no such file"):
        load_results(out=tmp_path / "nowhere")


# ----------------------------------------------------------------------------------------- short specs


@pytest.mark.parametrize(
    ("kind", "spec", "expected"),
    [
        ("rule", "np(sigma=1e-3, samples=1)", "np"),
        ("rule", "np(samples=4, sigma=2e-3)", "np(sigma=0.002, samples=4)"),  # in one order
        ("rule", "bp", "sgd"),
        ("rule", "decorrelate(np(samples=1, noise=sphere), rate=1e-3)", "decorrelate(np(noise=sphere))"),
        ("rule", "np(replay=False); fc*=dfa(seed=3, scale=1); out=exact", "np; fc*=dfa(seed=3); out=exact"),
        ("network", "precision(fc(width=500, depth=3), dtype=bfloat16)", "precision(fc(depth=3))"),
        ("optimizer", "normalise(adam(schedule=constant))", "normalise(adam)"),
    ],
)
def test_arguments_that_equal_their_defaults_are_left_out(kind, spec, expected):
    assert str(short(kind, spec)) == expected
    assert full(kind, expected) == full(kind, short(kind, spec)) == full(kind, str(full(kind, spec)))


@pytest.mark.parametrize("kind", ["rule", "network", "loss", "dataset", "optimizer"])
def test_a_name_with_every_default_written_out_is_the_name(kind):
    around = {"decorrelate": "(np)", "local": "(np)", "heads": "(fc)", "precision": "(conv)", "normalise": "(sgd)",
              "clip": "(sgd)", "sequential": "(mnist)"}  # fmt: skip
    for name in names(kind):
        text = f"{name}{around.get(name, '')}"
        if name not in ("by-node", "exact"):
            assert str(short(kind, str(full(kind, text)))) == text


def test_arguments_of_inner_specs_and_of_nodes_are_columns(tmp_path):
    rules = ["decorrelate(np(samples=4), rate=0.5)", "decorrelate(np)", "np", "np; out=dfa(seed=3)", "np; out=exact"]
    for rule in rules:
        put(tmp_path, replace(RUN, rule=rule), [row(0, 5.0)])
    table = load_results("study", tmp_path).set_index("rule")
    assert [name for name in table if "." in name] == ["rule.samples", "rule.out", "rule.rate"]
    assert table["rule.samples"].to_dict() == dict.fromkeys(rules, 1) | {rules[0]: 4}
    assert table["rule.rate"].dropna().to_dict() == {rules[0]: 0.5, "decorrelate(np)": 0.001}
    assert table["rule.out"].dropna().to_dict() == {"np; out=dfa(seed=3)": "dfa(seed=3)", "np; out=exact": "exact"}


def test_columns_of_words_and_of_truth(tmp_path):
    for rule in ("np(replay=True)", "np(noise=sphere)", "sgd"):
        put(tmp_path, replace(RUN, rule=rule))
    table = load_results("study", tmp_path).set_index("rule")
    assert table["rule.replay"].dropna().to_dict() == {"np(replay=True)": True, "np(noise=sphere)": False}
    assert table["rule.noise"].dropna().to_dict() == {"np(replay=True)": "gaussian", "np(noise=sphere)": "sphere"}


# --------------------------------------------------------------------------------------- what is damaged

DAMAGED = {
    "no JSON": "learning rate: 3\n",
    "empty": "",
    "truncated": record()[:-20],
    "a list": "[1, 2]",
    "of a later version": record(version=999),
    "no status": record(status=3),
    "unprintable status": record(status="\x1b[31mfinished"),
    "blank status": record(status=" "),
    "long status": record(status="x" * 10_000),
    "unknown rule": record(config=RUN.config | {"rule": "nosuch"}),
    "unknown options": record(config=RUN.config | {"x\x1b" * 10_000: 1}),
    "unprintable node": record(config=RUN.config | {"rule": "np; \x1bout=exact"}),
    "huge seed": record(config=RUN.config | {"seed": 2**70}),
    "huge": " " * (16 * 2**20 + 1),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_what_is_damaged_is_left_out_and_warned_of_in_one_line(what, tmp_path, caplog, capsys):
    put(tmp_path, RUN, [row(0, 5.0)])
    path = put(tmp_path, replace(RUN, seed=1)) / "config.json"
    path.write_text(DAMAGED[what])
    assert list(load_results("study", tmp_path)["seed"]) == [0]
    (warning,) = caplog.records
    assert (warning.name, warning.levelno) == ("nodepert", logging.WARNING)
    said = warning.getMessage()
    assert str(path) in said and said.isprintable() and len(said) <= 500
    assert path.read_text() == DAMAGED[what]
    assert len(shown(capsys, "study", "--out", str(tmp_path))) == 4  # options, header, the run, how many


def test_a_study_with_nothing_but_damage_is_an_empty_table(tmp_path, capsys, caplog):
    (put(tmp_path, RUN) / "config.json").write_text("")
    table = load_results("study", tmp_path)
    assert len(table) == 0 and list(table) == ["study", "id", "status", *OPTIONS, *FIGURES]
    with pytest.raises(SystemExit):
        cli.main(["runs", "--out", str(tmp_path)])
    assert f"no readable run in {tmp_path}: the only record cannot be read" in capsys.readouterr().err
    (put(tmp_path, replace(RUN, seed=1)) / "config.json").write_text("")
    put(tmp_path, RUN, study="sound")
    with pytest.raises(SystemExit):
        cli.main(["runs", "study", "--out", str(tmp_path)])
    assert f"no readable run in {tmp_path / 'study'}: none of 2 records can be read" in capsys.readouterr().err


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.sampled_from(["np", "sgd(x=1)"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)
SPEC = st.text("np sgd;=*out()fc.1,'\x00ü", max_size=20)
CONFIGS = st.one_of(
    st.binary(max_size=60),
    st.tuples(st.integers(0, len(record())), st.binary(max_size=3)).map(
        lambda cut: record()[: cut[0]].encode() + cut[1] + record()[cut[0] :].encode()
    ),
    st.tuples(st.sampled_from(["format", "version", "status", "config", "reason", "table"]), JSON).map(
        lambda change: record(**{change[0]: change[1]}).encode()
    ),
    st.tuples(st.sampled_from(OPTIONS), JSON | SPEC).map(
        lambda change: record(config=RUN.config | {change[0]: change[1]}).encode()
    ),
)
TABLE = b"epoch,epoch_time,train_acc,test_acc,train_loss,test_loss\n0,0.5,1,2.5,0.25,1e-3\n1,0.5,1,2.5,nan,inf\n"
TABLES = st.binary(max_size=60) | st.tuples(st.integers(0, len(TABLE)), st.integers(0, 9), st.binary(max_size=9)).map(
    lambda cut: TABLE[: cut[0]] + cut[2] + TABLE[cut[0] + cut[1] :]
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(CONFIGS | st.just(record().encode()), TABLES)
def test_no_bytes_make_reading_fail(tmp_path_factory, caplog, config, metrics):
    out = tmp_path_factory.getbasetemp() / "fuzz"
    folder = out / "study" / "0123456789ab"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_bytes(config)
    (folder / "metrics.csv").write_bytes(metrics)
    caplog.clear()
    runs = saved_runs(out=out)
    table = load_results("study", out)
    warned = [one.getMessage() for one in caplog.records]
    assert all(said.isprintable() and str(folder) in said for said in warned)
    assert len(runs) == table["id"].nunique() == 1 or warned
    assert not runs or len(table) == max(1, len(runs[0].rows))
    table.to_parquet(io.BytesIO())


# -------------------------------------------------------------------------------------- CSV and Parquet


def test_csv_gives_every_float_back(trained, tmp_path, capsys):
    out, found = trained
    cli.main(["results", "grid", "--out", str(out)])
    printed = capsys.readouterr().out
    cli.main(["results", "grid", "--out", str(out), "--to", "table.csv"])
    assert capsys.readouterr().out == "table.csv: 12 rows of 4 runs\n"
    assert (tmp_path / "table.csv").read_text() == printed
    rows = list(csv.DictReader(io.StringIO(printed)))
    for result in found:
        own = [line for line in rows if line["id"] == result.run.id]
        assert [{k: type(one[k])(line[k]) for k in FIGURES} for one, line in zip(result.rows, own, strict=True)] == (
            result.rows
        )
    table = load_results("grid", out)
    assert_frame_equal(pd.read_csv(io.StringIO(printed)), table, check_dtype=False, check_exact=True)


def test_parquet_gives_the_same_table_back(trained, tmp_path):
    out, _ = trained
    for rule in ("np(replay=True)", "np(noise=sphere, samples=2)", "sgd"):
        put(tmp_path / "more", replace(RUN, rule=rule), study="more")
    for folder in (out, tmp_path / "more"):
        table = load_results(out=folder)
        write_table(table, tmp_path / "table.parquet")
        assert_frame_equal(pd.read_parquet(tmp_path / "table.parquet"), table)
    assert list(tmp_path.glob("*table*")) == [tmp_path / "table.parquet"]


def test_last_of_the_command(trained, tmp_path):
    out, _ = trained
    cli.main(["results", "grid", "--out", str(out), "--last", "--to", "table.parquet"])
    assert_frame_equal(pd.read_parquet("table.parquet"), load_results("grid", out, last=True))


def test_what_cannot_be_written_is_refused_and_the_old_file_saved_runs(trained, tmp_path, monkeypatch, capsys):
    out, _ = trained

    def refused(name, part):
        with pytest.raises(SystemExit) as stop:
            cli.main(["results", "grid", "--out", str(out), "--to", name])
        printed, err = capsys.readouterr()
        assert (stop.value.code, printed, err.count("\n")) == (2, "", 1) and part in err, err

    refused("table.xlsx", "must end in .csv or .parquet")
    refused("table", "must end in .csv or .parquet")
    (tmp_path / "table.csv").write_text("study,id,old")
    refused("table.csv/table.csv", "cannot write")
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    refused("table.csv", "no space left on device")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    refused("table.parquet", 'pip install "nodepert[parquet]"')
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("table.csv", "study,id,old")]


# ------------------------------------------------------------------------------------------- which runs


@pytest.fixture
def several(tmp_path):
    """Five runs of one study, known by their seeds."""
    put(tmp_path, RUN, [row(0, 10.0), row(1, 20.0), row(2, 30.0)])
    put(tmp_path, replace(RUN, seed=1, rule="np(samples=4)", lr=1e-3), [row(0, 10.0), row(1, 50.0)], "interrupted")
    put(tmp_path, replace(RUN, seed=2, rule="sgd", network="fc(width=100)"), [row(0, 9.0), row(1, 90.0, float("nan"))],
        "diverged at epoch 1")  # fmt: skip
    failed = {"status": "failed", "reason": "out of\nmemory"}
    put(tmp_path, replace(RUN, seed=3, rule="decorrelate(np)", network="conv"), **failed)
    put(tmp_path, replace(RUN, seed=4, rule="np(noise=sphere)", lr=1e-3), [row(0, 70.0)], "interrupted")
    return tmp_path


def seeds(runs):
    return [run.options["seed"] for run in runs]


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        (["rule=np"], {0, 1, 4}),  # any arguments
        (["rule=np()"], {0}),  # its defaults
        (["rule= np( sigma=.001, samples=4.0e0 )"], None),  # samples is a whole number
        (["rule=np( sigma=.001, samples=4 )"], {1}),
        (["rule=bp"], {2}),  # an alias
        (["rule=np(noise=sphere)", "rule=sgd"], {2, 4}),  # either
        (["rule=decorrelate"], {3}),
        (["rule=decorrelate(np(samples=1))"], {3}),
        (["rule=np", "lr=1e-3"], {1, 4}),
        (["rule=np", "lr=0.0010", "seed=3..9"], {4}),
        (["network.width=100"], {2}),
        (["network.width=1e2", "network.width=8"], {0, 1, 2, 4}),
        (["rule.noise=Sphere"], {4}),
        (["rule.samples=1"], {0, 3, 4}),
        (["rule.replay=false", "network=fc"], {0, 1, 4}),
        (["dataset=digits", "loss=mse", "batchsize=100", "epochs=2", "wd=0"], {0, 1, 2, 3, 4}),
        ([], {0, 1, 2, 3, 4}),
    ],
    ids=str,
)
def test_conditions_choose_runs(conditions, expected, several):
    runs = saved_runs(out=several)
    if expected is None:
        with pytest.raises(UserError, match="samples must be a whole number"):
            where(runs, conditions)
    else:
        assert set(seeds(where(runs, conditions))) == expected


def test_statuses_the_best_and_orders(several):
    runs = saved_runs(out=several)
    assert set(seeds(of_status(runs, "interrupted"))) == {1, 4} and seeds(of_status(runs, "diverged")) == [2]
    assert seeds(best(runs, 2)) == [2, 4] and seeds(best(runs, 99)) == [2, 4, 1, 0]
    assert seeds(ordered(runs, "test_acc")) == [2, 4, 1, 0, 3]  # without figures: at the end
    assert set(seeds(ordered(runs, "test_loss"))[-2:]) == {2, 3}  # not a number: as well
    assert seeds(ordered(runs, "seed")) == [0, 1, 2, 3, 4]
    assert seeds(ordered(runs, "network.width"))[-2:] == [2, 3]
    assert [run.options["lr"] for run in ordered(runs, "lr")] == [1e-3, 1e-3, 0.1, 0.1, 0.1]
    assert [run.status for run in ordered(runs, "status")] == sorted(run.status for run in runs)


BAD = {
    "no study": (["studi"], "no study 'studi' in runs (did you mean 'study'?); there are: study"),
    "no condition": (["--where", "rule"], "--where takes OPTION=VALUE"),
    "option": (["--where", "rul=np"], "an option rul (did you mean rule?); there are: dataset, network, rule"),
    "near option": (["--where", "network.wdth=8"], "(did you mean network.width?)"),
    "unknown rule": (["--where", "rule=nosuch"], "unknown rule 'nosuch'; there are: sgd"),
    "rule that is not there": (["--where", "rule=wp"], "there are: decorrelate(np), np, np(noise=sphere)"),
    "argument": (["--where", "rule=np(sampels=3)"], "no argument 'sampels'"),
    "spec": (["--where", "rule=np("], "cannot read"),
    "number": (["--where", "lr=fast"], "lr is a number; got 'fast'"),
    "value": (["--where", "lr=0.5"], "none of these runs has lr=0.5; there are: 0.1, 0.001"),
    "argument's value": (["--where", "network.width=9"], "there are: 8, 100"),
    "seed": (["--where", "seed=x"], "a range like '0..4'"),
    "all of them": (["--where", "rule=sgd", "lr=1e-3"], "none of these 5 runs meets all of: rule=sgd, lr=1e-3"),
    "status": (["--status", "done"], "none of these runs is done; there are: "),
    "best": (["--best", "0"], "best must be at least 1; got 0"),
    "best of none": (["--status", "failed", "--best", "1"], "none of these runs has metrics"),
    "sort": (["--sort", "accuracy"], "no column accuracy; there are: study, id, status, dataset"),
    "out": (["--out", "nowhere"], "no runs in nowhere"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_filter_is_one_line_that_says_what_there_is(what, several, capsys):
    command, part = BAD[what]
    (several / "runs").mkdir()
    (several / "study").rename(several / "runs" / "study")
    with pytest.raises(SystemExit) as stop:
        cli.main(["runs", *command])
    out, err = capsys.readouterr()
    assert (stop.value.code, out, err.count("\n")) == (2, "", 1) and part in err, err


def test_conditions_may_be_given_together_or_one_by_one(several, capsys):
    together = shown(capsys, "study", "--out", str(several), "--where", "rule=np", "lr=1e-3")
    one_by_one = shown(capsys, "study", "--where", "rule=np", "--out", str(several), "--where", "lr=1e-3")
    assert together == one_by_one and len(together) == 5


# ---------------------------------------------------------------------------------------- what is shown


def test_runs_are_compared_by_the_options_in_which_they_differ(several, capsys):
    common, header, *lines, count, reason = shown(capsys, "study", "--out", str(several), "--sort", "seed")
    assert common == ["digits(train=200, test=50), mse, sgd, wd=0.0, batchsize=100, epochs=2"]
    assert header == ["id", "status", "epoch", "network", "rule", "lr", "seed", "train %", "test %", "train loss",
                      "test loss"]  # fmt: skip
    runs = {run.options["seed"]: run for run in saved_runs(out=several)}
    assert lines[1] == [runs[1].id, "interrupted", "1/2", "fc(width=8, depth=1)", "np(samples=4)", "0.001", "1",
                        "16.67", "50.00", "0.25", "0.25"]  # fmt: skip
    assert lines[2][1:5] + lines[2][-2:] == ["diverged", "1/2", "fc(width=100)", "sgd", "nan", "nan"]
    assert lines[3][1:3] + lines[3][-4:] == ["failed", "-/2", "-", "-", "-", "-"]
    assert count == ["5 runs: 1 finished, 1 diverged, 1 failed, 2 interrupted"]
    assert reason == ["1 failed: out of memory"]


def test_where_all_have_one_spec_its_arguments_are_compared(several, capsys):
    common, header, *lines, _ = shown(capsys, "--out", str(several), "--where", "rule=np", "network=fc")
    assert common == ["digits(train=200, test=50), fc(width=8, depth=1), np, mse, sgd, wd=0.0, batchsize=100, epochs=2"]
    assert header[:7] == ["id", "status", "epoch", "rule.samples", "rule.noise", "lr", "seed"]
    assert [line[3:7] for line in lines] == [["1", "gaussian", "0.1", "0"], ["1", "sphere", "0.001", "4"],
                                             ["4", "gaussian", "0.001", "1"]]  # fmt: skip


def test_a_narrow_terminal_shows_no_losses_and_cuts_nothing_off(several, capsys, monkeypatch):
    for width in (60, 80, 100, 160):
        monkeypatch.setattr(display.console, "_width", width)
        cli.main(["runs", "study", "--out", str(several)])
        text = capsys.readouterr().out
        assert "…" not in text and ("test loss" in text) == (width == 160)
        assert all(word in text for word in ("decorrelate(np)", "fc(width=100)", "np(samples=4)", "0.001", "90.00"))
        assert all(run.id in text for run in saved_runs(out=several))
    assert max(map(len, text.splitlines())) <= 160


def test_without_a_name_there_is_a_line_per_study(several, capsys):
    put(several, RUN, [row(0, 12.5)], study="alone")
    (several / "empty").mkdir()
    header, *lines = shown(capsys, "--out", str(several))
    assert header == ["study", "runs", "finished", "diverged", "failed", "interrupted", "best test %", "last changed"]
    assert [line[:-1] for line in lines] == [["alone", "1", "1", "0", "0", "0", "12.50"],
                                             ["study", "5", "1", "1", "1", "2", "90.00"]]  # fmt: skip
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d", line[-1]) for line in lines)


def test_several_studies_are_told_apart(several, capsys):
    put(several, RUN, [row(0, 12.5)], study="alone")
    _, header, *lines, count = shown(capsys, "alone", "study", "--out", str(several), "--where", "seed=0")
    assert header[:4] == ["id", "status", "epoch", "study"] and [line[3] for line in lines] == ["alone", "study"]
    assert count == ["2 runs: 2 finished"]


def test_a_run_whose_process_is_gone_is_interrupted(tmp_path):
    with open_run(tmp_path, "study", RUN, "data") as folder:
        folder.set_status("running")
        assert [run.status for run in saved_runs(out=tmp_path)] == ["running"]
    assert [run.status for run in saved_runs(out=tmp_path)] == ["interrupted"]


def test_which_columns_differ(several):
    runs = saved_runs(out=several)
    assert differing(runs) == ["network.width", "network.depth", "rule.samples", "rule.noise"]
    assert compared(runs) == ["network", "rule", "lr", "seed"] and compared(runs[:1]) == []


def test_what_arguments_do_not_tell_apart_is_shown_whole(tmp_path):
    for rule in ("np; out=exact", "np(samples=2); fc*=exact", "np(samples=2); out=exact"):
        put(tmp_path, replace(RUN, rule=rule))
    assert compared(saved_runs(out=tmp_path)) == ["rule"]
    assert compared(where(saved_runs(out=tmp_path), ["rule.out=exact"])) == ["rule.samples"]


def test_looking_at_runs_imports_neither_jax_nor_pandas(several):
    code = (
        "import sys; from nodepert.cli.app import main; main(sys.argv[1:]); print({'jax', 'pandas'} & {*sys.modules})"
    )
    for more in ([], ["study", "--best", "2"]):
        command = [sys.executable, "-c", code, "runs", "--out", str(several), *more]
        assert subprocess.check_output(command, text=True).splitlines()[-1] == "set()"
    command[3:] = ["results", "study", "--out", str(several)]
    assert subprocess.check_output(command, text=True).splitlines()[-1] == "{'pandas'}"


def test_a_condition_on_the_status_names_the_option_for_it(tmp_path):
    put(tmp_path, RUN, [row(0, 1.0)])
    found = saved_runs(None, tmp_path)
    for condition, word in (("status=finished", "finished"), ("status = diverged", "diverged")):
        with pytest.raises(UserError, match=f"status is not an option of a run: write --status {word}, not --where"):
            where(found, [condition])


def test_runs_of_two_tasks_are_listed_chosen_and_tabulated_side_by_side(tmp_path, capsys):
    values = replace(RUN, dataset="diabetes", loss="auto")
    runs = [values, replace(values, seed=1), RUN, replace(RUN, seed=1)]
    for run, score in zip(runs, (0.5, 0.25, 80.0, 90.0), strict=True):
        name = "r2" if run.dataset == "diabetes" else "acc"
        losses = {"train_loss": 0.5, "test_loss": 0.5}
        put(tmp_path, run, [{"epoch": 0, f"train_{name}": score, f"test_{name}": score, **losses}], study="both")
    cli.main(["runs", "--out", str(tmp_path)])
    heading, line = capsys.readouterr().out.splitlines()
    assert "best test %  best test R2" in heading and re.search(r"90\.00 +0\.5000", line)
    assert [run.id for run in best(saved_runs(["both"], tmp_path), 1)] == [runs[3].id, runs[0].id]
    cli.main(["runs", "both", "--where", "dataset=diabetes", "--sort", "test_r2", "--out", str(tmp_path)])
    _, heading, first, *_ = capsys.readouterr().out.splitlines()
    assert first.startswith(runs[0].id) and "test R2" in heading and "test %" not in heading
    table = load_results("both", tmp_path)
    assert table.test_acc.count() == table.test_r2.count() == 2
