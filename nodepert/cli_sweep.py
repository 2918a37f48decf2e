"""The command `nodepert sweep`: train a grid of runs, and first say what that will be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from nodepert.config import Run, run_id

if TYPE_CHECKING:
    from rich.table import Table


def sweep(
    grid: tyro.conf.Positional[Path],
    out: Path = Path("runs"),
    data_dir: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None,
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> None:
    """Train every run of a grid file; runs that are finished are not computed again.

    The file has lists of options, whose every combination is a run (nodepert/grid.py and grids/ have examples):

        name = "study"
        seeds = 3
        [grid]
        rule = ["np", "sgd"]
        lr = [1e-4, 1e-3]

    Example: nodepert sweep grids/weight-decay.toml --dry-run

    Args:
        grid: The grid file (TOML).
        out: Folder of all results; a run goes to OUT/NAME/ID/.
        data_dir: Folder that holds the data files; else NODEPERT_DATA_DIR, the user's cache, then a download.
        dry_run: Say what would be done, and stop.
    """
    from nodepert import devices, display
    from nodepert.grid import load_grid

    name, runs = load_grid(grid)
    if not dry_run:
        devices.cores_apart(len(runs))
    from nodepert import runner

    found = runner.groups(runs)
    done = [finished(out / name / run_id(run)) for run in runs]
    display.console.print(plan(runs, found, done))
    left = [run for run, finished in zip(runs, done, strict=True) if not finished]
    epochs = sum(run.epochs for run in left)
    print(f"{name}: {len(runs):,} runs in {len(found):,} groups (one compiled program each); {sum(done):,} done, "
          f"{epochs:,} epochs to train")  # fmt: skip
    if dry_run or not left:
        return
    from nodepert.cli_grid import labels

    named = labels(runs)
    with display.progress(named, runs) as on_row:
        results = runner.train(runs, on_row=on_row, name=name, out=out, data_dir=data_dir)
    display.console.print(display.results(labels(runs, apart=["seed"]), results))
    print(f"rows: {out / name}/ID/metrics.csv, of {len(results):,} runs")


def finished(folder: Path) -> bool:
    """Whether a run's folder says that it is through."""
    from nodepert.registry import UserError
    from nodepert.store import RunFolder, read_record

    try:
        return (folder / "config.json").exists() and RunFolder(folder, read_record(folder / "config.json")).done
    except UserError:
        return False  # training will say what is wrong there


def plan(runs: Sequence[Run], groups: Sequence[Sequence[int]], done: Sequence[bool]) -> Table:
    """A line per group: what its runs have in common, what differs, how many there are."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("data", "network", "rule", "optimizer"):
        table.add_column(column, overflow="fold")
    for column in ("batch", "epochs", "runs", "done"):
        table.add_column(column, justify="right", no_wrap=True)
    for group in groups:
        own = [runs[i] for i in group]
        words = (said(own, name) for name in ("dataset", "network", "rule", "optimizer"))
        table.add_row(*map(escape, words), str(own[0].batchsize), str(own[0].epochs), f"{len(own):,}",
                      f"{sum(done[i] for i in group):,}")  # fmt: skip
    return table


def said(runs: Sequence[Run], option: str) -> str:
    """The value of an option, or how many there are."""
    values: list[Any] = list(dict.fromkeys(getattr(run, option) for run in runs))
    return values[0] if len(values) == 1 else f"{values[0]} and {len(values) - 1} more"
