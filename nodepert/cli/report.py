"""The command `nodepert report`: what a study found, as one file to read, send or print."""

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
    """Write a report of a study: a table with a line per group of runs that differ in seed only, learning curves, heat
    maps where two numbers vary, the commands and versions. Or of an experiment: its findings, figure and rows.

    HTML is one file that needs no network. Markdown has the table, for LaTeX as well.

    Example: nodepert report weight-decay --to weight-decay.html

    Args:
        name: The study (runs in OUT/NAME), or an experiment (OUT/NAME.json or OUT/experiments/NAME.json).
        out: Folder of all results.
        to: The file, .html or .md, in a folder that is there; else OUT/NAME/report.html, or NAME.html beside an
            experiment.
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
        plotly_js()  # missing is told before anything is read
    study = run_folders(out / name)
    record = None if study else experiment.find(name, out)  # beside it there may be a folder of its name
    if record:
        found = experiment.gather_experiment(record)
        path = to or record.with_suffix(".html")
        text = (experiment.markdown_of_experiment if as_text else experiment.html_of_experiment)(found)
        said = f"{len(found['rows']):,} rows of {name}, {len(found['findings'])} findings"
    elif study:
        data = gather(name, out)
        path = to or out / name / "report.html"
        text = (markdown if as_text else html)(data)
        count, groups = sum(data["statuses"].values()), len(data["groups"])
        said = f"{count:,} run{'s' * (count > 1)} in {groups:,} group{'s' * (groups > 1)}"
    else:
        raise UserError(missing(name, out))
    write_whole(path, text)
    print(f"{path}: {said}")


def missing(name: str, out: Path) -> str:
    """What to do where neither a study nor an experiment of this name has left anything."""
    from nodepert.report.experiment import find
    from nodepert.studies.results import studies

    if name in (known := names("experiment")):
        place = "" if out == Path("runs") else f" --out {out}"
        return f"the experiment {name} has left nothing in {out}; to conduct it: nodepert experiment {name}{place}"
    own = studies(out)
    there = [*own, *(one for one in known if one not in own and find(one, out))]
    hint = did_you_mean(name, [*own, *known])
    return f"no study or experiment '{name}' in {out}{hint}; there are: {', '.join(there) or 'none'}"
