"""The report of an experiment: what it found, its figure, its rows to sort, filter and draw, how it was made."""

from __future__ import annotations

import base64
import math
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

SCRIPTS = ("figures.js", "table.js", "explore.js")
LONG = 60  # rows, from which on Markdown leaves them to the CSV


def find(name: str, out: Path) -> Path | None:
    """Where the record of an experiment of this name is, in a folder of results; None where there is none."""
    places = (out / f"{name}.json", out / "experiments" / f"{name}.json")
    return next((path for path in places if path.is_file()), None)


def gather_experiment(path: Path) -> dict[str, Any]:
    """All that a report of this experiment shows. Raises UserError for what is no record of one, or damaged."""
    record = read_record(path)
    try:
        return _gathered(path, record)
    except UserError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError):
        raise UserError(f"{path} is damaged; conduct the experiment again, in another folder") from None


def _gathered(path: Path, record: dict[str, Any]) -> dict[str, Any]:
    name, rows = str(record["experiment"]), read_rows(path.with_suffix(".csv"))
    if not rows:
        raise UserError(f"{path.with_suffix('.csv')} has no rows; nodepert experiment {name} goes on where it was")
    try:
        said = about("experiment", name)
    except UserError:  # of a plug-in that is not here
        said = ""
    figure = path.with_suffix(".svg")
    versions = ", ".join(f"{k} {v}" for k, v in record["versions"].items())
    return {
        "name": name,
        "about": said,
        "scale": str(record["scale"]),
        "options": {key: _written(value) for key, value in record["options"].items()},
        "findings": [{"says": str(f["says"]), "holds": f["holds"] is True} for f in record.get("findings", [])],
        "columns": list(rows[0]),
        "rows": [[_plain(value) for value in row.values()] for row in rows],
        "picture": _picture(record.get("picture", {}), list(rows[0])),
        "figure": base64.b64encode(figure.read_bytes()).decode() if figure.is_file() else "",
        "command": shlex.join(["nodepert", "experiment", name, "--scale", str(record["scale"]), "--out",
                               str(path.parent)]),
        "sources": [versions, f"on {record['device']}", f"{record['seconds']:.0f} s of computation"],
        "colours": COLOURS,
    }  # fmt: skip


def html_of_experiment(data: Mapping[str, Any]) -> str:
    """The text of the report. Raises UserError where plotly is missing."""
    figure = f'<img alt="The figure of {escape(data["name"])}" src="data:image/svg+xml;base64,{data["figure"]}">'
    return page(
        "experiment.html",
        SCRIPTS,
        {key: data[key] for key in ("columns", "rows", "picture", "colours")},
        name=escape(data["name"]),
        about=escape(data["about"]),
        options=pairs({"scale": data["scale"]} | data["options"]),
        findings="".join(
            f'<li class="{"yes" if f["holds"] else "no"}">{escape(told(f))}</li>' for f in data["findings"]
        ),
        figure=figure if data["figure"] else "",
        head="".join(heading(name) for name in data["columns"]),
        rows="\n".join(f'<tr data-group="{i}">{"".join(map(_cell, row))}</tr>' for i, row in enumerate(data["rows"])),
        command=escape(data["command"]),
        sources="".join(f"<li>{escape(text)}</li>" for text in data["sources"]),
    )


def markdown_of_experiment(data: Mapping[str, Any]) -> str:
    """The text of the report as Markdown; a short table of rows, and it for LaTeX as well."""
    columns, rows = data["columns"], [[shown(value) for value in row] for row in data["rows"]]
    texts = 0 if isinstance(data["rows"][0][0], int | float) else 1
    cells = [[*map(escaped, row)] for row in rows]
    parts = [
        f"# {escaped(data['name'])}",
        escaped(data["about"]),
        escaped("; ".join(f"{key} {value}" for key, value in ({"scale": data["scale"]} | data["options"]).items())),
        "\n".join(f"- {escaped(told(finding))}" for finding in data["findings"]),
        *([table([*map(escaped, columns)], cells, texts), "For LaTeX (package booktabs):",
           fenced("latex", latex(columns, rows, texts))] if len(rows) <= LONG else
          [f"{len(rows):,} rows are in {escaped(data['name'])}.csv."]),
        "The command:",
        fenced("sh", data["command"]),
        "\n".join(f"- {escaped(text)}" for text in data["sources"]),
    ]  # fmt: skip
    return "\n\n".join(part for part in parts if part) + "\n"


def told(finding: Mapping[str, Any]) -> str:
    """A finding with its verdict."""
    return f"{'yes' if finding['holds'] else 'NO'}: {finding['says']}"


def shown(value: Any) -> str:
    """A figure with five digits, a word as it is; a dash where there is none."""
    return "-" if value is None else f"{value:.5g}" if isinstance(value, float) else str(value)


def _picture(given: Mapping[str, Any], columns: Sequence[str]) -> dict[str, Any]:
    """The picture that a record asks for; a plain one of a record that says nothing of it."""
    picture = Picture(**given)
    if {picture.x, picture.y.removeprefix("-"), *picture.by, *picture.where} - {*columns, ""}:
        raise ValueError("a picture of another table")
    return picture._asdict() | {"where": {name: _plain(value) for name, value in picture.where.items()}}


def _cell(value: Any) -> str:
    text = escape(shown(value))
    return f'<td class="text">{text}</td>' if isinstance(value, str) else f"<td>{text}</td>"


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _written(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
