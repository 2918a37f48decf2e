"""What the terminal shows: progress while a run trains, tables afterwards."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from nodepert.runner import OnRow, Result

console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)  # no folded rows in a pipe


@contextmanager
def progress(label: str, epochs: int) -> Iterator[OnRow]:
    """A bar with the accuracy so far on a terminal; one plain line per epoch elsewhere. Yields `on_row`."""
    if not console.is_terminal:
        yield lambda row: print(f"{label}  {summary(row)}", flush=True)
        return
    console.print(escape(label))
    figures = TextColumn("{task.fields[row]}")
    columns = SpinnerColumn(), BarColumn(bar_width=16), MofNCompleteColumn(), TimeElapsedColumn(), figures
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=epochs, row="compiling")

        def on_row(row):
            bar.update(task, completed=row["epoch"], row=f"train {row['train_acc']:.1f}%  test {row['test_acc']:.1f}%")

        yield on_row


def summary(row: dict) -> str:
    """One epoch in one line."""
    return (
        f"epoch {row['epoch']:3d}  train {row['train_acc']:5.1f}%  test {row['test_acc']:5.1f}%  "
        f"loss {row['train_loss']:.4g} / {row['test_loss']:.4g}  {row['epoch_time']:.2f} s"
    )


def results(runs: dict[str, Result]) -> Table:
    """Final figures, one line per run; the losses only where the terminal is wide enough."""
    quantities = {"train %": "train_acc", "test %": "test_acc", "train loss": "train_loss", "test loss": "test_loss"}
    shown = list(quantities)[: None if console.width >= 110 else 2]
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("rule", overflow="fold")
    for column in ("lr", *shown, "s/epoch"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("status", no_wrap=True)
    for label, result in runs.items():
        last, timed = result.rows[-1], [row["epoch_time"] for row in result.rows[1:]]
        figures = (f"{last[quantities[name]]:{'.2f' if '%' in name else '.4g'}}" for name in shown)
        seconds = f"{sum(timed) / len(timed):.2f}" if timed else "-"
        table.add_row(escape(label), f"{result.run.lr:g}", *figures, seconds, result.status)
    return table
