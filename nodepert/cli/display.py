"""The terminal: the console, and the table of results."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from nodepert.training.metrics import columns_of, diverged, mean_error, metric_of, seconds

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


def between(values: Sequence[float]) -> str:
    """The range of several accuracies."""
    low, high = f"{min(values):.1f}", f"{max(values):.1f}"
    return f"{low}%" if low == high else f"{low}-{high}%"


def results(labels: Sequence[str], found: Sequence[Result]) -> Table:
    """Final metrics, a line per label and learning rate: mean and standard error of the runs that did not diverge.

    Losses and further metrics where there is room.
    """
    rows = [result.rows[-1] for result in found if result.rows]
    names = [name for name in columns_of(rows) if name != "epoch_time"]
    if console.width < 110:
        names = [name for name in names if metric_of(name).unit == "%"]
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("rule", overflow="fold")
    for column in ("lr", *(metric_of(name).heading for name in names), "s/epoch"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("status", no_wrap=True)
    groups: dict[tuple[str, float], list[Result]] = {}
    for label, result in zip(labels, found, strict=True):
        groups.setdefault((label, result.run.lr), []).append(result)
    for (label, lr), group in groups.items():
        last = [r.rows[-1] for r in group if not diverged(r.rows[-1])]  # the status says how many did
        timed = [row["epoch_time"] for r in group for row in r.rows[1:]]
        cells = (mean([row[name] for row in last if name in row], metric_of(name).form) for name in names)
        statuses = Counter(result.status for result in group).items()
        said = ", ".join(f"{count} {status}" if len(group) > 1 else status for status, count in statuses)
        table.add_row(escape(label), f"{lr:.12g}", *cells, seconds(sum(timed) / len(timed)) if timed else "-", said)
    return table


def mean(values: Sequence[float], form: str) -> str:
    """The mean of several values with its standard error; a dash where there is none."""
    if not values:
        return "-"
    average, error = mean_error(values)
    return f"{average:{form}}" + (f" ± {error:.2g}" if len(values) > 1 else "")
