"""`nodepert check --recommend`: which form of node perturbation is worth it on this network and data set?"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nodepert.cli.measuring import TASK, Setting, measuring
from nodepert.cli.output import Output
from nodepert.studies.run import Run

PLAIN = "np(samples=8)"
LEARNING = 10_000  # examples on which guides learn, at most


def recommended(on: Setting, run: Run, folder: Path, output: Output, options: Mapping[str, Any]) -> None:
    """Compare the forms of the run's rule, write all results to `folder`, and print them.

    `options` are those of `npt.recommend`, None for a default.
    """
    from nodepert import diagnostics
    from nodepert.registry import make_loss

    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    data = on.examples(min(len(on.data.train_y), run.batchsize + LEARNING), run.seed)
    with output.working(), measuring("forms") as progress:
        result = diagnostics.recommend(on.model, run.rule, make_loss(run.loss), data, params=on.params,
                                       batchsize=run.batchsize, seed=run.seed, progress=progress, **given)  # fmt: skip
    stem = folder / "recommend"
    write(stem, run, result)
    output.show(lambda: shown(stem, result), lambda: everything(run, result))


def shown(stem: Path, result: Any) -> None:
    """Print the table and the recommendation."""
    from nodepert.cli import display

    display.console.print(table(result))
    display.console.print(str(result), markup=False)
    print(f"files: {stem}.csv, .json, .png")


def table(result: Any) -> Any:
    """The forms as a table, the recommended one in bold; fits 80 columns."""
    from rich.markup import escape
    from rich.table import Table

    from nodepert.training.metrics import with_error

    lines = Table(box=None, pad_edge=False, header_style="bold")
    lines.add_column("\nform", overflow="fold")
    for column in ("\nvariance", "cosine\n1 step", "draws\nto 0.5", "\ngain", "gain\npredicted"):
        lines.add_column(column, justify="right", no_wrap=True)
    for row in result.rows:
        gain = with_error(row["gain"], row["gain_error"] or None) if row["variance"] else "exact"
        cells = (with_error(row["variance"], row["variance_error"]), f"{row['cosine']:.2g}",
                 f"{row['draws_to_half']:,.0f}", gain, f"{row['predicted_gain']:.3g}")  # fmt: skip
        lines.add_row(escape(row["form"]), *cells, style="bold" if row is result.best else None)
    return lines


def everything(run: Run, result: Any) -> dict[str, Any]:
    """All results as plain values."""
    from nodepert.studies.store.versions import versions

    setting = {k: getattr(run, k) for k in (*TASK, "batchsize", "seed")}
    return result.to_dict() | setting | {"versions": versions()}


def write(stem: Path, run: Run, result: Any) -> None:
    """Write the rows, all results and the figure, each file atomically."""
    from nodepert.report.recommend_figure import recommend_figure
    from nodepert.studies.store.records import write_whole, writing
    from nodepert.studies.store.tables import to_csv

    with writing(stem.parent):
        stem.parent.mkdir(parents=True, exist_ok=True)
    write_whole(stem.with_suffix(".csv"), to_csv(result.rows))
    text = json.dumps(everything(run, result), indent=2, allow_nan=False)
    write_whole(stem.with_suffix(".json"), f"{text}\n")
    recommend_figure(result.rows, stem.with_suffix(".png"), f"{result.plain} on {run.dataset}, {run.network}")
