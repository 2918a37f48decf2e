"""Every experiment: small enough at smoke, saved part by part, drawn, described; findings hold in the figures shown."""

import inspect
import json
import math
import pydoc
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest
from toy import Toy

import nodepert as npt
from nodepert.cli import app as cli
from nodepert.experiments import build
from nodepert.experiments.drawing import Picture
from nodepert.experiments.execute import execute
from nodepert.experiments.record import read_record, read_rows
from nodepert.registry import names
from nodepert.studies.store.records import sealed

DOCS = Path(__file__).parents[2] / "docs"
EVERY = names("experiment")


# Their own tests compute a little less than smoke, or parts of it:
LONG = ("delta-loss", "alignment", "adam", "linesearch", "width-scaling", "crash-dynamics", "loss-landscape",
        "stabilise", "mismatch", "np-in-rnn", "rules", "reward-only")  # fmt: skip


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in LONG)) for n in EVERY])
def test_an_experiment_leaves_table_figures_and_findings_and_is_not_computed_twice(name, tmp_path, smoke):
    found = smoke(name)
    folder = shutil.copytree(found.table.parent, tmp_path / "copy")
    assert found.rows and len({tuple(row) for row in found.rows}) == 1  # the same columns everywhere
    assert {type(value) for row in found.rows for value in row.values()} <= {int, float, str}
    assert any(isinstance(v, float) and math.isfinite(v) for v in found.rows[-1].values())
    assert found.figure.read_bytes().startswith(b"\x89PNG") and "<svg" in (folder / f"{name}.svg").read_text()
    picture = Picture(**json.loads((folder / f"{name}.json").read_text())["picture"])
    assert {picture.x, picture.y.removeprefix("-"), *picture.by, *picture.where} <= set(found.rows[0])
    assert all(any(row[key] == value for row in found.rows) for key, value in picture.where.items())
    assert found.findings and all(finding.says for finding in found.findings)
    assert {path.name for path in folder.iterdir()} == {f"{name}.{kind}" for kind in ("csv", "json", "png", "svg")}
    seen = []
    again = execute(name, "smoke", out=folder, on_part=lambda i, of, part, seconds: seen.append(seconds))
    assert seen and set(seen) == {None}
    assert again.table.read_bytes() == found.table.read_bytes() and str(again.findings) == str(found.findings)


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


def test_an_interrupted_experiment_resumes_and_ends_as_if_it_had_not_been(tmp_path, smoke):
    name = "linear-theory"

    def stop(i, *_):
        if i == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(name, "smoke", out=tmp_path, on_part=stop)
    assert not (tmp_path / f"{name}.png").exists()
    half, seen = len(read_rows(tmp_path / f"{name}.csv")), []
    whole = execute(name, "smoke", out=tmp_path, on_part=lambda i, of, part, seconds: seen.append(seconds is None))
    assert seen == [True, False] and 0 < half < len(whole.rows)
    assert whole.table.read_bytes() == smoke(name).table.read_bytes()
    assert str(read_rows(whole.table)) == str(whole.rows)  # the same values of the same types are read back


def test_rows_of_a_part_that_was_not_completed_are_computed_again(tmp_path, toy):
    whole, seen = execute(toy, "smoke", out=tmp_path), []
    before, path = whole.table.read_bytes(), tmp_path / f"{toy}.json"
    record = read_record(path)
    path.write_text(sealed(record | {"done": record["done"][:1]}))  # killed between the table and the record
    again = execute(toy, "smoke", out=tmp_path, on_part=lambda i, of, part, seconds: seen.append(seconds is None))
    assert seen == [True, False] and len(again.rows) == len(whole.rows)
    assert whole.table.read_bytes() == before


def test_records_without_a_seal_are_resumed_and_then_sealed(tmp_path):
    """Version 1, as in docs/figures; nothing is computed again."""
    name, seen = "mismatch", []
    for kind in ("csv", "json"):
        shutil.copy(DOCS / "figures" / f"{name}.{kind}", tmp_path)
    assert read_record(tmp_path / f"{name}.json")["version"] == 1
    found = execute(name, "small", out=tmp_path, on_part=lambda i, of, part, seconds: seen.append(seconds))
    assert seen and set(seen) == {None} and str(found.rows) == str(read_rows(DOCS / "figures" / f"{name}.csv"))
    record, before = read_record(tmp_path / f"{name}.json"), json.loads((DOCS / "figures" / f"{name}.json").read_text())
    assert record["version"] == 2 and len(record["seal"]) == 64
    assert {k: v for k, v in record.items() if k not in ("version", "seal")} == {
        k: v for k, v in before.items() if k != "version"
    }


