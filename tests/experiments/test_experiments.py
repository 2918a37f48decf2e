"""Every experiment: small enough at smoke, kept part by part, drawn, described; findings hold in the figures shown."""

import json
import math
import re
from pathlib import Path

import pytest
from filelock import FileLock

import nodepert as npt
from nodepert.cli import app as cli
from nodepert.experiments import build
from nodepert.experiments.drawing import Picture
from nodepert.experiments.execute import conduct, read_rows
from nodepert.registry import names

DOCS = Path(__file__).parents[2] / "docs"
EVERY = names("experiment")
NAME, PARTS = "linear-theory", 2  # what the tests of conduct itself use


# Each has a test of its own at smoke, or at a little less:
LONG = ("delta-loss", "alignment", "adam", "linesearch", "width-scaling", "stabilise", "rules", "mismatch")


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in LONG)) for n in EVERY])
def test_an_experiment_leaves_table_figures_and_findings_and_is_not_computed_twice(name, tmp_path):
    found = conduct(name, "smoke", out=tmp_path)
    assert found.rows and len({tuple(row) for row in found.rows}) == 1  # the same columns everywhere
    assert {type(value) for row in found.rows for value in row.values()} <= {int, float, str}
    assert any(isinstance(v, float) and math.isfinite(v) for v in found.rows[-1].values())
    assert found.figure.read_bytes().startswith(b"\x89PNG") and "<svg" in (tmp_path / f"{name}.svg").read_text()
    picture = Picture(**json.loads((tmp_path / f"{name}.json").read_text())["picture"])
    assert {picture.x, picture.y.removeprefix("-"), *picture.by, *picture.where} <= set(found.rows[0])
    assert all(any(row[key] == value for row in found.rows) for key, value in picture.where.items())
    assert found.findings and all(finding.says for finding in found.findings)
    assert {path.name for path in tmp_path.iterdir()} <= {
        f"{name}.{kind}" for kind in ("csv", "json", "png", "svg")
    } | {f".{name}.lock"}
    table, seen = found.table.read_bytes(), []
    again = conduct(name, "smoke", out=tmp_path, on_part=lambda i, of, part, seconds: seen.append(seconds))
    assert seen and set(seen) == {None}
    assert found.table.read_bytes() == table and str(again.findings) == str(found.findings)


@pytest.mark.parametrize("name", EVERY)
def test_options_are_checked_before_any_data_are_read(name, monkeypatch):
    monkeypatch.setattr("nodepert.experiments.experiment.load_dataset", lambda *_, **__: pytest.fail("data were read"))
    assert build(name, "paper").parts and build(name, "small").parts


@pytest.mark.parametrize("name", EVERY)
def test_an_experiment_has_a_page_with_its_figure(name):
    page = (DOCS / "experiments" / f"{name}.md").read_text()
    assert page.startswith("# ")
    places = [page.index(f"**{part}.**") for part in (
        "The question", "The command", "What to see", "The paper", "How ours differs")]  # fmt: skip
    assert places == sorted(places)
    assert f"nodepert experiment {name}" in page and f"../figures/{name}.png" in page
    assert (DOCS / "figures" / f"{name}.png").exists()
    assert f"({name}.md)" in (DOCS / "experiments" / "README.md").read_text()


@pytest.mark.parametrize("name", EVERY)
def test_the_findings_hold_in_the_figures_shown(name):
    record = json.loads((DOCS / "figures" / f"{name}.json").read_text())
    assert record["scale"] == "small" and record["options"] == json.loads(json.dumps(npt.experiments.options(name)))
    rows = read_rows(DOCS / "figures" / f"{name}.csv")
    experiment = build(name, "small")
    assert record["done"] == json.loads(json.dumps(experiment.parts))
    findings = experiment.findings(rows)
    assert [finding.says for finding in findings if not finding.holds] == []
    assert [finding.says for finding in findings] == [finding["says"] for finding in record["findings"]]


def test_an_interrupted_experiment_goes_on_and_ends_as_if_it_had_not_been(tmp_path):
    def stop(i, *_):
        if i == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        conduct(NAME, "smoke", out=tmp_path / "a", on_part=stop)
    assert not (tmp_path / "a" / f"{NAME}.png").exists()
    half, seen = len(read_rows(tmp_path / "a" / f"{NAME}.csv")), []
    whole = conduct(
        NAME, "smoke", out=tmp_path / "a", on_part=lambda i, of, part, seconds: seen.append(seconds is None)
    )
    assert seen == [True, False] and 0 < half < len(whole.rows)
    undisturbed = conduct(NAME, "smoke", out=tmp_path / "b")
    assert whole.table.read_bytes() == undisturbed.table.read_bytes()
    assert str(read_rows(whole.table)) == str(whole.rows)  # what is read back is what was found, types and all


