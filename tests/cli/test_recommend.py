"""`nodepert check --recommend` and `--trained`."""

import csv
import io
import json

import pytest
from PIL import Image
from rich.console import Console
from small import RUN

import nodepert as npt
from nodepert import diagnostics
from nodepert.cli import app as cli
from nodepert.cli import recommend as command
from nodepert.diagnostics.advice import Recommendation
from nodepert.diagnostics.result import Check
from nodepert.experiments.drawing import COLOURS
from nodepert.report.recommend_figure import recommend_figure

TINY = ["--dataset", "digits(train=200, test=50)", "--network", "fc(width=8, depth=1)"]


def row(form, gain, guide="", **more):
    measured = {"variance": 500 / gain, "variance_error": 5 / gain, "cosine": 0.12, "cosine_error": 0.01,
                "draws_to_half": 1234.0}  # fmt: skip
    predicted = {"units": 37642.0, "residual": 1 / gain, "predicted_variance": 500 / gain}
    gains = {"gain": gain, "gain_error": 0.02 * gain, "predicted_gain": gain}
    return {"form": form, "rule": f"np({form})", "guide": guide} | measured | predicted | gains | more


ROWS = [row("plain", 1.0, gain_error=0.0), row("active", 2.5), row("head", 1.4), row("orthogonal, active, head", 4.0),
        row("orthogonal, active, head, feedback", 40.0, "feedback")]  # fmt: skip
RESULT = Recommendation("np(samples=8)", 40, 300, ROWS, [])


@pytest.fixture
def asked(monkeypatch):
    """The arguments of `recommend`, which then gives RESULT."""
    calls = []

    def recommend(model, rule, loss, data, **options):
        calls.append({"rule": rule, "data": data} | options)
        return RESULT

    monkeypatch.setattr(diagnostics, "recommend", recommend)
    return calls


def test_the_command_writes_rows_all_results_and_a_figure(asked, tmp_path, capsys):
    cli.main(["check", "--recommend", *TINY, "--batchsize", "50"])
    out, err = capsys.readouterr()
    (call,) = asked
    assert call["rule"] == "np(samples=8)" and call["batchsize"] == 50 and len(call["data"][0]) == 200
    assert "steps" not in call and "guides" not in call and call["params"] is None
    folder = tmp_path / "runs" / "check"
    assert sorted(p.name for p in folder.iterdir()) == ["recommend.csv", "recommend.json", "recommend.png"]
    with open(folder / "recommend.csv", newline="") as file:
        assert [r["form"] for r in csv.DictReader(file)] == [r["form"] for r in ROWS]
    saved = json.loads((folder / "recommend.json").read_text())
    assert saved["rule"] == ROWS[-1]["rule"] and saved["dataset"] == "digits(train=200, test=50)"
    assert "Recommended: np(orthogonal, active, head, feedback), 40x fewer draws" in " ".join(out.split())
    assert err == "" and "files: runs/check/recommend.csv, .json, .png" in out


def test_options_are_passed_on_and_json_is_all_that_is_printed(asked, capsys):
    cli.main(["check", "--recommend", *TINY, "--rule", "np(samples=4)", "--guides", "chain", "feedback(rate=0.1)",
              "--steps", "7", "--draws", "60", "--json"])  # fmt: skip
    (call,) = asked
    assert (call["rule"], call["guides"]) == ("np(samples=4)", ("chain", "feedback(rate=0.1)"))
    assert (call["steps"], call["draws"]) == (7, 60)
    assert json.loads(capsys.readouterr().out)["plain"] == "np(samples=8)"


def test_the_table_fits_80_columns():
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(command.table(RESULT))
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= 80 and len(lines) == 3 + len(ROWS)  # the longest label takes two lines
    assert " ".join(lines[3].split()) == "active 200.0 ± 2.0 0.12 1,234 2.500 ± 0.050 2.5"


def test_the_figure_has_measured_and_predicted_gains(tmp_path):
    with Image.open(recommend_figure([*ROWS, row("exact", float("inf"))], tmp_path / "x.png", "np")) as picture:
        colours = {f"#{r:02X}{g:02X}{b:02X}" for _, (r, g, b) in picture.convert("RGB").getcolors(1 << 24)}
    assert {COLOURS[0], COLOURS[1]} <= colours


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return npt.train(RUN).save(tmp_path_factory.mktemp("trained") / "net.npz")


def test_a_trained_network_is_checked_at_its_weights_on_its_task(trained, asked, monkeypatch, capsys):
    checks = []

    def check(model, rule, loss, batch, **options):
        checks.append(options["params"])
        return Check(rule, 100, [dict.fromkeys(("cosine", "cosine_mean"), 1.0) | {"node": "all nodes", "gain": 1.0,
                     "draws_to_half": 1.0, "verdict": "exact"}], "exact", [], "")  # fmt: skip

    monkeypatch.setattr(diagnostics, "check", check)
    monkeypatch.setattr("nodepert.cli.check.write", lambda *_: None)
    params = npt.load(trained).params
    cli.main(["check", "--trained", str(trained), "--rule", "np", "--json"])
    assert json.loads(capsys.readouterr().out)["rules"][0]["network"] == "fc(width=8)"
    cli.main(["check", "--trained", str(trained), "--recommend", "--quiet"])
    for found in (checks[0], asked[0]["params"]):
        assert (found["out"]["w"] == params["out"]["w"]).all()
    assert npt.load(trained).model.apply(params, asked[0]["data"][0]).shape == (200, 10)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--steps", "3"], "--steps is an option of check --recommend"),
        (["--guides", "chain"], "--guides is an option of check --recommend"),
        (["--recommend", "--rule", "np", "wp"], "check --recommend takes one rule, as in --rule 'np(samples=8)'"),
        (["--recommend", "--rule", "wp"], "compares forms of np, as in np(samples=8); got 'wp'"),
        (["--recommend", "--rule", "np(guide=chain, head=evaluated)"], "leave out head=evaluated"),
        (["--recommend", "--guides", "chains"], "unknown guide 'chains' (did you mean 'chain'?)"),
        (["--recommend", "--batchsize", "200"], "more than the 200 examples of a step"),
        (["--recommend", "--steps", "-1"], "steps must be"),
        (["--recommend", "--draws", "0"], "draws must be"),
        (["--trained", "nothing.npz"], "there is no file or run's folder nothing.npz"),
    ],
)
def test_bad_commands_are_one_line_and_status_2(words, says, tmp_path, capfd):
    task = [] if "--trained" in words else TINY
    with pytest.raises(SystemExit) as stop:
        cli.main(["check", *task, *words])
    out, err = capfd.readouterr()
    assert stop.value.code == 2 and out == "" and not list(tmp_path.iterdir())
    assert err.startswith("nodepert: error: ") and says in err and err.count("\n") == 1


def test_what_a_trained_run_gives_is_not_given_again(trained, capfd):
    with pytest.raises(SystemExit):
        cli.main(["check", "--trained", str(trained), "--network", "conv"])
    assert "--network is that of the trained run; leave it out" in capfd.readouterr().err
