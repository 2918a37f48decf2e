"""The command `check`: does a rule estimate what it claims, on this network and data set?"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from nodepert.cli.measuring import TASK, Setting, measuring, of_run, setting_of, writable
from nodepert.cli.options import Flat
from nodepert.cli.output import Output
from nodepert.cli.parser import Words, was_given
from nodepert.cli.recommend import PLAIN, recommended
from nodepert.errors import UserError
from nodepert.studies.run import Run


def check(
    rule: tuple[str, ...] = ("np",),
    dataset: str = Run.dataset,
    network: str = Run.network,
    loss: str = Run.loss,
    batchsize: int = Run.batchsize,
    draws: int | None = None,
    smoothed: float | None = None,
    seed: int = Run.seed,
    trained: Annotated[str | None, tyro.conf.arg(metavar="RUN")] = None,
    recommend: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    guides: Annotated[Words | None, tyro.conf.arg(metavar="STR [STR ...]")] = None,
    steps: int | None = None,
    name: str = "check",
    out: Path = Path("runs"),
    data_dir: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None,
    output: Flat[Output] = Output(),
) -> None:
    """Compare a rule's estimates with the exact gradient, node by node: is it biased, how noisy, which sigma?

    Example: nodepert check --network fc --dataset mnist5k --rule np anp

    Writes a table (RULE.csv), all results (RULE.json) and a figure (RULE.png) per rule to OUT/NAME/. With --recommend
    these are recommend.csv, .json and .png, and compare the forms of np at the same number of forward passes.

    Args:
        rule: One or more learning rules, as specs. With --recommend a plain np; default: np(samples=8).
        dataset: Data set, as a spec.
        network: Network, as a spec; at its initial weights.
        loss: Per-example loss; 'auto': the network's own.
        batchsize: Examples, drawn from the training set.
        draws: Estimates to draw; default: 1,000, and more where network and batch are small. If they are too few, the
            verdict is undecided, and the text says how many would decide. With --recommend steps of each form; default:
            40.
        smoothed: Compare with the gradient of the loss smoothed by noise of this sigma, where spikes or the loss have
            no derivative. Default: if there is no gradient, the sigma of the rule.
        seed: Seed of weights, examples and noise.
        trained: A trained run (its directory, id or saved file): its data set, loss and network, at its weights.
        recommend: Find the form of np with the least variance: active units, evaluated head, orthogonal draws, guides,
            draws per node.
        guides: Guides that --recommend compares, as specs. Default: all.
        steps: Steps in which they learn. Default: 1,000.
        name: Name of the study.
        out: Folder for all results.
        data_dir: Folder with the data files; default: NODEPERT_DATA_DIR, the user's cache, then a download.
        output: What is printed.
    """
    from nodepert.registry import make_loss
    from nodepert.studies.setup import check_runs
    from nodepert.studies.store.run_folder import checked_name
    from nodepert.training.compile_cache import keep_programs

    if not recommend and (guides or steps is not None):
        raise UserError(f"--{'guides' if guides else 'steps'} is an option of check --recommend")
    if recommend and smoothed is not None:
        raise UserError("--smoothed is no option of check --recommend, which compares with the exact gradient")
    if recommend and not was_given("--rule"):
        rule = (PLAIN,)
    if recommend and len(rule) != 1:
        raise UserError(f"check --recommend takes one rule, as in --rule '{PLAIN}'")
    if not rule:
        raise UserError("check needs a rule, as in --rule np")
    found = of_run(trained, out, data_dir) if trained else None
    if found:
        dataset, network, loss = (found.config[kind] for kind in TASK)
    runs = [Run(dataset, network, loss, batchsize, seed=seed, rule=spec) for spec in rule]
    check_runs(runs)
    if len({run.rule for run in runs}) < len(runs):
        raise UserError("two of these rules are the same")
    keep_programs()
    folder = writable(out / checked_name(name))
    on = setting_of(runs[0], found, data_dir)
    if recommend:
        recommended(on, runs[0], folder, output, {"guides": guides, "steps": steps, "draws": draws})
        return
    with output.working():
        results = [measured(on, run, make_loss(run.loss), draws, smoothed) for run in runs]
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


def measured(on: Setting, run: Run, loss: Any, draws: int | None, smoothed: float | None) -> Any:
    """The result of the check, with a progress bar on a terminal."""
    from nodepert import diagnostics

    batch = on.examples(run.batchsize, run.seed)
    with measuring(run.rule) as progress:
        return diagnostics.check(on.model, run.rule, loss, batch, params=on.params, draws=draws, seed=run.seed,
                                 smoothed=smoothed, progress=progress)  # fmt: skip


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
    from nodepert.studies.store.versions import versions

    setting = {k: getattr(run, k) for k in (*TASK, "batchsize", "seed")}
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
