"""Reports show the numbers of the store, texts of the store are escaped, and a browser draws the plots.

The study is written, not trained: 24 runs with known metrics.
"""

import base64
import hashlib
import html.parser
import json
import math
import re
import shlex
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from browser import chromium as chromium
from browser import opening
from small import COLUMNS

import nodepert as npt
from nodepert.cli import app as cli
from nodepert.data import load_dataset
from nodepert.errors import UserError
from nodepert.registry import examples, facts, names, passes
from nodepert.report.study import gather, summarised, value_texts
from nodepert.studies.results import saved_runs
from nodepert.studies.run import Run
from nodepert.studies.store.run_folder import open_run
from nodepert.training.metrics import with_error

pytest.importorskip("plotly", reason="a report in HTML needs plotly")
EPOCHS = 5
RUN = Run("digits(train=200, test=50)", "fc(width=8, depth=1)", "auto", 100, EPOCHS, 0.0, 0, "np", "sgd", 0.1)
HOSTILE = "np; </script><script>hurt`1`</script>=exact"
REASON = "</script><script>hurt()</script><img src=x onerror=hurt()> & |cells| `code` 50% of C:\\path_name $x$"
GRID = [(f"np(sigma={sigma})", lr) for sigma in (1e-3, 1e-2, 0.1) for lr in (1e-3, 3e-3, 1e-2)]
ENDS = {("np(sigma=0.01)", 1e-2, 1): "diverged at epoch 3", ("np(sigma=0.001)", 1e-2, 1): "interrupted",
        ("sgd", 1e-3, 0): "failed", (HOSTILE, 1e-3, 0): "interrupted", (HOSTILE, 1e-3, 1): "failed",
        ("np(sigma=0.1)", 1e-2, 0): "diverged at epoch 3", ("np(sigma=0.1)", 1e-2, 1): "diverged at epoch 3",
        }  # fmt: skip
METRIC_NAMES = {"test_acc", "train_acc", "test_loss", "train_loss"}


def rows_of(index, seed, epochs, diverges):
    rng = np.random.default_rng([index, seed])
    for e in range(epochs + 1):
        acc, loss = 10 + 12 * e - index + rng.normal(), 0.3 / (1 + e) + 0.01 * rng.random()
        last = diverges and e == epochs
        values = (0.0 if e == 0 else 0.5 + rng.random(), acc + 1, acc, math.nan if last else loss, loss)
        yield dict(zip(COLUMNS, (e, *map(float, values)), strict=True))


def write_study(out, name="study"):
    """24 runs in twelve groups of two seeds; seven are unfinished."""
    for index, (rule, lr) in enumerate([*GRID, ("sgd", 1e-3), ("sgd", 1e-2), (HOSTILE, 1e-3)]):
        for seed in range(2):
            status = ENDS.get((rule, lr, seed), "finished")
            more = {"reason": REASON} if status == "failed" else {}
            with open_run(out, name, replace(RUN, rule=rule, lr=lr, seed=seed), "0123456789abcdef") as folder:
                folder.start(device="cpu (<b>cpu</b>)", source="a package")
                if status != "failed":
                    epochs = EPOCHS if status == "finished" else 3
                    folder.write_rows(list(rows_of(index, seed, epochs, "diverged" in status)), last=True)
                folder.set_status(status, **more)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A folder with the study, and its report."""
    out = tmp_path_factory.mktemp("runs")
    write_study(out)
    cli.main(["report", "study", "--out", str(out)])
    return out, (out / "study" / "report.html")


class Page(html.parser.HTMLParser):
    """A parsed page: its elements, the texts of scripts and of table cells."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.scripts, self.cells, self.within = [], [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.within = tag if tag in ("script", "td") else self.within
        if tag in ("script", "td"):
            (self.scripts if tag == "script" else self.cells).append("")

    def handle_endtag(self, tag):
        self.within = None if tag == self.within else self.within

    def handle_data(self, data):
        if self.within:
            (self.scripts if self.within == "script" else self.cells)[-1] += data