def test_rows_of_a_part_that_was_not_completed_are_computed_again(tmp_path):
    whole = conduct(NAME, "smoke", out=tmp_path)
    record = json.loads((tmp_path / f"{NAME}.json").read_text())
    record["done"] = record["done"][:1]  # killed between the table and the record
    (tmp_path / f"{NAME}.json").write_text(json.dumps(record))
    before = whole.table.read_bytes()
    assert len(conduct(NAME, "smoke", out=tmp_path).rows) == len(whole.rows)
    assert whole.table.read_bytes() == before


def test_the_python_api_gives_the_rows_one_by_one(tmp_path):
    rows = npt.experiments.linear_theory(scale="smoke", rules=("sgd",))
    first = next(rows)
    assert first["rule"] == "sgd"
    assert [first, *rows] == conduct(NAME, "smoke", out=tmp_path, rules=("sgd",)).rows
    with pytest.raises(AttributeError, match="unknown experiment 'nonsense'; there are: "):
        npt.experiments.nonsense  # noqa: B018


def refused(capsys, *arguments):
    """The one line that the command line says."""
    with pytest.raises(SystemExit) as stop:
        cli.main(["experiment", *arguments])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and len(error.splitlines()) == 1
    return error


def test_the_command_conducts_and_says_what_came_of_it(tmp_path, capsys):
    cli.main(["experiment", NAME, "--scale", "smoke", "--rules", "sgd", "--out", str(tmp_path)])
    out = capsys.readouterr().out
    assert re.search(r"\[1/1\] rule sgd: \d+\.\d s", out) and "standard errors apart" in out
    assert f"rows: {tmp_path}/{NAME}.csv" in out and f"figure: {tmp_path}/{NAME}.png" in out
    cli.main(["experiment", NAME, "--scale", "smoke", "--rules", "sgd", "--out", str(tmp_path)])
    assert "rule sgd: kept" in capsys.readouterr().out
    said = refused(capsys, NAME, "--scale", "smoke", "--out", str(tmp_path))
    assert "with other options (rules: ['sgd'], not ['sgd', 'np'])" in said
    assert "scale smoke, not small" in refused(capsys, NAME, "--out", str(tmp_path))


def test_what_cannot_be_is_refused_in_one_line_and_leaves_nothing(tmp_path, capsys):
    out = ["--out", str(tmp_path / "out")]
    assert "unknown experiment 'linsearch'" in refused(capsys, "linsearch")
    assert "linear-theory knows sgd, np and wp" in refused(capsys, NAME, "--rules", "fa", *out)
    assert "inputs must be at least 1" in refused(capsys, NAME, "--inputs", "0", *out)
    assert "--scale" in refused(capsys, NAME, "--scale", "tiny", *out)
    assert "unknown option --input (did you mean --inputs?)" in refused(capsys, NAME, "--input", "3", *out)
    assert not (tmp_path / "out").exists()
    with pytest.raises(npt.UserError, match="unexpected keyword argument 'input'"):
        build(NAME, "smoke", input=3)


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        (NAME, {"rules": ("sgd", "sgd")}, "given twice: rule sgd"),
        (NAME, {"rules": ()}, "nothing to do: rules must be at least one"),
        ("delta-loss", {"depths": ()}, "nothing to do: depths must be at least one"),
        ("linesearch", {"widths": (10, 10)}, "given twice: width 10, rule sgd"),
        ("stabilise", {"optimizers": ()}, "nothing to do: optimizers must be at least one"),
        ("alignment", {"rules": ()}, "the number of rules must be at least 1"),
        ("adam", {"network": "fcc"}, "unknown network 'fcc'"),
        ("crash-timing", {"rules": ("np", "npp")}, "unknown rule 'npp'"),
        ("grad-dynamics", {"loss": "msee"}, "unknown loss 'msee'"),
        ("width-scaling", {"dataset": "mnst"}, "unknown dataset 'mnst'"),
    ],
)
def test_parts_that_are_none_or_twice_and_unknown_names_are_refused_at_once(name, given, words):
    with pytest.raises(npt.UserError, match=words):
        build(name, "smoke", **given)


def test_damaged_files_and_another_process_are_told(tmp_path, capsys):
    conduct(NAME, "smoke", out=tmp_path, rules=("sgd",))
    ask = [NAME, "--scale", "smoke", "--rules", "sgd", "--out", str(tmp_path)]
    with FileLock(tmp_path / f".{NAME}.lock"):
        assert "another process is at linear-theory" in refused(capsys, *ask)
    table, record = tmp_path / f"{NAME}.csv", tmp_path / f"{NAME}.json"
    for path, text, words in (
        (table, "a,b\n1,2,3\n", "damaged"),
        (table, None, "cannot read"),
        (record, "{", "not the record of an experiment"),
        (record, "[1]", "not the record of an experiment"),
        (record, json.dumps(json.loads(record.read_text()) | {"version": 99}), "not the record of an experiment"),
        (record, json.dumps(json.loads(record.read_text()) | {"done": 3}), "damaged"),
    ):
        before = path.read_text()
        path.unlink() if text is None else path.write_text(text)
        assert words in refused(capsys, *ask)
        path.write_text(before)
    cli.main(["experiment", *ask])
