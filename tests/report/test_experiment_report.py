"""Reports of experiments show the numbers of the table, also in a browser."""

import json
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
from browser import chromium as chromium
from browser import opening

import nodepert as npt
from nodepert.cli import app as cli
from nodepert.experiments import build
from nodepert.experiments.record import read_rows
from nodepert.registry import names
from nodepert.report.experiment import find, gather_experiment, html_of_experiment, markdown_of_experiment

FIGURES = Path(__file__).parents[2] / "docs" / "figures"
NAME = "alignment"


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The report of an experiment, by the command."""
    path = tmp_path_factory.mktemp("report") / "r.html"
    cli.main(["report", NAME, "--out", str(FIGURES), "--to", str(path)])
    return path


def copied(folder, rows=None, **changes):
    """The record of an experiment, with other rows or with changes to it."""
    record = json.loads((FIGURES / "adam.json").read_text())
    (folder / "adam.json").write_text(json.dumps(record | changes))
    (folder / "adam.csv").write_text(rows or (FIGURES / "adam.csv").read_text())
    return folder / "adam.json"


def traces(tab):
    """The lines of the plot."""
    return tab.evaluate("document.getElementById('curves').data.map(({x, y, name}) => ({x, y, name}))")


EXPERIMENTS = names("experiment")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_is_reported_with_all_its_rows_and_findings(name):
    data = gather_experiment(FIGURES / f"{name}.json")
    rows = read_rows(FIGURES / f"{name}.csv")
    assert [dict(zip(data["columns"], row, strict=True)) for row in data["rows"]] == [
        {k: None if v != v or v in (float("inf"), float("-inf")) else v for k, v in row.items()} for row in rows
    ]
    record = json.loads((FIGURES / f"{name}.json").read_text())
    assert [(f["says"], f["holds"]) for f in data["findings"]] == [
        (f["says"], f["holds"]) for f in record["findings"]
    ] and data["findings"]
    for text in (html_of_experiment(data), markdown_of_experiment(data)):
        assert f"nodepert experiment {name} --scale small" in text and record["versions"]["jax"] in text
        verdicts = Counter(re.findall(r"(?:>|- )(yes|not seen at this scale): ", text))
        assert verdicts["yes"] == sum(f["holds"] for f in data["findings"]) and verdicts.total() == len(
            data["findings"]
        )


def test_records_are_found_in_either_directory(tmp_path):
    (tmp_path / "experiments").mkdir()
    for suffix in ("json", "csv", "svg"):
        shutil.copy(FIGURES / f"adam.{suffix}", tmp_path / "experiments")
    assert find("adam", tmp_path) == tmp_path / "experiments" / "adam.json" and find("nosuch", tmp_path) is None
    (tmp_path / "adam").mkdir()  # a folder without runs is no study
    cli.main(["report", "adam", "--out", str(tmp_path)])
    assert (tmp_path / "experiments" / "adam.html").stat().st_size < 6e6


def test_markdown_has_a_short_table_of_rows(tmp_path):
    data = gather_experiment(FIGURES / "stabilise.json")
    text = markdown_of_experiment(data)
    assert len(data["rows"]) == text.count(r" \\") - 1 == len(re.findall("(?m)^\\| ", text)) - 2
    assert "- yes: " in text and r"\begin{tabular}" in text
    assert "rows are in crash-dynamics.csv" in markdown_of_experiment(
        gather_experiment(FIGURES / "crash-dynamics.json")
    )


@pytest.mark.parametrize("damage", ["{}", "[1]", "not json", "missing versions", "no rows"])
def test_a_corrupt_record_is_one_line(damage, tmp_path):
    path = copied(tmp_path, rows="rule,lr\n" if damage == "no rows" else None)
    if damage == "missing versions":
        record = json.loads(path.read_text())
        del record["versions"]
        damage = json.dumps(record)
    if damage != "no rows":
        path.write_text(damage)
    with pytest.raises(npt.UserError, match="adam"):
        gather_experiment(path)


@pytest.mark.parametrize(
    "changes",
    [{"seconds": "x"}, {"seconds": None}, {"versions": []}, {"picture": 1}, {"picture": {"z": "lr"}},
     {"picture": {"x": "nosuch"}}, {"picture": {"where": {"nosuch": 1}}}],
)  # fmt: skip
def test_a_record_with_a_wrong_value_is_one_line(changes, tmp_path):
    with pytest.raises(npt.UserError, match="is corrupt; run"):
        gather_experiment(copied(tmp_path, **changes))


def test_texts_of_a_record_are_escaped(tmp_path):
    path = copied(tmp_path, findings=[{"says": "</script><script>hurt = 1</script>", "holds": True}])
    assert "<script>hurt" not in html_of_experiment(gather_experiment(path))


def test_headings_in_markdown_are_escaped(tmp_path):
    path = copied(tmp_path, rows="a|b,*c*\n1,2\n", experiment="*adam*", picture={})
    text = markdown_of_experiment(gather_experiment(path))
    assert "| a\\|b | \\*c\\* |\n" in text and text.startswith("# \\*adam\\*\n")


QUICK = ("linear-theory", "published", "char-lm", "loss-landscape")  # plots of different kinds; the others take minutes


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n not in QUICK)) for n in EXPERIMENTS])
def test_in_a_browser_the_first_plot_is_that_of_the_experiment(name, chromium, tmp_path):
    picture, rows = build(name, "small").picture, read_rows(FIGURES / f"{name}.csv")
    assert json.loads((FIGURES / f"{name}.json").read_text())["picture"] == json.loads(json.dumps(picture._asdict()))
    assert {picture.x, picture.y.removeprefix("-"), *picture.by, *picture.where} <= set(rows[0]) and picture.by
    shown = [row for row in rows if all(row[key] == value for key, value in picture.where.items())]
    path = tmp_path / "report.html"
    path.write_text(html_of_experiment(gather_experiment(FIGURES / f"{name}.json")))
    with opening(chromium, path) as tab:
        found = traces(tab)
        assert len(found) == len({tuple(row[key] for key in picture.by) for row in shown})
        places = {row[picture.x] for row in shown}
        assert all(set(trace["x"]) <= places or trace["name"].endswith(" (no data)") for trace in found)
        assert max(len(trace["x"]) for trace in found) > 3
        axes = tab.evaluate("['x', 'y'].map(a => document.getElementById('curves').layout[a + 'axis'].type)")
        assert axes == ["log" if axis in picture.log else "linear" for axis in "xy"]


def test_in_a_browser_rows_are_selected_by_panel(chromium, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(html_of_experiment(gather_experiment(FIGURES / "linear-theory.json")))
    with opening(chromium, path) as tab:
        curve = {len(trace["x"]) for trace in traces(tab)}
        tab.select_option("#where select", label="one step")
        assert curve == {38} and {tuple(trace["x"]) for trace in traces(tab)} == {(1,)}
        tab.select_option("#y", "theory")
        tab.select_option("#x", "lr")
        assert {len(trace["x"]) for trace in traces(tab)} == {9}


@pytest.mark.parametrize("row", ["np,0.1,7", "np,0.1,nan"])
def test_in_a_browser_one_row_is_drawn(row, chromium, tmp_path):
    record = copied(tmp_path, rows=f"rule,lr,loss\n{row}\n", picture={})
    (tmp_path / "r.html").write_text(html_of_experiment(gather_experiment(record)))
    with opening(chromium, tmp_path / "r.html") as tab:
        assert traces(tab) == [{"x": [0.1], "y": [7 if "7" in row else 0.1], "name": "all"}]


def test_in_a_browser_texts_alone_have_no_plot(chromium, tmp_path):
    record = copied(tmp_path, rows="rule,verdict\nnp,good\nwp,bad\n", picture={})
    (tmp_path / "r.html").write_text(html_of_experiment(gather_experiment(record)))
    with opening(chromium, tmp_path / "r.html", "tbody tr") as tab:
        assert not tab.locator("#explore").is_visible() and tab.locator("tbody tr:visible").count() == 2
        tab.fill("#filter", "wp")
        assert tab.locator("tbody tr:visible").count() == 1


def test_in_a_browser_the_plot_follows_the_controls(chromium, report):
    rows = read_rows(FIGURES / f"{NAME}.csv")
    with opening(chromium, report) as tab:
        for select in tab.locator("#where select").all():
            select.select_option("")
        for x, y, by in (("draws", "cosine", "rule"), ("width", "law", "depth"), ("depth", "error", "")):
            for key, value in {"x": x, "y": y, "by": by}.items():
                tab.select_option(f"#{key}", value)
            found = {t["name"]: dict(zip(t["x"], t["y"], strict=True)) for t in traces(tab)}
            expected = {}
            for row in rows:
                name = "all" if not by else row[by] if isinstance(row[by], str) else f"{by} {row[by]}"
                expected.setdefault(name, {}).setdefault(row[x], []).append(row[y])
            means = {name: {k: sum(v) / len(v) for k, v in own.items()} for name, own in expected.items()}
            assert found.keys() == means.keys()
            for name, own in means.items():
                assert found[name] == pytest.approx(own, rel=1e-12)
        assert tab.locator(".figure img").evaluate("image => image.complete && image.naturalWidth > 100")


def test_in_a_browser_the_table_sorts_by_value_and_the_filter_applies_to_the_plot(chromium, report):
    rows = read_rows(FIGURES / f"{NAME}.csv")
    with opening(chromium, report) as tab:
        tab.get_by_role("button", name="cosine", exact=True).click()
        order = [
            rows[int(i)]["cosine"]
            for i in tab.evaluate("[...document.querySelectorAll('tbody tr')].map(r => r.dataset.group)")
        ]
        assert order == sorted(order) and len(order) == len(rows)
        tab.fill("#filter", "inp")
        assert tab.locator("tbody tr:visible").count() == sum(row["rule"] == "inp" for row in rows)
        assert [trace["name"] for trace in traces(tab)] == ["inp"]
        tab.set_viewport_size({"width": 390, "height": 844})
        tab.wait_for_timeout(300)
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390
        tab.set_viewport_size({"width": 1200, "height": 900})