@pytest.fixture(scope="module")
def page(study):
    return Page(study[1].read_text())


@pytest.fixture(scope="module")
def data(page):
    return json.loads(page.scripts[0])


# ------------------------------------------------------------------------------------------- the numbers


def test_every_row_of_every_run_is_the_stores(study, data):
    table = npt.load_results("study", study[0])
    runs = {run["id"]: run for group in data["groups"] for run in group["runs"]}
    assert len(runs) == 24 and set(runs) == set(table["id"])
    for name, own in table.groupby("id"):
        own = own.dropna(subset=["epoch"])
        expected = [{k: None if v != v else v for k, v in row.items()} for row in own[COLUMNS].to_dict("records")]
        found = runs[name]["rows"]
        assert [dict(zip(found, values, strict=True)) for values in zip(*found.values(), strict=True)] == expected
        assert set(own["status"]) <= {runs[name]["status"]}


def test_the_summary_is_mean_and_standard_error_of_the_last_rows(study, data):
    everything, last = npt.load_results("study", study[0]), npt.load_results("study", study[0], last=True)
    seconds = everything[everything["epoch"] > 0].groupby("id")["epoch_time"].mean()
    for group in data["groups"]:
        own = last[(last["rule"] == group["options"]["rule"]) & (last["lr"] == group["options"]["lr"])]
        own = own[own["status"] == {"finished": "finished", "unfinished": "interrupted"}.get(group["status"])]
        own = own.assign(epoch_time=own["id"].map(seconds))
        for name in (*METRIC_NAMES, "epoch_time"):
            found = group["summary"][name]
            assert found["n"] == len(own)
            assert found["mean"] == (pytest.approx(own[name].mean(), rel=1e-12) if len(own) else None)
            has_error = len(own) > 1 and name != "epoch_time"  # replicas share their time
            assert found["error"] == (pytest.approx(own[name].sem(), rel=1e-9) if has_error else None)


def test_statuses_of_runs(data, page):
    texts = {group["label"]: [one["text"] for one in group["counts"]] for group in data["groups"]}
    assert texts["np(sigma=0.01), lr=0.01"] == ["finished", "diverged at epoch 3"]
    assert texts["np, lr=0.01"] == ["finished", "interrupted after epoch 3 of 5"]
    assert texts["sgd, lr=0.001"] == [f"failed: {REASON}", "finished"]
    assert data["counts"] == {"finished": 17, "interrupted": 2, "failed": 2, "diverged": 3}
    unfinished = {group["label"]: group["status"] for group in data["groups"] if group["status"] != "finished"}
    assert unfinished == {f"{HOSTILE}, lr=0.001": "unfinished", "np(sigma=0.1), lr=0.01": "diverged"}
    (cell,) = (cell for cell in page.cells if cell.startswith("1 interrupted"))
    assert "1 failed: </script>" in cell and "3 of 5" in page.cells


def test_groups_without_a_finished_run(tmp_path):
    row = dict.fromkeys(COLUMNS, 0.5) | {"epoch": 0}
    for seed, (status, rows) in enumerate([("diverged at epoch 0", [row]), ("failed", [])]):
        with open_run(tmp_path, "study", replace(RUN, seed=seed), "data") as folder:
            if rows:
                folder.write_rows(rows)
            folder.set_status(status)
    runs = saved_runs(["study"], tmp_path)
    assert summarised(runs) == ("diverged", [0]) and summarised(runs[1:]) == ("no rows", [])
    (group,) = gather("study", tmp_path)["groups"]
    assert group["summary"]["test_acc"] == {"mean": None, "error": None, "n": 0} and group["label"] == "np"
    for suffix in ("html", "md"):
        cli.main(["report", "study", "--out", str(tmp_path), "--to", f"report.{suffix}"])


