"""The command line, `nodepert train | compare | check | experiment | sweep | ...`: one function per command.

Bad input is one line on stderr and exit status 2.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

import nodepert
from nodepert.cli import parser
from nodepert.cli.check import check as check_rules
from nodepert.cli.doctor import doctor
from nodepert.cli.exits import reported
from nodepert.cli.experiment import command_of, overview
from nodepert.cli.listing import data, listing
from nodepert.cli.network import evaluate, predict
from nodepert.cli.options import Flat, HowToRun, Study, combinations, execution_from, grid_of, one_per_rule
from nodepert.cli.output import Output
from nodepert.cli.parser import Words
from nodepert.cli.report import report
from nodepert.cli.results import results
from nodepert.cli.runs import runs
from nodepert.cli.summary import summarise
from nodepert.cli.sweep import sweep
from nodepert.cli.tuning import searched
from nodepert.errors import UserError
from nodepert.registry import measured_rate
from nodepert.studies.grid import parsed_seeds
from nodepert.studies.labels import labels
from nodepert.studies.run import Run, Task
from nodepert.studies.stopping import Stopping, after_epoch

Distributed = Annotated[bool, tyro.conf.FlagCreatePairsOff]


def train(
    grid: Any,
    study: Flat[Study] = Study(),
    execution: Flat[HowToRun] = HowToRun(),
    distributed: Distributed = False,
    config: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None,
    output: Flat[Output] = Output(),
) -> None:
    """Train a network with a rule. Options with several values give a run for every combination.

    Runs that differ in numbers only (seed, lr, wd, a rule's sigma, ...) train as replicas of one program.

    Example: nodepert train --dataset mnist5k --rule 'np(samples=4)' --seeds 0..4

    Args:
        grid: The runs.
        study: Where results go.
        execution: How to execute the runs.
        distributed: Join the processes of one job (srun nodepert train ... --distributed) into one computation over
            their devices. Without Slurm or MPI: JAX_COORDINATOR_ADDRESS (host:port), JAX_NUM_PROCESSES and
            JAX_PROCESS_ID.
        config: A config.json that NodePert wrote; its options become the defaults of this command.
        output: What is printed.
    """
    from nodepert.cli import display

    asked = combinations(grid)
    with output.working():
        found = _execute(asked, study, execution, distributed)

    def text() -> None:
        display.console.print(display.results(labels(asked, apart=["seed", "lr"]), found))
        if len(found) == 1:
            print(f"rows: {found[0].folder}/metrics.csv")
        else:
            print(f"rows: {study.out / study.name}/ID/metrics.csv, of {len(found)} runs")

    output.show(text, lambda: {"runs": list(map(as_json, found))})


def compare(
    rules: Words,
    task: Flat[Task] = Task(),
    study: Flat[Study] = Study(name="compare"),
    execution: Flat[HowToRun] = HowToRun(),
    lr: tuple[float | Literal["auto"], ...] = (3e-4,),
    optimizer: Words = ("adam(schedule=cosine)",),
    seeds: Words = (),
    tune: Annotated[int | None, tyro.conf.arg(metavar="TRIALS")] = None,
    lr_range: tuple[float, float] = (1e-5, 1e-1),
    distributed: Distributed = False,
    output: Flat[Output] = Output(),
) -> None:
    """Train two or more rules on one task and draw them into one figure.

    Example: nodepert compare --dataset mnist5k --rules np sgd --seeds 0..4

    Args:
        rules: Learning rules, as specs.
        task: The task.
        study: Where results go.
        execution: How to execute the runs.
        lr: One learning rate for all rules, or one per rule; auto: what is measured for the rule (nodepert list rules).
        optimizer: One optimizer for all rules, or one per rule.
        seeds: Several seeds, as in 0..4, in place of --seed: curves are means, bands span the lowest and the highest.
        tune: First search the learning rate of each rule, with so many trials each, on a tenth of the training examples
            that is held out. The trials, of the first seed, are saved as the study NAME-tune.
        lr_range: Lowest and highest learning rate of the search, which goes beyond them if the best is there.
        distributed: Join the processes of one job into one computation, as in train.
        output: What is printed.
    """
    from nodepert.cli import display
    from nodepert.studies.curves import learning_curves

    if len(rules) < 2:
        raise UserError("compare needs two or more rules, as in --rules np sgd")
    rates, optimizers = one_per_rule("lr", lr, rules), one_per_rule("optimizer", optimizer, rules)
    several = parsed_seeds(list(seeds)) or [task.seed]
    each = [Run(**asdict(replace(task, seed=several[0])), rule=rule, optimizer=optimizer,
                lr=measured_rate(rule, optimizer) if rate == "auto" else rate)
            for rule, optimizer, rate in zip(rules, optimizers, rates, strict=True)]  # fmt: skip
    if tune is not None and (clash := [o for o in ("--lr", "--distributed") if parser.was_given(o)]):
        raise UserError(f"give --tune or {clash[0]}, not both")
    tuned: list[Any] = []
    with output.working():
        if tune is not None:
            tuned = searched(each, tune, lr_range, study, partial(_execute, options=execution, distributed=False),
                             execution.data_dir)  # fmt: skip
        asked = [replace(run, seed=seed) for run in [one.run for one in tuned] or each for seed in several]
        found = _execute(asked, study, execution, distributed)
    curves: dict[str, list] = {}
    for label, result in zip(labels(asked, apart=["seed"]), found, strict=True):
        curves.setdefault(label, []).append(result.rows)
    path = learning_curves(curves, study.out / study.name / "compare.png", f"{task.dataset}, {task.network}")

    def text() -> None:
        display.console.print(display.results(labels(asked, apart=["seed", "lr"]), found))
        print(f"figure: {path}")

    chosen = {"tuned": [asdict(one) for one in tuned]} if tuned else {}
    output.show(text, lambda: {"runs": list(map(as_json, found)), "figure": path, **chosen})


def as_json(result: Any) -> dict[str, Any]:
    """A run for JSON: its options, and its last row as metrics."""
    run, rows = result.run, result.folder and result.folder / "metrics.csv"
    return {"id": run.id, "status": result.status, "options": asdict(run),
            "metrics": result.rows[-1] if result.rows else {}, "rows": rows}  # fmt: skip


def completion(
    shell: Annotated[tyro.conf.Positional[Literal["bash", "zsh", "tcsh"]], tyro.conf.arg(metavar="SHELL")],
) -> None:
    """Print a script by which a shell completes commands and options at the tab key.

    Example: nodepert completion bash >> ~/.bash_completion

    Args:
        shell: bash, zsh or tcsh.
    """
    _parse(["--tyro-print-completion", shell])


COMMANDS: dict[str, Callable[..., None]] = {
    "train": train, "compare": compare, "check": check_rules, "experiment": overview, "sweep": sweep, "runs": runs,
    "results": results, "report": report, "evaluate": evaluate, "predict": predict, "summary": summarise,
    "list": listing, "data": data,
    "doctor": doctor, "completion": completion,
}  # fmt: skip
ABOUT = ("Learning by perturbation. 'nodepert COMMAND --help' shows the options of a command, and an example; "
         "'nodepert --version' the version.")  # fmt: skip


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the command `nodepert`."""
    with reported():
        _parse(sys.argv[1:] if argv is None else argv)()


def _parse(arguments: Sequence[str]) -> Callable[[], None]:
    """The command that the arguments ask for, ready to be called. Raises UserError where they are wrong."""
    parser.given[:] = arguments
    first = arguments[0] if arguments else ""
    if first == "--version":
        return lambda: print(f"nodepert {nodepert.__version__}")
    if first == "experiment" and arguments[1:] and not arguments[1].startswith("-"):
        command, prog = parser.bound(command_of(arguments[1], arguments[2:])), f"nodepert experiment {arguments[1]}"
        return parser.parsed(partial(tyro.cli, command, args=list(arguments[2:]), prog=prog), prog)
    completing = first.startswith("--tyro")
    if first == "train" or completing:
        train.__annotations__["grid"] = Flat[grid_of(_defaults(arguments))]
    app = tyro.extras.SubcommandApp()
    for name, command in COMMANDS.items():  # options are read of the one command alone, which is quicker
        app.command(name=name)(parser.bound(command) if completing or name == first else parser.named(command))
    ask = partial(app.cli, args=list(arguments), prog="nodepert", description=ABOUT)
    return parser.parsed(ask, f"nodepert {first}" if first in COMMANDS else "nodepert")


def _defaults(arguments: Sequence[str]) -> dict[str, Any]:
    """The defaults of `train`: those of `Run`, its loss still "auto", or the options in `--config FILE`."""
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--config", type=Path, nargs="?")
    config = finder.parse_known_args(arguments)[0].config
    if not config:
        return {f.name: f.default for f in fields(Run)}
    from nodepert.studies.store.run_folder import load_run

    return asdict(load_run(config))


def _execute(asked: Sequence[Run], study: Study, options: Any, distributed: bool, data: Any = None):
    """Train runs with progress on the terminal, and save them. `data`: in place of the data set that they name."""
    execution = execution_from(options)
    execution.check_runs(asked)
    import jax

    from nodepert.cli import display, live
    from nodepert.studies.train import train
    from nodepert.training import devices, processes

    if distributed:
        processes.joined()
    devices.start(len(asked))
    if execution.one_run and jax.device_count() == 1:
        print(f"{execution.one_run}: no effect, since JAX has one device here")
    named = labels(asked)
    stopping = Stopping(after_epoch(display.console.print))
    with live.progress(dict(zip(asked, named, strict=True))) as show, stopping.listening():
        found = train(asked, data=data, callbacks=[show], name=study.name, out=study.out, stop=stopping,
                      execution=execution)  # fmt: skip
    if not processes.writes():
        sys.exit()  # the first process reports
    for label, result in zip(named, found, strict=True):
        if result.read_back and data is None:  # trials of a search are too many to list
            print(f"{label}: this run had finished and is read back; to train it again, delete {result.folder}")
    return found
