"""A report as one HTML file that needs no network: a table that needs no script, and plots by plotly.

Text from the store is escaped, and the page's policy allows only scripts with the digests it names.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from nodepert.errors import UserError
from nodepert.report import texts

POLICY = "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src"
STUDY = ("common.js", "table.js", "curves.js", "map.js", "page.js")  # in this order


def html(data: Mapping[str, Any]) -> str:
    """The HTML of a study's report, from the data of `gather`. Raises UserError if plotly is missing."""
    return page(
        "report.html",
        STUDY,
        data,
        study=escape(data["study"]),
        headline=escape(texts.headline(data)),
        common=pairs(texts.shared_options(data)),
        head="".join(map(heading, texts.headings(data), _numeric(data))),
        rows="\n".join(_row(data, i, group) for i, group in enumerate(data["groups"])),
        note=escape(texts.NOTE),
        commands="\n".join(escape(group["command"]) for group in data["groups"]),
        sources="".join(f"<li>{escape(text)}</li>" for text in texts.sources(data)),
    )


def page(template: str, scripts: Sequence[str], data: Mapping[str, Any], **parts: str) -> str:
    """A template filled with its parts, the data and the scripts. Raises UserError if plotly is missing."""
    library, own = plotly_js(), script(scripts)
    return Template(_file(template)).substitute(
        policy=escape(" ".join([POLICY, *(f"'{_digest(code)}'" for code in (library, own))])),
        style=_file("report.css"),
        data=embedded(data),
        plotly=library,
        script=own,
        **parts,
    )


def script(names: Sequence[str] = STUDY) -> str:
    """NodePert's JavaScript, in a block of its own so that its names are local."""
    return '"use strict";\n{\n' + "\n".join(map(_file, names)) + "}\n"


def pairs(values: Mapping[str, str]) -> str:
    """A list of names and values."""
    shown = [f"<div><dt>{escape(key)}</dt> <dd>{escape(text)}</dd></div>" for key, text in values.items()]
    return f"<dl>{''.join(shown)}</dl>" if shown else ""


def plotly_js() -> str:
    """The JavaScript in the package plotly. Raises UserError if plotly is missing."""
    try:
        from plotly.offline import get_plotlyjs  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UserError('a report in HTML needs plotly: pip install "nodepert[report]"; or write a .md') from None
    return get_plotlyjs()


def embedded(data: Mapping[str, Any]) -> str:
    """JSON that is safe in a script element: nothing in it ends the element or begins a comment."""
    return json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def heading(text: str, number: bool) -> str:
    kind = "number" if number else "text"
    return f'<th scope="col" class="{kind}" aria-sort="none"><button type="button">{escape(text)}</button></th>'


def _numeric(data: Mapping[str, Any]) -> list[bool]:
    """Whether each column of the table holds numbers."""
    options = data["groups"][0]["options"]
    left = [isinstance(options[key], int | float) for key in texts.left_columns(data)]
    return [*left, *[True] * (len(data["metrics"]) + 1), False]


def _row(data: Mapping[str, Any], i: int, group: Mapping[str, Any]) -> str:
    """A group's row. A column is sorted by data-value, or by its text."""
    cells = []
    for key, text in texts.left_cells(group).items():
        value = group["options"][key]
        cells.append(_number_cell(value, text) if isinstance(value, int | float) else
                     f'<td class="text">{escape(text)}</td>')  # fmt: skip
    for metric, text in zip(data["metrics"], texts.metric_cells(data, group), strict=True):
        cells.append(_number_cell(group["summary"].get(metric["name"], {}).get("mean"), text))
    cells.append(_number_cell(max(texts.epochs_reached(group), default=None), texts.epochs_cell(group)))
    badges = [f'<span class="status {escape(one["status"])}">{escape(text)}</span>'
              for one, text in zip(group["counts"], texts.status_texts(group), strict=True)]  # fmt: skip
    return f'<tr data-group="{i}">{"".join(cells)}<td class="text">{" ".join(badges)}</td></tr>'


def _number_cell(value: float | None, text: str) -> str:
    return f'<td class="number" data-value="{"" if value is None else repr(value)}">{escape(text)}</td>'


def _file(name: str) -> str:
    return (files("nodepert.report") / name).read_text(encoding="utf-8")


def _digest(code: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