@pytest.mark.parametrize(
    ("mean", "error", "form", "text"),
    [
        (93.4213, 0.1278, ".2f", "93.42 ± 0.13"), (93.4213, 1.278, ".2f", "93.4 ± 1.3"), (45.2, 12.3, ".2f", "45 ± 12"),
        (0.24312, 0.00129, ".4g", "0.2431 ± 0.0013"), (0.25, 0.0, ".4g", "0.25 ± 0"), (93.4213, None, ".2f", "93.42"),
        (0.25, 1e-9, ".4g", "2.50000000e-01 ± 1e-09"), (65.208, 0.0052, ".2f", "65.2080 ± 0.0052"),
        (4e5, 1234.0, ".4g", "400000 ± 1200"), (None, None, ".2f", "-"), (0.5, 0.0996, ".4g", "0.50 ± 0.10"),
        (1e308, 1e307, ".4g", "1.0e+308 ± 1e+307"), (math.inf, math.nan, ".4g", "inf ± nan"),
    ],
)  # fmt: skip
def test_a_mean_has_as_many_decimals_as_its_error(mean, error, form, text):
    assert with_error(mean, error, form) == text


def test_numbers_are_short_unless_they_would_look_the_same():
    assert value_texts([1e-5, 10**-2.5, 0.0, 1e-5]) == {1e-5: "1e-05", 10**-2.5: "0.003162", 0.0: "0"}
    assert value_texts([0.1, 0.10000001]) == {0.1: "0.1", 0.10000001: "0.10000001"}
    assert value_texts([60_000, "np(sigma=0.123456)"]) == {60_000: "60000", "np(sigma=0.123456)": "np(sigma=0.123456)"}


def test_axes_of_the_map_are_the_numbers_that_differ(data):
    axes = {axis["key"]: axis["values"] for axis in data["axes"]}
    assert axes == {"rule.sigma": [1e-3, 1e-2, 0.1], "lr": [1e-3, 3e-3, 1e-2]}


# ----------------------------------------------------------------------- what a step costs, as the registry declares


@pytest.mark.parametrize(
    ("rule", "number"),
    [
        ("sgd", 3), ("np", 3), ("np(samples=4, sigma=1e-2, noise=rademacher)", 6), ("np(difference=central)", 4),
        ("np(difference=jvp)", 3), ("np(baseline=running)", 2), ("wp", 2), ("wp(samples=3)", 4), ("dtp", 7), ("dfa", 2),
        ("np(baseline=running, presynaptic=clean)", 3), ("anp", 3), ("anp(samples=3)", 5),
        ("wp(difference=central)", 3), ("bp", 3), ("exact", 3), ("fa", 3), ("usf", 3), ("kp", 3),
        ("np(baseline=running, samples=2)", None),
        ("np(samples=2, difference=central)", None), ("np(replay=True)", None), ("np(presynaptic=noisy)", None),
        ("inp", None), ("decorrelate(np)", None), ("np; out=exact", None),
    ],
)  # fmt: skip
def test_forward_passes_are_what_the_registry_declares(rule, number):
    assert passes(rule) == number


def test_the_cost_that_is_listed_begins_with_the_declared_number():
    for name in names("rule"):
        cost, number = facts("rule", name)["Cost"], passes(name)
        assert cost.startswith(f"{number} forward passes per step: ") if number else not re.match(r"\d", cost)
    assert [name for name in names("rule") if passes(name) is None] == ["inp", "decorrelate", "local", "by-node"]


def test_examples_an_epoch():
    for name in ("digits", "mnist5k", "digits(train=100)"):
        assert examples(name) == len(load_dataset(name).train_y)
    assert examples("cifar10(test=50)") == 50_000 and examples("mnist(train=2000)") == 2000


# ---------------------------------------------------------------------------------------- the file itself