def test_the_python_api_gives_the_rows_one_by_one(tmp_path, toy, monkeypatch):
    computed = []
    monkeypatch.setattr(Toy, "rows", lambda self, part, rows=Toy.rows: computed.append(part) or rows(self, part))
    rows = npt.experiments.toy(scale="smoke", factor=2.0)
    assert computed == [] and next(rows) == {"size": 1, "i": 0, "label": "row 0", "value": 0.0, "none": pytest.approx(
        math.nan, nan_ok=True)} and computed == [{"size": 1}]  # fmt: skip
    whole = list(npt.experiments.toy("smoke", factor=2.0))
    assert str(whole) == str(execute(toy, "smoke", out=tmp_path, factor=2.0).rows)
    with pytest.raises(AttributeError, match="unknown experiment 'nonsense'; there are: "):
        npt.experiments.nonsense  # noqa: B018


def test_the_package_lists_the_experiments_and_help_shows_the_options_of_one():
    listed = [name.replace("-", "_") for name in EVERY]
    assert {*listed, "build", "options"} <= {*dir(npt.experiments)}
    for name in listed:
        function = getattr(npt.experiments, name)
        assert (function.__name__, function.__module__) == (name, "nodepert.experiments")
        signature = inspect.signature(function)
        defaults = {p.name: p.default for p in signature.parameters.values()}
        assert defaults == {"scale": "small", "data_dir": None} | npt.experiments.options(name.replace("_", "-"))
        assert all(f"    {option}: " in function.__doc__ for option in defaults)
    text = pydoc.render_doc(npt.experiments.linesearch, renderer=pydoc.plaintext)
    assert "linesearch(scale: Literal['smoke', 'small', 'paper'] = 'small', data_dir: " in text
    assert "draws: int = 60" in text and "widths: tuple[int, ...] = (50, 200, 800)" in text  # those of small
    assert "Units in each hidden layer, one network each." in text and "Raises:" in text


