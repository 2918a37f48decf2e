"""What the terminal shows: progress while a run trains, tables afterwards."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from nodepert.studies.callbacks import Callback, StateOf
from nodepert.studies.run import Run
from nodepert.training.metrics import Row, diverged, mean_error

if TYPE_CHECKING:  # the runner imports JAX, and a list of names needs none
    from nodepert.studies.train import Result

PIPE = 10_000  # columns where there is no terminal: a row is a line, and no cell is cut


class Terminal(Console):
    """A console whose lines end where their text does, so that a pipe or a file gets no padding."""

    def print(self, *objects: Any, **options: Any) -> None:
        if self.is_terminal:
            super().print(*objects, **options)
            return
        with self.capture() as captured:
            super().print(*objects, **options)
        self.file.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))

    def on_broken_pipe(self) -> None:
        """Leave it to the command, which ends as all do; rich would exit with status 1."""
        raise


console = Terminal(highlight=False, width=None if sys.stdout.isatty() else PIPE)


class Lines(Callback):
    """A line per run and epoch."""

    def __init__(self, named: dict[Run, str]):
        self.named = named

    def on_epoch(self, run: Run, row: Row, state: StateOf) -> None:
        print(f"{self.named[run]}  {summary(row)}", flush=True)


def between(values: Sequence[float]) -> str:
    """The range of several accuracies."""
    low, high = f"{min(values):.1f}", f"{max(values):.1f}"
    return f"{low}%" if low == high else f"{low}-{high}%"


def summary(row: Row) -> str:
    """One epoch in one line."""
    return (
        f"epoch {row['epoch']:3d}  train {row['train_acc']:5.1f}%  test {row['test_acc']:5.1f}%  "
        f"loss {row['train_loss']:.4g} / {row['test_loss']:.4g}  {seconds(row['epoch_time'])} s"
    )


def seconds(value: float) -> str:
    """Seconds with three digits that count."""
    return f"{value:.3g}" if value < 999.5 else f"{value:.0f}"


def results(labels: Sequence[str], found: Sequence[Result]) -> Table:
    """Final figures, one line per label and learning rate, mean and standard error of its runs that did not diverge;
    the losses where there is room."""
    quantities = {"train %": "train_acc", "test %": "test_acc", "train loss": "train_loss", "test loss": "test_loss"}
    shown = list(quantities)[: None if console.width >= 110 else 2]
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("rule", overflow="fold")
    for column in ("lr", *shown, "s/epoch"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("status", no_wrap=True)
    groups: dict[tuple[str, float], list[Result]] = {}
    for label, result in zip(labels, found, strict=True):
        groups.setdefault((label, result.run.lr), []).append(result)
    for (label, lr), group in groups.items():
        last = [r.rows[-1] for r in group if not diverged(r.rows[-1])]  # the status says how many did
        timed = [row["epoch_time"] for r in group for row in r.rows[1:]]
        figures = (mean([row[quantities[name]] for row in last], ".2f" if "%" in name else ".4g") for name in shown)
        statuses = Counter(result.status for result in group).items()
        said = ", ".join(f"{count} {status}" if len(group) > 1 else status for status, count in statuses)
        table.add_row(escape(label), f"{lr:.12g}", *figures, seconds(sum(timed) / len(timed)) if timed else "-", said)
    return table


def mean(values: Sequence[float], form: str) -> str:
    """The mean of several values with its standard error; a dash where there is none."""
    if not values:
        return "-"
    average, error = mean_error(values)
    return f"{average:{form}}" + (f" ± {error:.2g}" if len(values) > 1 else "")