def test_the_file_is_small_and_the_same_every_time(study):
    out, path = study
    before = path.read_bytes()
    assert len(before) < 6e6
    cli.main(["report", "study", "--out", str(out), "--to", str(out / "again.html")])
    assert (out / "again.html").read_bytes() == before


def test_nothing_is_loaded_and_only_our_scripts_run(page):
    policy = next(a["content"] for tag, a in page.elements if tag == "meta" and "http-equiv" in a)
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in page.scripts[1:]]
    assert policy.startswith("default-src 'none'; ") and len(page.scripts) == 3
    assert re.findall(r"'sha256-([^']+)'", policy) == digests and "unsafe-inline' 'sha" not in policy
    addresses = [a[key] for _, a in page.elements for key in ("src", "href", "action", "srcset") if key in a]
    assert addresses == ["data:,"]


def test_texts_of_the_store_are_escaped(page, data):
    tags = {tag for tag, _ in page.elements}
    assert "img" not in tags and [tag for tag, _ in page.elements].count("script") == 3
    assert not any(key.startswith("on") for _, attributes in page.elements for key in attributes)
    assert HOSTILE in page.cells and any(REASON in cell for cell in page.cells)
    assert any(group["options"]["rule"] == HOSTILE for group in data["groups"])
    assert "<" not in page.scripts[0]


def test_the_commands_train_these_very_runs(study, data, monkeypatch):
    trained = []

    def execute(runs, study, options, distributed):
        trained.extend((study.name, run.id) for run in runs)
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_execute", execute)
    for group in data["groups"]:
        with pytest.raises(KeyboardInterrupt):
            cli._parse(shlex.split(group["command"])[1:])()
    assert sorted(trained) == sorted(("study", run["id"]) for group in data["groups"] for run in group["runs"])
    assert "--seeds 0..1" in data["groups"][0]["command"]


def test_versions_device_and_data_are_shown(study, page):
    text = study[1].read_text()
    (source,) = json.loads(page.scripts[0])["provenance"]
    assert source["runs"] == 24 and source["device"] == "cpu (<b>cpu</b>)" and source["data"].startswith("0123456789ab")
    assert "nodepert 0.1.0, jax " in source["versions"] and "cpu (&lt;b&gt;cpu&lt;/b&gt;)" in text


def test_strange_records_of_the_first_version_are_reported(tmp_path):
    strange = {"lr": 1e-300}, {"lr": 1e300}, {"lr": -0.0}, {"wd": 1e-300}, {"seed": 2**31 - 1}, {}, {"seed": 1}
    for i, changes in enumerate(strange):
        folder = tmp_path / "study" / f"run{i}"
        folder.mkdir(parents=True)
        record = {"format": "nodepert-run", "version": 1, "status": "<odd> & so", "config": RUN.config | changes}
        (folder / "config.json").write_text(json.dumps(record | {"versions": [1], "device": {"<": 3}, "reason": 7}))
        (folder / "metrics.csv").write_text(",".join(COLUMNS) + "\n0,nan,inf,-inf,nan,1e308\n")
    for suffix in ("html", "md"):
        cli.main(["report", "study", "--out", str(tmp_path), "--to", f"report.{suffix}"])
    with open("report.html") as file:
        found = Page(file.read())
    assert "odd" not in {tag for tag, _ in found.elements} and found.cells.count("<odd> & so") == 4
    assert found.cells.count("3 <odd> & so") == 1 and len(json.loads(found.scripts[0])["groups"]) == 5


# ---------------------------------------------------------------------------------------------- Markdown


