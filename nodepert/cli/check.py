"""The command `check`: does a rule estimate what it claims, on this network and data set?"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from nodepert.cli.options import Flat
from nodepert.cli.output import Output
from nodepert.errors import UserError
from nodepert.studies.run import Run


def check(
    rule: tuple[str, ...] = ("np",),
    dataset: str = Run.dataset,
    network: str = Run.network,
    loss: str = Run.loss,
    batchsize: int = Run.batchsize,
    draws: int | None = None,
    seed: int = Run.seed,
    name: str = "check",
    out: Path = Path("runs"),
    data_dir: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None,
    output: Flat[Output] = Output(),
) -> None:
    """Compare a rule's estimates with the exact gradient, node by node: is it biased, how noisy, which sigma?

    Example: nodepert check --network fc --dataset mnist5k --rule np anp

    Writes a table (RULE.csv), all results (RULE.json) and a figure (RULE.png) per rule to OUT/NAME/.

    Args:
        rule: One or more learning rules, as specs.
        dataset: Data set, as a spec.
        network: Network, as a spec; at its initial weights.
        loss: Per-example loss; 'auto': the network's own.
        batchsize: Examples, drawn from the training set.
        draws: Estimates to draw; default: 1,000, and more where network and batch are small. If they are too few, the
            verdict is undecided, and the text says how many would decide.
        seed: Seed of weights, examples and noise.
        name: Name of the study.
        out: Folder for all results.
        data_dir: Folder with the data files; default: NODEPERT_DATA_DIR, the user's cache, then a download.
        output: What is printed.
    """
    from nodepert.data import load_dataset
    from nodepert.registry import check_loss, make_loss, make_model
    from nodepert.studies.setup import check_runs
    from nodepert.studies.store.run_folder import checked_name
    from nodepert.training.compile_cache import keep_programs

    if not rule:
        raise UserError("check needs a rule, as in --rule np")
    runs = [Run(dataset, network, loss, batchsize, seed=seed, rule=spec) for spec in rule]
    check_runs(runs)
    if len({run.rule for run in runs}) < len(runs):
        raise UserError("two of these rules are the same")
    keep_programs()
    folder = writable(out / checked_name(name))
    data = load_dataset(runs[0].dataset, data_dir)
    check_loss(runs[0].specs["loss"], data.task, runs[0].specs["dataset"])
    model = make_model(runs[0].network, data.train_x.shape[1:], data.outputs)
    batch = examples(data, batchsize, seed)
    with output.working():
        results = [measured(run.rule, model, make_loss(run.loss), batch, draws, seed) for run in runs]
    paths = [folder / stem for stem in stems([run.rule for run in runs])]
    for path, run, result in zip(paths, runs, results, strict=True):
        write(path, run, result)
    output.show(
        lambda: shown(paths, results),
        lambda: {"rules": [everything(run, result) for run, result in zip(runs, results, strict=True)]},
    )


def shown(paths: Sequence[Path], results: Sequence[Any]) -> None:
    """Print the table and the verdict of each rule."""
    from nodepert.cli import display
    from nodepert.registry import passes

    for path, result in zip(paths, results, strict=True):
        display.console.print(table(result))
        if (number := passes(result.rule)) is not None:
            print(f"cost: {number} forward passes per step")
        for line in str(result).split("\n"):
            display.console.print(line, markup=False, style="bold red" if line.startswith("WARNING") else None)
        print(f"files: {path}.csv, .json, .png\n")


def writable(folder: Path) -> Path:
    """The folder of the results. Raises UserError before anything is computed, if it cannot be made."""
    parent = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not (parent.is_dir() and os.access(parent, os.W_OK)):
        raise UserError(f"cannot write {folder}: {parent} is not a writable folder; choose another path with --out")
    return folder


def examples(data: Any, batchsize: int, seed: int) -> tuple[Any, Any]:
    """A random batch of training examples, (x, y), as in training."""
    import numpy as np

    n = len(data.train_y)
    if not 1 <= batchsize <= n:
        raise UserError(f"batchsize must be in 1..{n:,}, the training examples; got {batchsize}")
    chosen = np.random.default_rng(seed).permutation(n)[:batchsize]
    return data.standardised(data.train_x[chosen]), data.targets(data.train_y[chosen])


def measured(rule: str, model: Any, loss: Any, batch: tuple[Any, Any], draws: int | None, seed: int) -> Any:
    """The result of the check, with a progress bar on a terminal."""
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from nodepert import diagnostics
    from nodepert.cli import display

    columns = SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(16), TimeElapsedColumn()
    with Progress(*columns, console=display.console, transient=True, disable=not display.console.is_terminal) as bar:
        task = bar.add_task(rule, total=None)

        def progress(drawn: int, of: int) -> None:
            bar.update(task, completed=drawn, total=of)

        try:
            return diagnostics.check(model, rule, loss, batch, draws=draws, seed=seed, progress=progress)
        except UserError:
            raise
        except ValueError as error:  # of a network, a loss or a rule against its contract
            raise UserError(str(error)) from error


def table(result: Any) -> Any:
    """The result as a table, one line per node; fits 80 columns."""
    from rich.markup import escape
    from rich.table import Table

    lines = Table(box=None, pad_edge=False, header_style="bold")
    lines.add_column("\nnode", overflow="fold")
    for column in ("cosine\n1 draw", "cosine\nof mean", "\ngain", "\nbias", "\nvariance", "draws\nto 0.5"):
        lines.add_column(column, justify="right", no_wrap=True)
    lines.add_column("\nverdict", no_wrap=True)
    colours = {"exact": "green", "unbiased": "green", "biased": "red"}
    for row in result.rows:
        colour = colours.get(row["verdict"], "yellow")
        style = "bold" if row is result.rows[-1] else None
        lines.add_row(escape(row["node"]), *cells(row), f"[{colour}]{row['verdict']}[/{colour}]", style=style)
    return lines


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """The numbers of a row, as text."""
    from nodepert.diagnostics.result import percent

    cosines = f"{row['cosine']:.2g}", f"{row['cosine_mean']:.2g}"
    half = f"{row['draws_to_half']:,.0f}" if math.isfinite(row["draws_to_half"]) else "never"
    gain = f"{row['gain']:.3f}"
    if row["verdict"] == "no gradient":
        return ("-",) * 6
    if row["verdict"] == "exact":
        return *cosines, gain, "0", "0", half
    if row["variance"] == 0:
        return *cosines, gain, percent(row["bias"]), "0", half
    bias = percent(row["bias"]) if row["verdict"] == "biased" else f"< {percent(row['bias_high'])}"
    digits = 3 if row["gain_error"] < 0.01 else 2
    return *cosines, f"{row['gain']:.{digits}f} ± {row['gain_error']:.{digits}f}", bias, f"{row['variance']:.2g}", half


def stems(rules: list[str]) -> list[str]:
    """File names for rules: valid in every file system, and all different."""
    names = [re.sub(r"[^\w.+=-]+", "_", rule).strip("_.")[:80] for rule in rules]
    return [name if names.count(name) == 1 else f"{name}-{i}" for i, name in enumerate(names, 1)]


def everything(run: Run, result: Any) -> dict[str, Any]:
    """All results as plain values."""
    from nodepert.registry import passes
    from nodepert.studies.store.run_folder import versions

    setting = {k: getattr(run, k) for k in ("dataset", "network", "loss", "batchsize", "seed")}
    return result.to_dict() | setting | {"passes_per_step": passes(run.rule), "versions": versions()}


def write(stem: Path, run: Run, result: Any) -> None:
    """Write the rows, all results and the figure, each file atomically."""
    from nodepert.report.check_figure import check_figure
    from nodepert.studies.store.records import write_whole, writing
    from nodepert.studies.store.tables import to_csv

    with writing(stem.parent):
        stem.parent.mkdir(parents=True, exist_ok=True)
    write_whole(stem.with_name(f"{stem.name}.csv"), to_csv(result.rows))
    text = json.dumps(everything(run, result), indent=2, allow_nan=False)
    write_whole(stem.with_name(f"{stem.name}.json"), f"{text}\n")
    title = f"{result.rule} on {run.dataset}, {run.network}: {result.verdict}"
    check_figure(result.rows, stem.with_name(f"{stem.name}.png"), title, result.steps)
