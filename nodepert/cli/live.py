"""Progress on a terminal: a line per run with its learning curve, the speed, the time left."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from nodepert.cli.display import console
from nodepert.cli.pace import Pace
from nodepert.studies.callbacks import Callback, PrintRows, StateOf
from nodepert.studies.run import Run
from nodepert.studies.store.run_folder import has_result
from nodepert.training.metrics import Row, metric_of, score_of

BARS, PLAIN = "▁▂▃▄▅▆▇█", "_.-=+*#@"
WIDTH, LINES = 16, 14  # characters of a curve; lines of runs on a terminal
ORDER = {"running": 0, "failed": 1, "interrupted": 2, "": 3}  # unfinished ones first


class Line(NamedTuple):
    """A run on the terminal."""

    label: str
    curve: Sequence[float]  # the score of each epoch
    epoch: int
    epochs: int
    status: str  # "" before it starts
    score: str = "test_acc"  # the metric of the curve


def sparkline(values: Sequence[float], low: float, high: float, width: int = WIDTH, bars: str = BARS) -> str:
    """Values as a row of bars from low to high, at most `width` (each the last value of its interval); ? for nan."""
    n = len(values)
    shown = values if n <= width else [values[(k + 1) * n // width - 1] for k in range(width)]
    return "".join("?" if not math.isfinite(v) else bars[level(v, low, high, len(bars))] for v in shown)


def level(value: float, low: float, high: float, levels: int) -> int:
    """The level of a value, 0 to levels - 1."""
    return min(levels - 1, max(0, int((value - low) / (high - low) * levels))) if high > low else 0


def replicas(lines: Sequence[Line]) -> Table:
    """A table of runs, running ones first; all curves of one metric share one scale, from its lowest to its highest
    value."""
    scales = {name: scale(name, lines) for name in dict.fromkeys(line.score for line in lines)}
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("run", overflow="ellipsis", no_wrap=True, ratio=1)
    texts = ", ".join(text for _, _, text in scales.values() if text)
    table.add_column(texts, no_wrap=True, min_width=WIDTH, style="cyan")
    for heading in (", ".join(metric_of(name).heading for name in scales), "epoch", ""):
        table.add_column(heading, justify="right", no_wrap=True)
    order = sorted(lines, key=lambda line: ORDER.get(line.status, 4))
    bars = BARS if console.encoding.startswith("utf") else PLAIN
    for line in order[:LINES]:
        low, high, _ = scales[line.score]
        last = f"{line.curve[-1]:{form_of(line.score)}}" if line.curve else ""
        table.add_row(escape(line.label), sparkline(line.curve, low, high, bars=bars), last,
                      f"{line.epoch}/{line.epochs}" if line.status else "", line.status or "waiting")  # fmt: skip
    if len(order) > LINES:
        table.add_row(f"and {len(order) - LINES:,} more", "", "", "", "")
    return table


def scale(name: str, lines: Sequence[Line]) -> tuple[float, float, str]:
    """The lowest and the highest value of a metric in these curves, and both as a text."""
    metric = metric_of(name)
    values = [max(v, metric.lowest) for line in lines if line.score == name for v in line.curve if math.isfinite(v)]
    low, high = min(values, default=0.0), max(values, default=1.0)
    return (
        low,
        high,
        (f"{low:.0f} to {high:.0f}%" if metric.unit == "%" else f"{low:.2f} to {high:.2f}") if values else "",
    )


def form_of(name: str) -> str:
    return ".1f" if metric_of(name).unit == "%" else metric_of(name).form


@contextmanager
def drawn(lines: Callable[[], Sequence[Line]] | None, footer: Callable[[float], Iterable[str]]) -> Iterator[None]:
    """Draw runs, if any, and a footer, four times a second, within the context.

    `footer` is called with the seconds so far.
    """
    start, spinner = time.monotonic(), Spinner("dots")

    def picture() -> Any:
        spinner.update(text=Text(", ".join(footer(time.monotonic() - start))))
        return Group(replicas(lines()), spinner) if lines else spinner

    with Live(get_renderable=picture, console=console, refresh_per_second=4, transient=True):
        yield


@contextmanager
def progress(named: dict[Run, str]) -> Iterator[Callback]:
    """Learning curves on a terminal, elsewhere a line per run and epoch. `named`: {run: label}."""
    if not console.is_terminal:
        yield PrintRows(named)
        return
    board = Board(named)
    with drawn(board.lines, board.footer):
        yield board


class Board(Callback):
    """The state of the runs, from their callbacks."""

    def __init__(self, named: dict[Run, str], clock: Callable[[], float] = time.monotonic):
        self.named, self.clock = named, clock
        self.curves: dict[Run, list[float]] = {run: [] for run in named}
        self.scores = dict.fromkeys(named, score_of(()))
        self.statuses = dict.fromkeys(named, "")
        self.pace = Pace({run: run.epochs for run in named})
        self.evaluation: dict[Run, float] = {}  # seconds
        self.compiling = True

    def on_begin(self, run: Run, folder: Path | None) -> None:
        self.statuses[run] = "running"
        self.compiling = True

    def on_epoch(self, run: Run, row: Row, state: StateOf) -> None:
        self.scores[run] = score_of(row)
        self.curves[run].append(row.get(self.scores[run], math.nan))
        left, now = run.epochs - row["epoch"], self.clock()
        if state.read_back:
            self.pace.expected(run, left, row.get("epoch_time", 0.0), now)
            return
        self.compiling = False
        if row["epoch"]:
            self.pace.trained(run, left, row.get("epoch_time", 0.0), now)
        else:
            self.evaluation[run] = state.seconds

    def on_batches(self, run: Run, done: int, of: int, seconds: float) -> None:
        whole = seconds * of / done + self.evaluation.get(run, 0.0)
        self.pace.under_way(run, seconds / whole, whole, self.clock())

    def on_end(self, run: Run, status: str) -> None:
        self.statuses[run] = status
        self.pace.ended(run)
        self.compiling &= "running" in self.statuses.values()

    def lines(self) -> list[Line]:
        return [Line(label, self.curves[run], max(0, len(self.curves[run]) - 1), run.epochs, self.statuses[run],
                     self.scores[run]) for run, label in self.named.items()]  # fmt: skip

    def footer(self, seconds: float) -> list[str]:
        statuses = list(self.statuses.values())
        ended = sum(map(has_result, statuses))
        running = None if self.compiling else [run for run, status in self.statuses.items() if status == "running"]
        parts = [f"{ended}/{len(statuses)} runs"] if len(statuses) > 1 and any(self.curves.values()) else []
        parts += ["compiling"] * (self.compiling and ended < len(statuses))
        if self.compiling and not any(self.curves.values()) and seconds <= 3:
            return parts
        return [*parts, self.pace.text(seconds, self.clock(), running)]
