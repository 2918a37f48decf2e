"""The command `nodepert experiment`; the options of each experiment are read from its class."""

from __future__ import annotations

import argparse
import inspect
import typing
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, make_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from docstring_parser import parse

from nodepert.cli.output import Output
from nodepert.registry import about, entry, names, resolve
from nodepert.registry.describe import parameters

Flat = tyro.conf.OmitArgPrefixes
Scale = Literal["smoke", "small", "paper"]  # as in experiments/, which this file imports late


@dataclass(frozen=True)
class Common:
    """Options of every experiment."""

    scale: Scale = "small"
    """smoke (seconds), small (minutes on two cores), paper (as published). Other options replace those of the scale."""
    out: Path = Path("runs/experiments")
    """Directory for NAME.csv, NAME.json, NAME.png and NAME.svg."""
    data_dir: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Directory of the data files. Default: NODEPERT_DATA_DIR, then the user's cache, then a download."""


def overview(name: tyro.conf.Positional[str] = "") -> None:
    """Run an experiment on learning rules: a table, a figure and findings. Without a name: list the experiments.

    Ctrl-C stops within seconds, and the same command resumes there; a complete experiment is drawn again.

    Example: nodepert experiment linesearch --scale small --out results

    Args:
        name: The experiment; 'nodepert experiment NAME --help' lists its options.
    """
    from rich.table import Table

    from nodepert.cli import display

    if name:
        entry("experiment", name)
    table = Table(box=None, show_header=False)
    for one in names("experiment"):
        table.add_row(f"[cyan]{one}[/cyan]", about("experiment", one))
    display.console.print(table)
    print("\nnodepert experiment NAME [--scale smoke|small|paper] [--out DIR]; NAME --help lists its options")


def command_of(name: str, arguments: Sequence[str]) -> Callable[..., None]:
    """`nodepert experiment NAME`, with the defaults of the scale in the arguments. Raises UserError."""
    doc = inspect.getdoc(resolve("experiment", name)) or ""
    from nodepert.experiments.experiment import options

    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    finder.add_argument("--scale", default="small", nargs="?")
    scale = finder.parse_known_args(arguments)[0].scale
    defaults = options(name, scale if scale in typing.get_args(Scale) else "small")  # tyro refuses another
    helps = {p.arg_name: p.description or "" for p in parse(doc).params}
    fields: list[Any] = [
        (option, Annotated[p.annotation, tyro.conf.arg(help=helps.get(option, ""))], field(default=defaults[option]))
        for option, p in parameters("experiment", name).items()
    ]
    chosen = make_dataclass("Options", fields, frozen=True)

    def experiment(own: Any, common: Flat[Common] = Common(), output: Flat[Output] = Output()) -> None:
        run(name, common, output, {key: value for key, value in asdict(own).items() if value != defaults[key]})

    experiment.__annotations__["own"] = Flat[chosen]
    experiment.__defaults__ = (chosen(), Common(), Output())
    experiment.__doc__ = f"{about('experiment', name)}\n\n{doc.partition('Args:')[0]}"
    return experiment


def run(name: str, common: Common, output: Output, given: dict[str, Any]) -> None:
    """Execute an experiment; print a line for each part, then the findings."""
    import os

    from rich.markup import escape

    from nodepert.cli import display, experiment_view
    from nodepert.experiments.execute import execute
    from nodepert.studies.stopping import STOPPING, Stopping, after_epoch
    from nodepert.training import devices

    devices.start(os.cpu_count() or 1)
    view = experiment_view.View(name)
    stopping = Stopping(after_epoch(display.console.print, STOPPING.replace("epoch", "step")))
    with output.working(), experiment_view.shown(view), stopping.listening():
        outcome = execute(name, common.scale, out=common.out, data_dir=common.data_dir, on_part=view.on_part,
                          on_steps=view.on_steps, stop=stopping, **given)  # fmt: skip

    def text() -> None:
        for finding in outcome.findings:
            verdict = "[green]yes[/green]" if finding.holds else "[red]not seen at this scale[/red]"
            display.console.print(f"{verdict}: {escape(finding.says)}", soft_wrap=True)
        print(f"rows: {outcome.table}\nfigure: {outcome.figure} (and .svg)")

    findings = [finding._asdict() for finding in outcome.findings]
    output.show(text, lambda: {"experiment": name, "scale": common.scale} | outcome._asdict() | {"findings": findings})
