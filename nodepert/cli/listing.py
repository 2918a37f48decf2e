"""The commands `nodepert list` and `nodepert data`: what is registered, and which data sets are on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import tyro

from nodepert.cli.options import Flat
from nodepert.cli.output import Output
from nodepert.errors import UserError
from nodepert.registry import about, check, facts, names, plural, usage
from nodepert.registry.catalogue import BUILT_IN
from nodepert.training.metrics import METRICS, SAMPLED


def listing(
    kinds: tyro.conf.Positional[
        tuple[
            Literal[
                "rules",
                "guides",
                "networks",
                "losses",
                "datasets",
                "optimizers",
                "experiments",
                "trackers",
                "launchers",
                "metrics",
            ],
            ...,
        ]
    ] = (),
    output: Flat[Output] = Output(),
) -> None:
    """List the registered rules, networks, data sets, ..., with their arguments, and the metrics of --metrics.

    Example: nodepert list rules optimizers

    Args:
        kinds: Kinds to list; all by default.
        output: What is printed. With --quiet the names alone.
    """
    kinds_of = {plural(kind): kind for kind in BUILT_IN} | {"metrics": "metrics"}
    chosen = {title: entries(kind) for title, kind in kinds_of.items() if not kinds or title in kinds}

    def text() -> None:
        if output.quiet:
            print("\n".join(name for found in chosen.values() for name in found))
        else:
            print_tables(chosen)

    output.show(text, lambda: chosen)


def print_tables(chosen: Mapping[str, Mapping[str, Mapping[str, str]]]) -> None:
    """A table for each kind."""
    from rich.markup import escape
    from rich.table import Table

    from nodepert.cli import display

    for title, found in chosen.items():
        table = Table(title=title, title_justify="left", title_style="bold", box=None, show_header=False)
        table.add_column(no_wrap=True, style="cyan")
        table.add_column()
        for name, facts_there in found.items():
            about, arguments, *more = facts_there.items()
            lines = [arguments[1]] * bool(arguments[1]) + [f"{label}: {text}" for label, text in more]
            table.add_row(name, escape(about[1]) + "".join(f"\n[dim]{escape(line)}[/dim]" for line in lines))
        display.console.print(table)


def entries(kind: str) -> dict[str, dict[str, str]]:
    """What is registered of a kind; the metrics that `--metrics` adds."""
    if kind != "metrics":
        return {name: facts_of(kind, name) for name in names(kind)}
    return {
        name: {"about": f"{metric.label[0].upper()}{metric.label[1:]}{', also per node' * bool(metric.update)}.",
               "arguments": ""}
        | ({"Cost": f"{metric.cost}, in about {SAMPLED} updates per epoch"} if metric.cost else {})
        for name, metric in METRICS.items() if metric.on_request
    }  # fmt: skip


def facts_of(kind: str, name: str) -> dict[str, str]:
    """A sentence, the arguments, and a rule's cost, bias and use of the loss's derivative."""
    try:
        stated = facts(kind, name) if kind == "rule" else {}
        return {"about": about(kind, name), "arguments": usage(kind, name), **stated}
    except UserError as error:  # a plug-in that cannot be imported
        return {"about": str(error), "arguments": ""}


def data(
    action: tyro.conf.Positional[Literal["status", "fetch"]] = "status",
    names: tyro.conf.Positional[tuple[str, ...]] = (),
    data_dir: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None,
    output: Flat[Output] = Output(),
) -> None:
    """Show which data sets are on this machine, or download them.

    Example: nodepert data fetch mnist fmnist

    Args:
        action: status or fetch.
        names: Data sets; status: all by default, fetch: at least one.
        data_dir: Folder with data files; default: NODEPERT_DATA_DIR, then the user's cache.
        output: What is printed.
    """
    from rich.table import Table

    from nodepert.cli import display
    from nodepert.data import load_dataset, status

    if action == "fetch" and not names:
        raise UserError("fetch needs the name of a data set, as in: nodepert data fetch mnist")
    for name in names:
        check("dataset", name)
    if action == "fetch":
        fetched = {}
        for name in names:
            with output.working():
                data = load_dataset(name, data_dir)
                fetched[name] = {"train": len(data.train_y), "test": len(data.test_y), "source": data.source}
                print(f"{name}: {len(data.train_y):,} + {len(data.test_y):,} examples, from {data.source}")
        output.show(lambda: None, lambda: fetched)
        return
    found = [one for one in status(data_dir and str(data_dir)) if not names or one[0] in names]
    table = Table(box=None, show_header=False)
    for name, here, where in found:
        table.add_row(name, "[green]here[/green]" if here else "[yellow]not here[/yellow]", where)
    output.show(
        lambda: display.console.print(table),
        lambda: {name: {"here": bool(here), "where": where} for name, here, where in found},
    )
