"""The command `nodepert runs`: saved runs compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from nodepert.cli.options import Flat
from nodepert.cli.output import Output
from nodepert.cli.parser import Words
from nodepert.errors import UserError
from nodepert.registry.spec import Spec
from nodepert.studies import filters
from nodepert.studies.results import (
    OPTIONS,
    SPECS,
    SavedRun,
    differing,
    known,
    options_of,
    saved_runs,
)
from nodepert.training.metrics import columns_of, final, main_ones, metric_of, scores

if TYPE_CHECKING:
    from rich.table import Table

STATUSES = ("finished", "stopped", "diverged", "failed", "running", "interrupted")
COLOURS = {"finished": "green", "stopped": "green", "diverged": "yellow", "failed": "red", "running": "cyan"}
REASONS = 5  # shown, of failed runs


def runs(
    names: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="[NAME ...]")] = (),
    out: Path = Path("runs"),
    where: Annotated[tyro.conf.UseAppendAction[tuple[Words, ...]], tyro.conf.arg(metavar="OPTION=VALUE ...")] = (),
    status: Annotated[str | None, tyro.conf.arg(metavar="WORD")] = None,
    best: Annotated[int | None, tyro.conf.arg(metavar="N")] = None,
    sort: Annotated[str | None, tyro.conf.arg(metavar="COLUMN")] = None,
    output: Flat[Output] = Output(),
) -> None:
    """Compare the runs of studies: status, the options in which they differ, the metrics of the last epoch.

    Without a name and without a selection: list all studies.

    Example: nodepert runs rates --where rule=np lr=1e-3 lr=1e-2 --best 5

    Args:
        names: Studies.
        out: Directory of all results.
        where: Only runs with these values. rule=np is np with any arguments, 'rule=np(samples=4)' just that one,
            network.width=100 one argument; for an option given twice, either value.
        status: Only runs with this status: finished, diverged, failed, running or interrupted.
        best: Only the N runs with the highest test accuracy (R2 of values, F1 of several labels), best first.
        sort: Sort by an option, an argument, status, epoch, test_acc, ... (metrics from the best).
        output: What is printed. With --json the runs, also of all studies.
    """
    from nodepert.cli.display import console

    found = saved_runs(names or None, out)
    conditions = [condition for group in where for condition in group]
    if not found:
        raise UserError(no_run(names, out))
    if not names and not conditions and (status, best, sort) == (None, None, None):
        output.show(lambda: console.print(overview(found)), lambda: list(map(summary, found)))
        return
    found = filters.where(found, conditions)
    found = found if status is None else filters.of_status(found, status)
    found = found if best is None else filters.best(found, best)
    found = found if sort is None else filters.ordered(found, sort)
    output.show(lambda: print_runs(found, brief=output.quiet), lambda: list(map(summary, found)))


def summary(run: SavedRun) -> dict[str, Any]:
    """A run for JSON: its last row as metrics."""
    own = {name: getattr(run, name) for name in ("study", "id", "status", "reason", "options", "arguments")}
    return own | {"metrics": run.rows[-1] if run.rows else {}}


def no_run(names: Sequence[str], out: Path) -> str:
    """The error if no run is readable."""
    from nodepert.studies.results import run_folders, studies

    if not (count := sum(len(run_folders(out / name)) for name in names or studies(out))):
        return f"no readable run in {out}; nodepert train puts them into OUT/NAME/ID/"
    records = "the only record cannot" if count == 1 else f"none of {count:,} records can"
    return f"no readable run in {', '.join(str(out / name) for name in names) or out}: {records} be read"


def print_runs(found: Sequence[SavedRun], brief: bool = False) -> None:
    """Print the options that these runs share, a row for each run, the counts by status, the reasons of failures; if
    `brief`, the rows alone."""
    from rich.markup import escape

    from nodepert.cli.display import console

    columns = compared(found)
    if not brief and (shared := common(found, columns)):
        console.print(f"[dim]{escape(shared)}[/dim]", soft_wrap=not console.is_terminal)
    console.print(fitted_table(found, columns), crop=False)
    if brief:
        return
    counts = Counter(map(filters.status_word, found))
    print(f"{len(found):,} run{'s' * (len(found) > 1)}: {', '.join(f'{counts[s]:,} {s}' for s in statuses(found))}")
    for reason, count in Counter(run.reason for run in found if run.reason).most_common(REASONS):
        console.print(f"{count:,} failed: {escape(reason)}", soft_wrap=not console.is_terminal)


def fitted_table(found: Sequence[SavedRun], columns: Sequence[str]) -> Table:
    """The table of these runs in the width of the terminal: without losses if need be, then with broken headings, then
    with broken specs; else it is wider."""
    from rich.measure import Measurement

    from nodepert.cli.display import console

    cells = {column: [cell(run, column) for run in found] for column in columns}
    broken = [column.replace(".", ".\n") for column in columns]
    texts = sorted((c for c in columns if c in SPECS), key=lambda c: max(map(len, cells[c])), reverse=True)
    metrics = [name for name in columns_of(run.rows[-1] for run in found if run.rows) if name != "epoch_time"]
    shares = main_ones(metrics)
    attempts = [(columns, metrics, 0), (columns, shares, 0), *((broken, shares, n) for n in range(len(texts) + 1))]
    for headers, measured, count in attempts:
        table = runs_table(found, cells, headers, measured, texts[:count])
        width = Measurement.get(console, console.options.update(width=100_000), table).maximum
        if width <= console.width:
            return table
    table.width = width
    return table


def overview(found: Sequence[SavedRun]) -> Table:
    """A row per study."""
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("study", overflow="fold")
    there = scores(filters.metrics_of(found))
    for column in ("runs", *(shown := statuses(found)), *(f"best {metric_of(name).heading}" for name in there)):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("last changed", no_wrap=True)
    for study in dict.fromkeys(run.study for run in found):
        own = [run for run in found if run.study == study]
        counts = Counter(map(filters.status_word, own))
        best = (number(name, max(filters.values(own, name), default=None)) for name in there)
        changed = datetime.fromtimestamp(max(run.changed for run in own)).isoformat(" ", "minutes")
        table.add_row(study, f"{len(own):,}", *(f"{counts[word]:,}" for word in shown), *best, changed)
    return table


def statuses(found: Sequence[SavedRun]) -> list[str]:
    """The statuses of these runs, in the order of STATUSES."""
    there = {filters.status_word(run) for run in found}
    return [status for status in STATUSES if status in there] + sorted(there - {*STATUSES})


def compared(found: Sequence[SavedRun]) -> list[str]:
    """The columns in which these runs differ: an option, or its arguments if all specs have the same name."""
    columns: list[str] = ["study"] if len({run.study for run in found}) > 1 else []
    arguments = differing(found)
    for name in OPTIONS:
        if len({repr(run.options[name]) for run in found}) == 1:
            continue
        alike = name in SPECS and len({known(name, run.options[name]).names for run in found}) == 1
        own = [key for key in arguments if key.startswith(f"{name}.")] if alike else []
        distinct = {tuple(cell(run, key) for key in own) for run in found}
        columns += own if len(distinct) == len({run.options[name] for run in found}) else [name]
    return columns


def common(found: Sequence[SavedRun], columns: Sequence[str]) -> str:
    """The options that all runs share: 'mnist5k, fc(depth=3), mse, adam, wd=0.0, ...'."""
    texts: list[str] = []
    for name in options_of(found):
        value = found[0].options[name]
        if name in SPECS and name not in columns:
            apart = {key.removeprefix(f"{name}.") for key in columns if key.startswith(f"{name}.")}
            texts.append(str(without(known(name, value).short, apart)))
        elif name not in columns:
            texts.append(f"{name}={value}")
    return ", ".join(texts)


def without(spec: Spec, apart: set[str]) -> Spec:
    """A spec without some of its arguments."""

    def inside(value: Any) -> Any:
        return without(value, apart) if isinstance(value, Spec) else value

    left = tuple((key, inside(value)) for key, value in spec.kwargs if key not in apart)
    return Spec(spec.name, tuple(map(inside, spec.args)), left)


def runs_table(
    found: Sequence[SavedRun], cells: Mapping[str, Sequence[str]], headers: Sequence[str], metrics: Sequence[str],
    narrow: Sequence[str],
) -> Table:  # fmt: skip
    """A row per run; columns in `narrow` are as wide as their longest word."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("id", "status", "epoch"):
        table.add_column(column, justify="right" if column == "epoch" else "left", no_wrap=True)
    for column, header in zip(cells, headers, strict=True):
        width = max(len(word) for text in [header, *cells[column]] for word in text.split() or [""])
        table.add_column(escape(header), justify="left" if column in (*SPECS, "study") else "right",
                         width=width if column in narrow else None, no_wrap=column not in narrow)  # fmt: skip
    for name in metrics:
        table.add_column(metric_of(name).heading, justify="right", no_wrap=True)
    for i, run in enumerate(found):
        result, status = final(run.rows), filters.status_word(run)
        colour = COLOURS.get(status, "yellow")
        done = f"{len(run.rows) - 1 if run.rows else '-'}/{run.options['epochs']}"
        values = [number(name, result.get(name)) for name in metrics]
        table.add_row(escape(run.id), f"[{colour}]{escape(status)}[/{colour}]", done,
                      *(escape(texts[i]) for texts in cells.values()), *values)  # fmt: skip
    return table


def cell(run: SavedRun, column: str) -> str:
    """An option or an argument as in a condition of --where; empty if the run has none."""
    value = filters.value(run, column)
    return "" if value is None else filters.written(value)


def number(name: str, value: float | None) -> str:
    """The value of a metric; a dash for None."""
    return "-" if value is None else f"{value:{metric_of(name).form}}"
