"""`nodepert compare --tune`: the search of learning rates on the terminal, as a table and as a figure."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nodepert.cli.options import Study
from nodepert.studies.labels import labels
from nodepert.studies.run import Run
from nodepert.training.metrics import metric_of

if TYPE_CHECKING:  # it imports JAX, which most commands do not need
    from nodepert.studies.tune import Tuned


def searched(
    runs: list[Run], trials: int, between: tuple[float, float], study: Study, execute: Callable[..., Any],
    data_dir: Path | None,
) -> list[Tuned]:  # fmt: skip
    """Search the learning rates of runs; report what is found, and save it. `execute` trains runs under a study."""
    from nodepert.studies.tune import search

    own = replace(study, name=f"{study.name}-tune")

    def trained(asked: list[Run], held: Any) -> Any:
        print(f"{len(asked)} trials, scored on {len(held.test_y):,} held-out training examples (here called test)")
        return execute(asked, own, data=held)

    found = search(runs, trials, between, None, data_dir, trained)
    title = f"{runs[0].dataset}, {runs[0].network}"
    report(dict(zip(labels(runs, apart=["lr"]), found, strict=True)), study.out / study.name, title)
    return found


def report(named: dict[str, Tuned], folder: Path, title: str) -> None:
    """Print what a search has chosen, and write every trial to tune.csv and tune.png. Raises UserError."""
    from rich.markup import escape
    from rich.table import Table

    from nodepert.cli import display
    from nodepert.studies.drawing import save_figure
    from nodepert.studies.store.records import make_folder, write_whole, writing
    from nodepert.studies.store.tables import to_csv
    from nodepert.studies.tune import figure_of

    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("rule", overflow="fold")
    for column in ("best lr", heading(list(named.values())), "tried from", "to", "trials", "epochs", "forward passes"):
        table.add_column(column, justify="right", no_wrap=True)
    for label, one in named.items():
        score = f"{one.score:{metric_of(one.metric).form}}"
        low, high = (f"{one.trials[i]['lr']:g}" for i in (0, -1))
        passes = "-" if one.passes is None else f"{one.passes:,}"
        table.add_row(escape(label), f"{one.lr:g}", score, low, high, str(len(one.trials)), str(one.epochs), passes)
    display.console.print(table)
    for label, one in named.items():
        if not math.isfinite(one.loss):
            print(f"{label}: diverged at every learning rate; give a lower --lr-range")
        elif one.at_edge:
            edge = "lowest" if one.lr == one.trials[0]["lr"] else "highest"
            print(f"{label}: the best learning rate, {one.lr:g}, is the {edge} that was tried; a better one may be "
                  "beyond it: give more trials or another --lr-range")  # fmt: skip
    rows = [{"rule": label, "optimizer": one.run.optimizer, **trial, "best": int(trial["lr"] == one.lr)}
            for label, one in named.items() for trial in one.trials]  # fmt: skip
    with writing(folder):
        make_folder(folder)
    write_whole(folder / "tune.csv", to_csv(rows))
    print(f"trials: {folder / 'tune.csv'}, {save_figure(figure_of(named, title), folder / 'tune.png')}")


def heading(found: Sequence[Tuned]) -> str:
    """The column of the scores, as in "held-out %"."""
    return metric_of(found[0].metric).heading.replace("test", "held-out")
