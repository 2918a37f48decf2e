"""A report as one HTML file that needs no network: the table is there without a script, plotly draws the rest.

Whatever comes from the store is escaped, and no script runs but those whose digest the page's policy names.
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
from nodepert.report.numbers import (
    NOTE,
    cells,
    common,
    epochs,
    headings,
    headline,
    left,
    options,
    sources,
    standing,
)

POLICY = "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src"
STUDY = ("figures.js", "table.js", "curves.js", "map.js", "page.js")  # one after another


def html(data: Mapping[str, Any]) -> str:
    """The text of a study's report, of what `gather` gives. Raises UserError where plotly is missing."""
    return page(
        "report.html",
        STUDY,
        data,
        study=escape(data["study"]),
        headline=escape(headline(data)),
        common=pairs(common(data)),
        head="".join(heading(text) for text in headings(data)),
        rows="\n".join(_row(data, i, group) for i, group in enumerate(data["groups"])),
        note=escape(NOTE),
        commands="\n".join(escape(group["command"]) for group in data["groups"]),
        sources="".join(f"<li>{escape(text)}</li>" for text in sources(data)),
    )


def page(template: str, scripts: Sequence[str], data: Mapping[str, Any], **parts: str) -> str:
    """A template filled with its parts, the data and the scripts. Raises UserError where plotly is missing."""
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
    """Our own JavaScript, whose names stay inside of it."""
    return '"use strict";\n{\n' + "\n".join(map(_file, names)) + "}\n"


def pairs(found: Mapping[str, str]) -> str:
    """Names and what they stand for."""
    shown = [f"<div><dt>{escape(key)}</dt> <dd>{escape(text)}</dd></div>" for key, text in found.items()]
    return f"<dl>{''.join(shown)}</dl>" if shown else ""


def plotly_js() -> str:
    """The JavaScript that comes with plotly. Raises UserError where it is missing."""
    try:
        from plotly.offline import get_plotlyjs  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UserError('a report in HTML needs plotly: pip install "nodepert[report]"; or write a .md') from None
    return get_plotlyjs()


def embedded(data: Mapping[str, Any]) -> str:
    """JSON that can stand in a script element: nothing in it ends one or begins a comment."""
    return json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def heading(text: str) -> str:
    return f'<th scope="col" aria-sort="none"><button type="button">{escape(text)}</button></th>'


def _row(data: Mapping[str, Any], i: int, group: Mapping[str, Any]) -> str:
    """A group's line. What a column is sorted by is its data-value, or its text."""
    texts, found = options(group), []
    for key in left(data):
        value = group["options"][key]
        number = isinstance(value, int | float)
        found.append(f'<td class="number" data-value="{value}">{escape(texts[key])}</td>' if number else
                     f'<td class="text">{escape(texts[key])}</td>')  # fmt: skip
    for metric, text in zip(data["metrics"], cells(data, group), strict=True):
        mean = (group["summary"].get(metric["name"]) or {"mean": None})["mean"]
        found.append(f'<td class="number" data-value="{"" if mean is None else repr(mean)}">{escape(text)}</td>')
    reached = [group["runs"][k]["rows"]["epoch"][-1] for k in group["counted"]]
    found.append(f'<td class="number" data-value="{max(reached, default="")}">{escape(epochs(group))}</td>')
    words = [one["word"] for one in group["statuses"]]
    badges = [f'<span class="status {escape(word)}">{escape(text)}</span>'
              for word, text in zip(words, standing(group["statuses"]), strict=True)]  # fmt: skip
    return f'<tr data-group="{i}">{"".join(found)}<td class="text">{" ".join(badges)}</td></tr>'


def _file(name: str) -> str:
    return (files("nodepert.report") / name).read_text(encoding="utf-8")


def _digest(code: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
