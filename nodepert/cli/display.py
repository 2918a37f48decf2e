"""The console, and the table of results."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from nodepert.training.metrics import columns_of, diverged, final, main_ones, mean_error, metric_of, seconds, with_error

if TYPE_CHECKING:  # it imports JAX, which most commands do not need
    from nodepert.studies.result import Result

PIPE = 10_000  # columns without a terminal: each row is one line, and no cell is cut


class Terminal(Console):
    """A console that pads no lines in a pipe or a file."""

    def print(self, *objects: Any, **options: Any) -> None:
        if self.is_terminal:
            super().print(*objects, **options)
            return
        with self.capture() as captured:
            super().print(*objects, **options)
        self.file.write("".join(f"{line.rstrip()}\n" for line in captured.get().splitlines()))


console = Terminal(highlight=False, width=None if sys.stdout.isatty() else PIPE)


def results(labels: Sequence[str], found: Sequence[Result]) -> Table:
    """Metrics of the networks that runs result in, a row per label and learning rate: mean ± standard error of the runs
    that did not diverge.

    A narrow terminal shows only the main metrics, such as accuracies.
    """
    rows = [result.rows[-1] for result in found if result.rows]
    names = [name for name in columns_of(rows) if name != "epoch_time"]
    if console.width < 110:
        names = main_ones(names)
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("rule", overflow="fold")
    for column in ("lr", *(metric_of(name).heading for name in names), "s/epoch"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("status", no_wrap=True)
    groups: dict[tuple[str, float], list[Result]] = {}
    for label, result in zip(labels, found, strict=True):
        groups.setdefault((label, result.run.lr), []).append(result)
    for (label, lr), group in groups.items():
        last = [final(r.rows) for r in group if not diverged(r.rows[-1])]
        timed = [row["epoch_time"] for r in group for row in r.rows[1:] if "epoch_time" in row]
        cells = (mean([row[name] for row in last if name in row], metric_of(name).form) for name in names)
        statuses = Counter(result.status for result in group).items()
        status = ", ".join(f"{count} {status}" if len(group) > 1 else status for status, count in statuses)
        table.add_row(escape(label), f"{lr:.12g}", *cells, seconds(sum(timed) / len(timed)) if timed else "-", status)
    return table


def mean(values: Sequence[float], form: str) -> str:
    """The mean of several values with its standard error."""
    average, error = mean_error(values)
    return with_error(average if values else None, error if len(values) > 1 else None, form)