def test_markdown_has_the_table_also_for_latex(study, capsys):
    cli.main(["report", "study", "--out", str(study[0]), "--to", "report.md"])
    assert capsys.readouterr().out == "report.md: 24 runs in 12 groups\n"
    with open("report.md") as file:
        text = file.read()
    lines = [re.split(r"(?<!\\)\|", line) for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 14 and {len(line) for line in lines} == {11}
    accuracy = gather("study", study[0])["groups"][1]["summary"]["train_acc"]
    assert [cell.strip() for cell in lines[3][1:4]] == [
        "np",
        "0.001",
        with_error(accuracy["mean"], accuracy["error"], ".2f"),
    ]
    assert "1 failed" in lines[2][9] and "3 of 5" in lines[2][8]
    fences = re.findall(r"^```.*$", text, re.M)
    assert fences == ["```latex", "```", "```sh", "```"]
    latex, commands = re.findall(r"^```\w+\n(.*?)\n```$", text, re.M | re.S)
    body = latex.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
    assert len(body) == 12 and all(line.endswith(r" \\") for line in body) and r"$\pm$" in body[1]
    assert r"\textasciigrave{}1\textasciigrave{}" in latex and latex.count("&") == 7 * 13
    assert len(commands.splitlines()) == 12
    outside = re.sub(r"^```\w+\n.*?\n```$", "", text, flags=re.M | re.S)
    assert not re.search(r"(?<!\\)[<`]", outside) and r"\<script\>hurt" in outside


# ------------------------------------------------------------------------------------------------ errors


def test_errors_are_one_line(study, tmp_path, monkeypatch, capsys):
    out, path = study

    def refused(part, *arguments):
        with pytest.raises(SystemExit) as stop:
            cli.main(["report", *arguments])
        printed, err = capsys.readouterr()
        assert (stop.value.code, printed, err.count("\n")) == (2, "", 1) and part in err, err

    refused("did you mean 'study'?", "studi", "--out", str(out))
    refused("no study or experiment 'linear-teory'", "linear-teory", "--out", str(out))
    refused("(did you mean 'linear-theory'?); there are: study", "linear-teory", "--out", str(out))
    refused(f"to run it: nodepert experiment adam --out {out}", "adam", "--out", str(out))
    refused("there is no folder no", "study", "--out", str(out), "--to", "no/sub/report.html")
    assert not (tmp_path / "no").exists()
    refused("must end in .html or .md", "study", "--out", str(out), "--to", "report.pdf")
    (tmp_path / "file").write_text("mine")
    refused("cannot write", "study", "--out", str(out), "--to", "file/report.html")
    with open_run(tmp_path / "runs", "broken", RUN, "data") as folder:
        folder.set_status("finished")
    (folder.path / "config.json").write_text("")
    with pytest.raises(UserError, match=r"no run of .*broken can be read"):
        gather("broken", tmp_path / "runs")
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    before = path.read_bytes()
    refused('pip install "nodepert[report]"', "study", "--out", str(out))
    assert path.read_bytes() == before
    cli.main(["report", "study", "--out", str(out), "--to", "report.md"])


def test_a_report_imports_neither_jax_nor_pandas(study):
    code = (
        "import sys; from nodepert.cli.app import main; main(sys.argv[1:]); print({'jax', 'pandas'} & {*sys.modules})"
    )
    for name in ("report.md", "report.html"):
        command = [sys.executable, "-c", code, "report", "study", "--out", str(study[0]), "--to", name]
        assert subprocess.check_output(command, text=True).splitlines()[-1] == "set()"


# -------------------------------------------------------------------------------------------- in a browser


@pytest.fixture
def opened(chromium, study):
    """The report in a browser tab."""
    with opening(chromium, study[1]) as tab:
        yield tab


def lines(tab):
    """{group: curve} of the drawn groups, without bands."""
    traces = tab.evaluate("document.getElementById('curves').data.map(({x, y, meta}) => ({x, y, meta}))")
    return {trace["meta"]: trace for trace in traces if trace.get("meta") is not None}


def visible(tab):
    return tab.locator("tbody tr:visible").all_inner_texts()


def test_it_opens_at_once_and_draws_the_best_curves(opened, data):
    print(f"opened in {opened.seconds:.2f} s")  # no test asserts a time
    assert len(visible(opened)) == 12
    score = [group["summary"]["test_acc"]["mean"] or -1 for group in data["groups"]]
    assert set(lines(opened)) == set(sorted(range(12), key=lambda i: score[i])[2:])  # ten
    assert opened.locator("#map .heatmaplayer").count() == 1
    assert opened.evaluate("typeof hurt") == "undefined" and opened.evaluate("document.images.length") == 0


def test_the_filter_hides_rows_and_curves(opened):
    opened.fill("#filter", "SGD")
    assert len(visible(opened)) == len(lines(opened)) == 2 and opened.inner_text("#shown") == "2 of 12"
    opened.fill("#filter", "NP(sigma=0.01) finished")
    assert len(visible(opened)) == len(lines(opened)) == 3
    opened.fill("#filter", "np(sigma=0.01) diverged")
    assert len(visible(opened)) == 1
    opened.fill("#filter", "<script>hurt`")
    assert len(visible(opened)) == 1
    opened.fill("#filter", "nothing of this kind")
    assert visible(opened) == [] and lines(opened) == {}
    opened.fill("#filter", "")
    assert len(visible(opened)) == 12


def test_a_click_on_a_heading_sorts_and_another_reverses_the_order(opened, data):
    column = [text.strip() for text in opened.locator("thead th").all_inner_texts()].index("test %")
    means = [group["summary"]["test_acc"]["mean"] for group in data["groups"]]
    known = sorted(mean for mean in means if mean is not None)
    for expected in ([*known, None], [*known[::-1], None]):
        opened.locator("thead th").nth(column).locator("button").click()
        order = opened.locator("tbody tr").evaluate_all("rows => rows.map(row => +row.dataset.group)")
        assert [means[i] for i in order] == expected
    assert opened.locator("thead th").nth(column).get_attribute("aria-sort") == "descending"


def test_curves_are_those_of_the_store_on_every_axis(opened, study, data):
    table = npt.load_results("study", study[0])
    opened.select_option("#most", "0")
    for quantity in METRIC_NAMES:
        opened.select_option("#quantity", quantity)
        for axis in ("epoch", "seconds", "examples", "passes"):
            opened.select_option("#axis", axis)
            found = lines(opened)
            known = {i for i, group in enumerate(data["groups"]) if axis != "passes" or group["passes"]}
            assert set(found) == known
            for i, trace in found.items():
                group = data["groups"][i]
                ids = [group["runs"][k]["id"] for k in group["included"]]
                own = table[table["id"].isin(ids)].copy()
                own["seconds"] = own.groupby("id")["epoch_time"].cumsum()
                own["examples"] = own["epoch"] * 200
                own["passes"] = own["examples"] * (group["passes"] or 0)
                own["x"], own["y"] = own[axis], own[quantity]
                expected = own.groupby("epoch")[["x", "y"]].mean().dropna()  # the last loss of what diverged
                assert trace["x"] == pytest.approx(list(expected["x"]), rel=1e-12)
                assert trace["y"] == pytest.approx(list(expected["y"]), rel=1e-12)
    assert "Not drawn" in opened.inner_text("#curves-note") and "hurt" in opened.inner_text("#curves-note")


def test_bands_are_plus_minus_one_standard_error(opened, study, data):
    table = npt.load_results("study", study[0])
    own = table[(table["rule"] == "np") & (table["lr"] == 1e-3)].groupby("epoch")["test_acc"]
    mean, error = own.mean(), own.sem()
    y = opened.evaluate("document.getElementById('curves').data.find(({name}) => name === 'band 1').y")
    assert y == pytest.approx([*(mean + error), *(mean - error)[::-1]])


def test_the_map_has_the_means_and_marks_the_best(opened, study):
    last = npt.load_results("study", study[0], last=True)
    last = last[(last["status"] == "finished") & last["rule"].str.startswith("np")]
    expected = last.pivot_table(index="rule.sigma", columns="lr", values="test_acc", aggfunc="mean").to_numpy()
    script = "(({data: [{z, text}], layout}) => ({z, text, layout}))(document.getElementById('map'))"

    def shown():
        found = opened.evaluate(script)
        axes = [found["layout"][axis] for axis in ("xaxis", "yaxis")]
        return found, np.array(found["z"], float), [(axis["title"]["text"], axis["ticktext"]) for axis in axes]

    found, z, axes = shown()
    assert axes == [("lr", ["0.001", "0.003", "0.01"]), ("rule.sigma", ["0.001", "0.01", "0.1"])]
    assert np.allclose(z, expected, rtol=1e-12, equal_nan=True) and np.isnan(z[2, 2])
    y, x = np.unravel_index(np.nanargmax(expected), expected.shape)
    starred = [(j, i) for j in range(3) for i in range(3) if found["text"][j][i].startswith("★")]
    assert starred == [(y, x)] and found["text"][2][2] == "none<br>finished"
    shape = found["layout"]["shapes"][0]
    assert (shape["x0"], shape["x1"], shape["y0"], shape["y1"]) == (x - 0.5, x + 0.5, y - 0.5, y + 0.5)
    opened.select_option("#map-x", "1")  # the other axis changes too
    assert opened.input_value("#map-y") == "0"
    assert np.allclose(shown()[1], expected.T, rtol=1e-12, equal_nan=True)


def test_the_legend_hides_and_shows_curves(opened):
    first = opened.locator("#legend button").first
    first.click()
    assert len(lines(opened)) == 9
    opened.locator("#legend button").first.click()
    assert len(lines(opened)) == 10


@pytest.mark.parametrize("width", [390, 768, 1200])
def test_the_page_is_as_wide_as_the_window(opened, width):
    opened.set_viewport_size({"width": width, "height": 844})
    opened.wait_for_timeout(300)  # plotly follows
    for most in ("10", "0"):
        opened.select_option("#most", most)
        assert opened.evaluate("document.documentElement.scrollWidth") <= width


def test_dark_and_in_print(opened):
    def colours():
        script = "getComputedStyle(document.body).backgroundColor"
        return opened.evaluate(script), opened.evaluate("document.getElementById('curves').layout.font.color")

    light = colours()
    opened.emulate_media(color_scheme="dark")
    opened.wait_for_timeout(300)
    assert light[0] == "rgb(255, 255, 255)" and colours()[0] != light[0] and colours()[1] != light[1]
    assert len(opened.pdf()) > 10_000
    opened.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert colours()[1] == light[1] and opened.locator("details[open]").count() == 1


def test_a_report_of_two_tasks_draws_each_quantity_of_the_runs_that_have_it(chromium, tmp_path):
    for lr, seed in ((1e-3, 0), (1e-2, 0), (1e-3, 1), (1e-2, 1)):
        for dataset, name, scores in ((RUN.dataset, "acc", (10, 80)), ("diabetes", "r2", (-40, 0.5))):
            run = replace(RUN, dataset=dataset, loss="auto", lr=lr, seed=seed)
            with open_run(tmp_path, "both", run, "0123456789abcdef") as folder:
                losses = {"train_loss": 0.5, "test_loss": 0.5}
                folder.write_rows([{"epoch": e, f"train_{name}": v, f"test_{name}": v, **losses}
                                   for e, v in enumerate(map(float, scores))], last=True)  # fmt: skip
                folder.set_status("finished")
    cli.main(["report", "both", "--out", str(tmp_path)])
    with opening(chromium, tmp_path / "both" / "report.html") as tab:
        assert {trace["y"][-1] for trace in lines(tab).values()} == {80}
        tab.select_option("#quantity", "test_r2")
        assert {trace["y"][-1] for trace in lines(tab).values()} == {0.5}
        low, high = tab.evaluate("document.getElementById('curves').layout.yaxis.range")
        assert low == 0 and 0.5 < high < 1  # worse than the mean is not drawn
