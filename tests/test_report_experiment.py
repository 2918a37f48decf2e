"""Reports of experiments: their figures are those of the table, in a browser too."""

import json
import re
import shutil
from pathlib import Path

import pytest
from browser import chromium as chromium
from browser import opening

import nodepert as npt
from nodepert import cli
from nodepert.conducted import read_rows
from nodepert.registry import names
from nodepert.report.experiment import find, gather_experiment, html_of_experiment, markdown_of_experiment

FIGURES = Path(__file__).parent.parent / "docs" / "figures"
NAME = "alignment"


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The report of an experiment, by the command."""
    path = tmp_path_factory.mktemp("report") / "r.html"
    cli.main(["report", NAME, "--out", str(FIGURES), "--to", str(path)])
    return path


@pytest.mark.parametrize("name", names("experiment"))
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


def test_it_is_found_where_experiments_are_put(tmp_path):
    (tmp_path / "experiments").mkdir()
    for suffix in ("json", "csv", "svg"):
        shutil.copy(FIGURES / f"adam.{suffix}", tmp_path / "experiments")
    assert find("adam", tmp_path) == tmp_path / "experiments" / "adam.json" and find("nosuch", tmp_path) is None
    cli.main(["report", "adam", "--out", str(tmp_path)])
    assert (tmp_path / "experiments" / "adam.html").stat().st_size < 6e6


def test_markdown_has_the_rows_where_they_are_few(tmp_path):
    data = gather_experiment(FIGURES / "stabilise.json")
    text = markdown_of_experiment(data)
    assert len(data["rows"]) == text.count(r" \\") - 1 == len(re.findall("(?m)^\\| ", text)) - 2
    assert "- yes: " in text and r"\begin{tabular}" in text
    assert "rows are in crash-dynamics.csv" in markdown_of_experiment(
        gather_experiment(FIGURES / "crash-dynamics.json")
    )


@pytest.mark.parametrize("damage", ["{}", "[1]", "not json", "missing versions", "no rows"])
def test_what_is_damaged_is_one_line(damage, tmp_path):
    for suffix in ("json", "csv"):
        shutil.copy(FIGURES / f"adam.{suffix}", tmp_path)
    if damage == "missing versions":
        record = json.loads((tmp_path / "adam.json").read_text())
        del record["versions"]
        damage = json.dumps(record)
    if damage == "no rows":
        (tmp_path / "adam.csv").write_text("rule,lr\n")
    else:
        (tmp_path / "adam.json").write_text(damage)
    with pytest.raises(npt.UserError, match="adam"):
        gather_experiment(tmp_path / "adam.json")


def test_words_of_a_record_are_only_text(tmp_path):
    for suffix in ("json", "csv"):
        shutil.copy(FIGURES / f"adam.{suffix}", tmp_path)
    record = json.loads((tmp_path / "adam.json").read_text())
    record["findings"][0]["says"] = "</script><script>hurt = 1</script>"
    (tmp_path / "adam.json").write_text(json.dumps(record))
    assert "<script>hurt" not in html_of_experiment(gather_experiment(tmp_path / "adam.json"))


def test_in_a_browser_it_draws_what_is_asked_for(chromium, report):
    rows = read_rows(FIGURES / f"{NAME}.csv")
    with opening(chromium, report) as tab:
        for x, y, by in (("draws", "cosine", "rule"), ("width", "law", "depth"), ("depth", "error", "")):
            for key, value in {"x": x, "y": y, "by": by}.items():
                tab.select_option(f"#{key}", value)
            traces = tab.evaluate("document.getElementById('curves').data.map(({x, y, name}) => ({x, y, name}))")
            found = {t["name"]: dict(zip(t["x"], t["y"], strict=True)) for t in traces}
            expected = {}
            for row in rows:
                name = f"{by} {row[by]}" if by else "all"
                expected.setdefault(name, {}).setdefault(row[x], []).append(row[y])
            means = {name: {k: sum(v) / len(v) for k, v in own.items()} for name, own in expected.items()}
            assert found.keys() == means.keys()
            for name, own in means.items():
                assert found[name] == pytest.approx(own, rel=1e-12)
        assert tab.locator(".figure img").evaluate("image => image.complete && image.naturalWidth > 100")


def test_in_a_browser_the_table_sorts_by_figures_and_the_filter_holds_for_the_picture(chromium, report):
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
        names = tab.evaluate("document.getElementById('curves').data.map(({name}) => name)")
        assert names == ["rule inp"]
        tab.set_viewport_size({"width": 390, "height": 844})
        tab.wait_for_timeout(300)
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390
        tab.set_viewport_size({"width": 1200, "height": 900})
