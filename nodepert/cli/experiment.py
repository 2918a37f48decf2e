"""The command `nodepert experiment`: each experiment's options are read from its factory."""

from __future__ import annotations

import argparse
import inspect
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, make_dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from docstring_parser import parse

from nodepert.registry import about, check, names, resolve

Flat = tyro.conf.OmitArgPrefixes
SCALES = typing.Literal["smoke", "small", "paper"]


@dataclass(frozen=True)
class Place:
    """Where data come from and results go."""

    scale: SCALES = "small"
    """smoke (seconds), small (minutes on two cores), paper (as published); options given beside it go before."""
    out: Path = Path("runs/experiments")
    """Folder for NAME.csv, NAME.json, NAME.png and NAME.svg."""
    data_dir: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder that holds the data files; else NODEPERT_DATA_DIR, the user's cache, then a download."""


def overview(name: tyro.conf.Positional[str] = "") -> None:
    """Put a question to learning rules: a table, figures, and what they show. Alone: list the experiments.

    An experiment that was interrupted goes on where it was; one that is complete is drawn again.

    Example: nodepert experiment linesearch --scale small --out results

    Args:
        name: The experiment; 'nodepert experiment NAME --help' lists its options.
    """
    from rich.table import Table

    from nodepert.cli import display

    if name:
        check("experiment", name)
    table = Table(box=None, show_header=False)
    for one in names("experiment"):
        table.add_row(f"[cyan]{one}[/cyan]", about("experiment", one))
    display.console.print(table)
    print("\nnodepert experiment NAME [--scale smoke|small|paper] [--out DIR]; NAME --help lists its options")


def command_of(name: str, arguments: Sequence[str]) -> Callable[..., None]:
    """`nodepert experiment NAME`, with the defaults of the scale that the arguments ask for."""
    from nodepert.experiments.experiment import options

    factory = resolve("experiment", check("experiment", name).name)
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    finder.add_argument("--scale", default="small", nargs="?")
    scale = finder.parse_known_args(arguments)[0].scale
    own = options(name, scale if scale in typing.get_args(SCALES) else "small")  # another is refused below
    told = parse(inspect.getdoc(factory) or "")
    helps = {p.arg_name: p.description or "" for p in told.params}
    hints = typing.get_type_hints(factory)
    made: list[Any] = [
        (p.name, Annotated[hints[p.name], tyro.conf.arg(help=helps.get(p.name, ""))],
         field(default=own[p.name]))
        for p in inspect.signature(factory).parameters.values() if p.kind is p.KEYWORD_ONLY
    ]  # fmt: skip
    options_of = make_dataclass("Options", made, frozen=True)

    def experiment(question: Any, place: Flat[Place] = Place()) -> None:
        given = {f.name: getattr(question, f.name) for f in fields(question)}
        carry_out(name, place, {k: v for k, v in given.items() if v != own[k]})

    experiment.__annotations__["question"] = Flat[options_of]
    experiment.__defaults__ = (options_of(), Place())
    experiment.__doc__ = f"{about('experiment', name)}\n\n{(inspect.getdoc(factory) or '').partition('Args:')[0]}"
    return experiment


def carry_out(name: str, place: Place, given: dict[str, Any]) -> None:
    """Conduct it, with a line for each part, and say what came of it."""
    import os

    from rich.markup import escape

    from nodepert.cli import display
    from nodepert.experiments.execute import conduct
    from nodepert.training import devices

    devices.start(os.cpu_count() or 1)

    def on_part(i: int, of: int, part: dict[str, Any], seconds: float | None) -> None:
        said = ", ".join(f"{key} {value}" for key, value in part.items()) or name
        print(f"[{i}/{of}] {said}: {'kept' if seconds is None else f'{seconds:.1f} s'}", flush=True)

    found = conduct(name, place.scale, out=place.out, data_dir=place.data_dir, on_part=on_part, **given)
    for finding in found.findings:
        mark = "[green]yes[/green]" if finding.holds else "[red]NO [/red]"
        display.console.print(f"{mark} {escape(finding.says)}", soft_wrap=True)
    if not all(finding.holds for finding in found.findings):
        print(f"NO marks what was not found here{'; at --scale smoke that is usual' * (place.scale == 'smoke')}")
    print(f"rows: {found.table}\nfigure: {found.figure} (and .svg)")