def test_listing_experiments_imports_none_of_them():
    code = """if True:
        import sys, nodepert as npt
        from nodepert.registry import usage
        assert "linesearch" in dir(npt.experiments) and "draws=100" in usage("experiment", "linesearch")
        print([m for m in sys.modules if m.split(".")[0] in ("jax", "matplotlib") or "questions." in m])
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def refused(capsys, *arguments):
    """The one line that the command line prints."""
    with pytest.raises(SystemExit) as stop:
        cli.main(["experiment", *arguments])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and len(error.splitlines()) == 1
    return error


def test_the_command_executes_and_prints_parts_findings_and_files(tmp_path, capsys, toy):
    cli.main(["experiment", toy, "--scale", "smoke", "--sizes", "4", "--out", str(tmp_path)])
    out = capsys.readouterr().out
    assert re.search(r"\[1/1\] size 4: \d+\.\d s", out)
    assert "yes: the largest value is 0.8\nnot seen at this scale: a value is negative\n" in out
    assert f"rows: {tmp_path}/{toy}.csv" in out and f"figure: {tmp_path}/{toy}.png" in out
    cli.main(["experiment", toy, "--scale", "smoke", "--sizes", "4", "--out", str(tmp_path)])
    assert "size 4: saved before" in capsys.readouterr().out
    said = refused(capsys, toy, "--scale", "smoke", "--out", str(tmp_path))
    assert "with other options (sizes: [4], not [1, 2])" in said
    assert "scale smoke, not small" in refused(capsys, toy, "--out", str(tmp_path))


def test_help_has_the_options_with_the_defaults_of_the_scale(capsys):
    for scale, draws in (("small", "60"), ("smoke", "20")):
        with pytest.raises(SystemExit) as stop:
            cli.main(["experiment", "linesearch", "--scale", scale, "--help"])
        out = capsys.readouterr().out
        assert stop.value.code == 0 and "Args:" not in out
        assert all(f"--{option.replace('_', '-')} " in out for option in npt.experiments.options("linesearch"))
        assert re.search(rf"--draws INT[^-]+\(default: {draws}\)", out) and "--data-dir DIR" in out


def test_what_cannot_be_is_refused_in_one_line_and_leaves_nothing(tmp_path, capsys):
    name, out = "linear-theory", ["--out", str(tmp_path / "out")]
    assert "unknown experiment 'linsearch' (did you mean 'linesearch'?)" in refused(capsys, "linsearch")
    assert "linear-theory knows sgd, np and wp" in refused(capsys, name, "--rules", "fa", *out)
    assert "inputs must be at least 1" in refused(capsys, name, "--inputs", "0", *out)
    assert "--scale" in refused(capsys, name, "--scale", "tiny", *out)
    assert "unknown option --input (did you mean --inputs?)" in refused(capsys, name, "--input", "3", *out)
    assert not (tmp_path / "out").exists()
    for given, words in (({"input": 3}, "has no argument 'input'"), ({"steps": "x"}, "steps must be a whole number"),
                         ({"noise": None}, "noise must be a number")):  # fmt: skip
        with pytest.raises(npt.UserError, match=words):
            build(name, "smoke", **given)


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("linear-theory", {"rules": ("sgd", "sgd")}, "given twice: rule sgd"),
        ("linear-theory", {"rules": ()}, "'linear-theory': rules must have at least one value"),
        ("delta-loss", {"depths": ()}, "depths must have at least one value"),
        ("linesearch", {"widths": (10, 10)}, "given twice: width 10, rule sgd"),
        ("stabilise", {"optimizers": ()}, "optimizers must have at least one value"),
        ("alignment", {"rules": ()}, "rules must have at least one value"),
        ("adam", {"network": "fcc"}, "unknown network 'fcc'"),
        ("crash-timing", {"rules": ("np", "npp")}, "unknown rule 'npp'"),
        ("grad-dynamics", {"loss": "msee"}, "unknown loss 'msee'"),
        ("width-scaling", {"dataset": "mnst"}, "unknown dataset 'mnst'"),
    ],
)
def test_parts_that_are_none_or_twice_and_unknown_names_are_refused_at_once(name, given, words):
    with pytest.raises(npt.UserError, match=words):
        build(name, "smoke", **given)


def test_one_value_and_lists_are_taken_for_options_of_several():
    assert build("adam", "smoke", rules="np").rules == ("np",) and build("adam", rules=["np"]).rules == ("np",)


def test_corrupt_files_and_another_process_are_reported(tmp_path, capsys, toy):
    execute(toy, "smoke", out=tmp_path)
    ask = [toy, "--scale", "smoke", "--out", str(tmp_path)]
    hold = "from nodepert.experiments.execute import *\nwith locked(Path(sys.argv[1]), 'toy'): input()"
    with subprocess.Popen([sys.executable, "-c", f"import sys; {hold}", tmp_path], stdin=subprocess.PIPE) as other:
        while not (tmp_path / f".{toy}.owner").exists():
            time.sleep(0.01)
        assert "toy in" in (said := refused(capsys, *ask)) and "is locked by another process" in said
        other.kill()
    cli.main(["experiment", *ask])  # the lock of a process that was killed is no hindrance
    table, record = tmp_path / f"{toy}.csv", tmp_path / f"{toy}.json"
    whole = read_record(record)
    for path, text, words in (
        (table, "a,b\n1,2,3\n", "corrupt"),
        (table, None, "cannot read"),
        (record, "{", "not readable as JSON"),
        (record, "[1]", "not a NodePert record"),
        (record, json.dumps(whole | {"seconds": 1.0}), "seal does not match"),
        (record, json.dumps({k: v for k, v in whole.items() if k != "seal"}), "seal is missing"),
        (record, sealed(whole | {"version": 99}), "this NodePert reads up to version 2"),
        (record, sealed(whole | {"done": 3}), "corrupt"),
    ):
        before = path.read_text()
        path.unlink() if text is None else path.write_text(text)
        assert words in refused(capsys, *ask)
        path.write_text(before)
    cli.main(["experiment", *ask])


def test_a_process_that_lost_its_lock_writes_nothing(tmp_path, toy):
    def taken(i, *_):
        (tmp_path / f".{toy}.owner").write_text("another process's")

    with pytest.raises(npt.UserError, match="is locked by another process"):
        execute(toy, "smoke", out=tmp_path, on_part=taken)
    assert read_record(tmp_path / f"{toy}.json")["done"] == [{"size": 1}]


def test_an_experiment_of_other_settings_of_jax_is_not_completed(toy, tmp_path, capsys):
    with jax.default_matmul_precision("float32"):
        execute(toy, "smoke", out=tmp_path)
    assert read_record(tmp_path / f"{toy}.json")["settings"]["jax_default_matmul_precision"] == "float32"
    assert "jax_default_matmul_precision=float32, and here it is None" in refused(
        capsys, toy, "--scale", "smoke", "--out", str(tmp_path)
    )
    with jax.default_matmul_precision("float32"):
        execute(toy, "smoke", out=tmp_path)
