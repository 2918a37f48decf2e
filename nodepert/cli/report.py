"""The command `nodepert report`: a study or an experiment as one file to read, share or print."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from nodepert.errors import UserError, did_you_mean
from nodepert.registry import names
from nodepert.studies.store.records import check_target, write_whole


def report(
    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")],
    out: Path = Path("runs"),
    to: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None,
) -> None:
    """Write a report of a study: a table with a row per group of runs that differ only in seed, learning curves, heat
    maps if two numbers vary, the commands and versions. Or of an experiment: its findings, figure and rows.

    HTML is one file that needs no network. Markdown has the table, also for LaTeX.

    Example: nodepert report weight-decay --to weight-decay.html

    Args:
        name: The study (runs in OUT/NAME), or an experiment (OUT/NAME.json or OUT/experiments/NAME.json).
        out: Directory of all results.
        to: The file, .html or .md, in an existing directory. Default: OUT/NAME/report.html, or NAME.html beside the
            record of an experiment.
    """
    from nodepert.report import experiment
    from nodepert.report.html import html, plotly_js
    from nodepert.report.markdown import markdown
    from nodepert.report.study import gather
    from nodepert.studies.results import run_folders

    if to:
        check_target(to, ".html", ".md")
    as_text = bool(to and to.suffix == ".md")
    if not as_text:
        plotly_js()  # reports that it is missing before anything is read
    if run_folders(out / name):
        data = gather(name, out)
        path = to or out / name / "report.html"
        text = (markdown if as_text else html)(data)
        count, groups = sum(data["counts"].values()), len(data["groups"])
        content = f"{count:,} run{'s' * (count > 1)} in {groups:,} group{'s' * (groups > 1)}"
    elif record := experiment.find(name, out):  # beside a directory of its name, perhaps
        data = experiment.gather_experiment(record)
        path = to or record.with_suffix(".html")
        text = (experiment.markdown_of_experiment if as_text else experiment.html_of_experiment)(data)
        content = f"{len(data['rows']):,} rows of {name}, {len(data['findings'])} findings"
    else:
        raise UserError(missing(name, out))
    write_whole(path, text)
    print(f"{path}: {content}")


def missing(name: str, out: Path) -> str:
    """The error for a name without results."""
    from nodepert.report.experiment import find
    from nodepert.studies.results import studies

    if name in (known := names("experiment")):
        option = "" if out == Path("runs") else f" --out {out}"
        return f"no results of the experiment {name} in {out}; to run it: nodepert experiment {name}{option}"
    found = studies(out)
    there = [*found, *(one for one in known if one not in found and find(one, out))]
    hint = did_you_mean(name, [*found, *known])
    return f"no study or experiment '{name}' in {out}{hint}; there are: {', '.join(there) or 'none'}"
