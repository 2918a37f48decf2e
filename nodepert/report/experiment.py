"""The report of an experiment: findings, figure, rows to sort, filter and plot, how to reproduce it."""

from __future__ import annotations

import base64
import shlex
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from nodepert.errors import UserError
from nodepert.experiments.drawing import COLOURS, Picture
from nodepert.experiments.record import read_record, read_rows
from nodepert.registry import about
from nodepert.report.html import heading, page, pairs
from nodepert.report.markdown import escaped, fenced, latex, table
from nodepert.training.metrics import finite_or_none

SCRIPTS = ("common.js", "table.js", "explore.js")
LONG = 60  # rows; Markdown refers to the CSV for more


def find(name: str, out: Path) -> Path | None:
    """The record of an experiment in a directory of results; None if there is none."""
    paths = (out / f"{name}.json", out / "experiments" / f"{name}.json")
    return next((path for path in paths if path.is_file()), None)


def gather_experiment(path: Path) -> dict[str, Any]:
    """The data of the report of an experiment. Raises UserError for a corrupt record, and for other files."""
    record = read_record(path)
    try:
        return _gathered(path, record)
    except UserError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError):
        raise UserError(f"{path} is corrupt; run the experiment again, with another --out") from None


def _gathered(path: Path, record: dict[str, Any]) -> dict[str, Any]:
    name, rows = str(record["experiment"]), read_rows(path.with_suffix(".csv")) if record["done"] else []
    if not rows:  # it was interrupted in its first part
        raise UserError(f"{path.with_suffix('.csv')} has no rows; to resume: nodepert experiment {name}")
    try:
        description = about("experiment", name)
    except UserError:  # of a plug-in that is not installed
        description = ""
    figure = path.with_suffix(".svg")
    versions = ", ".join(f"{k} {v}" for k, v in record["versions"].items())
    return {
        "name": name,
        "about": description,
        "scale": str(record["scale"]),
        "options": {key: _option_text(value) for key, value in record["options"].items()},
        "findings": [{"says": str(f["says"]), "holds": f["holds"] is True} for f in record.get("findings", [])],
        "columns": list(rows[0]),
        "rows": [[finite_or_none(value) for value in row.values()] for row in rows],
        "picture": _picture(record.get("picture", {}), list(rows[0])),
        "figure": base64.b64encode(figure.read_bytes()).decode() if figure.is_file() else "",
        "command": shlex.join(["nodepert", "experiment", name, "--scale", str(record["scale"]), "--out",
                               str(path.parent)]),
        "sources": [versions, f"on {record['device']}", f"{record['seconds']:.0f} s of computation"],
        "colours": COLOURS,
    }  # fmt: skip


def html_of_experiment(data: Mapping[str, Any]) -> str:
    """The HTML of the report. Raises UserError if plotly is missing."""
    figure = f'<img alt="The figure of {escape(data["name"])}" src="data:image/svg+xml;base64,{data["figure"]}">'
    return page(
        "experiment.html",
        SCRIPTS,
        {key: data[key] for key in ("columns", "rows", "picture", "colours")},
        name=escape(data["name"]),
        about=escape(data["about"]),
        options=pairs({"scale": data["scale"]} | data["options"]),
        findings="".join(
            f'<li class="{"yes" if f["holds"] else "no"}">{escape(verdict(f))}</li>' for f in data["findings"]
        ),
        figure=figure if data["figure"] else "",
        head="".join(
            heading(name, not any(isinstance(row[i], str) for row in data["rows"]))
            for i, name in enumerate(data["columns"])
        ),
        rows="\n".join(f'<tr data-group="{i}">{"".join(map(_cell, row))}</tr>' for i, row in enumerate(data["rows"])),
        command=escape(data["command"]),
        sources="".join(f"<li>{escape(text)}</li>" for text in data["sources"]),
    )


def markdown_of_experiment(data: Mapping[str, Any]) -> str:
    """The Markdown of the report; a short table of rows is included, also for LaTeX."""
    columns, rows = data["columns"], [[value_text(value) for value in row] for row in data["rows"]]
    n = 0 if isinstance(data["rows"][0][0], int | float) else 1
    cells = [[*map(escaped, row)] for row in rows]
    parts = [
        f"# {escaped(data['name'])}",
        escaped(data["about"]),
        escaped("; ".join(f"{key} {value}" for key, value in ({"scale": data["scale"]} | data["options"]).items())),
        "\n".join(f"- {escaped(verdict(finding))}" for finding in data["findings"]),
        *([table([*map(escaped, columns)], cells, n), "For LaTeX (package booktabs):",
           fenced("latex", latex(columns, rows, n))] if len(rows) <= LONG else
          [f"{len(rows):,} rows are in {escaped(data['name'])}.csv."]),
        "The command:",
        fenced("sh", data["command"]),
        "\n".join(f"- {escaped(text)}" for text in data["sources"]),
    ]  # fmt: skip
    return "\n\n".join(part for part in parts if part) + "\n"


def verdict(finding: Mapping[str, Any]) -> str:
    """The verdict on a finding, and the finding."""
    return f"{'yes' if finding['holds'] else 'not seen at this scale'}: {finding['says']}"


def value_text(value: Any) -> str:
    """A value of a table; floats have five digits, None is a dash."""
    return "-" if value is None else f"{value:.5g}" if isinstance(value, float) else str(value)


def _picture(given: Mapping[str, Any], columns: Sequence[str]) -> dict[str, Any]:
    """The columns that the record selects for the first plot."""
    picture = Picture(**given)
    if {picture.x, picture.y.removeprefix("-"), *picture.by, *picture.where} - {*columns, ""}:
        raise ValueError("a column that the table does not have")
    return picture._asdict() | {"where": {name: finite_or_none(value) for name, value in picture.where.items()}}


def _cell(value: Any) -> str:
    text = escape(value_text(value))
    return f'<td class="{"text" if isinstance(value, str) else "number"}">{text}</td>'


def _option_text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
