"""The commands `nodepert list` and `nodepert data`: what is registered, and which data sets are on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro

from nodepert.errors import UserError
from nodepert.registry import about, check, facts, names, plural, usage
from nodepert.registry.catalogue import BUILT_IN


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
            ],
            ...,
        ]
    ] = (),
) -> None:
    """List the registered rules, networks, data sets, ..., with their arguments.

    Example: nodepert list rules optimizers

    Args:
        kinds: Kinds to list; all by default.
    """
    from rich.markup import escape
    from rich.table import Table

    from nodepert.cli import display

    for kind in BUILT_IN:
        if kinds and plural(kind) not in kinds:
            continue
        table = Table(title=plural(kind), title_justify="left", title_style="bold", box=None, show_header=False)
        table.add_column(no_wrap=True, style="cyan")
        table.add_column()
        for name in names(kind):
            about, *more = described(kind, name)
            table.add_row(name, escape(about) + "".join(f"\n[dim]{escape(line)}[/dim]" for line in more))
        display.console.print(table)


def described(kind: str, name: str) -> list[str]:
    """A sentence, the arguments, and a rule's cost, bias and use of the loss's derivative."""
    try:
        stated = [f"{label}: {text}" for label, text in facts(kind, name).items() if kind == "rule"]
        return [about(kind, name), *([takes] if (takes := usage(kind, name)) else []), *stated]
    except UserError as error:  # a plug-in that cannot be imported
        return [str(error)]


def data(
    action: tyro.conf.Positional[Literal["status", "fetch"]] = "status",
    names: tyro.conf.Positional[tuple[str, ...]] = (),
    data_dir: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None,
) -> None:
    """Show which data sets are on this machine, or download them.

    Example: nodepert data fetch mnist fmnist

    Args:
        action: status or fetch.
        names: Data sets; status: all by default, fetch: at least one.
        data_dir: Folder with data files; default: NODEPERT_DATA_DIR, then the user's cache.
    """
    from rich.table import Table

    from nodepert.cli import display
    from nodepert.data import load_dataset, status

    if action == "fetch" and not names:
        raise UserError("fetch needs the name of a data set, as in: nodepert data fetch mnist")
    for name in names:
        check("dataset", name)
    for name in names:
        loaded = load_dataset(name, data_dir) if action == "fetch" else None
        if loaded:
            print(f"{name}: {len(loaded.train_y):,} + {len(loaded.test_y):,} examples, from {loaded.source}")
    if action == "status":
        table = Table(box=None, show_header=False)
        for name, found, where in status(data_dir and str(data_dir)):
            if not names or name in names:
                table.add_row(name, "[green]here[/green]" if found else "[yellow]not here[/yellow]", where)
        display.console.print(table)
