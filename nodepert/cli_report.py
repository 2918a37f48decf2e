"""The command `nodepert report`: what a study found, as one file to read, send or print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from nodepert.records import write_whole, writing
from nodepert.registry import UserError


def report(
    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")],
    out: Path = Path("runs"),
    to: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None,
) -> None:
    """Write a report of a study: a table with a line per group of runs that differ in seed only, learning curves, heat
    maps where two numbers vary, the commands and versions.

    HTML is one file that needs no network. Markdown has the table, for LaTeX as well.

    Example: nodepert report weight-decay --to weight-decay.html

    Args:
        name: The study.
        out: Folder of all results.
        to: The file, .html or .md; else OUT/NAME/report.html.
    """
    from nodepert.report.gathering import gather
    from nodepert.report.html import html, plotly_js
    from nodepert.report.markdown import markdown

    if to and to.suffix not in (".html", ".md"):
        raise UserError(f"cannot tell the format of {to}: its name must end in .html or .md")
    write = markdown if to and to.suffix == ".md" else html
    if write is html:
        plotly_js()  # missing is told before anything is read
    data = gather(name, out)
    path = to or out / name / "report.html"
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, write(data))
    count, groups = sum(data["statuses"].values()), len(data["groups"])
    print(f"{path}: {count:,} run{'s' * (count > 1)} in {groups:,} group{'s' * (groups > 1)}")
