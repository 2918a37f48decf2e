"""The command line, `nodepert train | compare | check | experiment | sweep | ...`: one function per command.

Bad input is one line on stderr and exit status 2.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from nodepert.cli import parser
from nodepert.cli import runs as runs_command
from nodepert.cli.check import check as check_rules
from nodepert.cli.doctor import doctor
from nodepert.cli.experiment import command_of, overview
from nodepert.cli.listing import data, listing
from nodepert.cli.options import combinations, grid_of, labels
from nodepert.cli.parser import Words
from nodepert.cli.report import report
from nodepert.cli.sweep import sweep
from nodepert.errors import UserError
from nodepert.studies.grid import parsed_seeds
from nodepert.studies.run import Run, Task
from nodepert.studies.stopping import Stopped, Stopping, counted

Flat = tyro.conf.OmitArgPrefixes


@dataclass(frozen=True)
class Where:
    """Where data come from, results go, and what computes."""

    name: str = "default"
    """Name of the study: results go to OUT/NAME/ID/."""
    out: Path = Path("runs")
    """Folder of all results."""
    data_dir: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder that holds the data files; else NODEPERT_DATA_DIR, the user's cache, then a download."""
    checkpoint_every: float = 60.0
    """Seconds between checkpoints, from which interrupted runs go on; 0 for one after every epoch."""
    log: Words = ()
    """Send rows elsewhere, too: tensorboard, wandb, as specs. See 'nodepert list trackers'."""
    spread_batch: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """For one large run: spread each batch over all devices. (Several runs are spread over them anyway.)"""
    distributed: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Join the processes of one job (srun nodepert train ... --distributed) into one computation over their devices.
    Without Slurm or MPI: JAX_COORDINATOR_ADDRESS (host:port), JAX_NUM_PROCESSES and JAX_PROCESS_ID."""


def train_from(defaults: Run) -> Callable[..., None]:
    """The command `train`, with these defaults."""

    def train(
        grid: Any,
        where: Flat[Where] = Where(),
        config: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None,
    ) -> None:
        """Train a network with a rule; where options have several values, every combination, together.

        Runs that differ in numbers only (seed, lr, wd, a rule's sigma, ...) train as replicas of one program.

        Example: nodepert train --dataset mnist5k --rule 'np(samples=4)' --seeds 0..4

        Args:
            grid: The runs.
            where: Places.
            config: A config.json that NodePert wrote; its options become the defaults of this command.
        """
        from nodepert.cli import display

        runs = combinations(grid)
        results = _execute(runs, where, labels(runs))
        display.console.print(display.results(labels(runs, apart=["seed", "lr"]), results))
        if len(results) == 1:
            print(f"rows: {results[0].folder}/metrics.csv")
        else:
            print(f"rows: {where.out / where.name}/ID/metrics.csv, of {len(results)} runs")

    train.__annotations__["grid"] = Flat[grid_of(defaults)]
    return train


def compare(
    rules: Words,
    task: Flat[Task] = Task(),
    where: Flat[Where] = Where(name="compare"),
    lr: tuple[float, ...] = (3e-4,),
    optimizer: Words = ("adam(schedule=cosine)",),
    seeds: Words = (),
) -> None:
    """Train two or more rules on one task and draw them into one picture.

    Example: nodepert compare --dataset mnist5k --rules np sgd --seeds 0..4

    Args:
        rules: Learning rules, as specs.
        task: The task.
        where: Places.
        lr: One learning rate for all rules, or one per rule.
        optimizer: One optimizer for all rules, or one per rule.
        seeds: Several seeds, as in 0..4, in place of --seed: curves are means, with bands from least to greatest.
    """
    from nodepert.cli import display
    from nodepert.report.plots import learning_curves

    if len(rules) < 2:
        raise UserError("compare needs two or more rules, as in --rules np sgd")
    rates, optimizers = _one_per_rule("lr", lr, rules), _one_per_rule("optimizer", optimizer, rules)
    variants = zip(rules, optimizers, rates, strict=True)
    several = parsed_seeds(list(seeds)) or [task.seed]
    runs = [Run(**asdict(replace(task, seed=seed)), rule=rule, optimizer=optimizer, lr=rate)
            for rule, optimizer, rate in variants for seed in several]  # fmt: skip
    legends, named = labels(runs, apart=["seed"]), labels(runs)
    results = _execute(runs, where, named)
    display.console.print(display.results(labels(runs, apart=["seed", "lr"]), results))
    curves: dict[str, list] = {}
    for label, result in zip(legends, results, strict=True):
        curves.setdefault(label, []).append(result.rows)
    path = learning_curves(curves, where.out / where.name / "compare.png", f"{task.dataset}, {task.network}")
    print(f"picture: {path}")


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
    "compare": compare, "check": check_rules, "experiment": overview, "sweep": sweep, "runs": runs_command.runs,
    "results": runs_command.results, "report": report, "list": listing, "data": data, "doctor": doctor,
    "completion": completion,
}  # fmt: skip
ABOUT = "Learning by perturbation. 'nodepert COMMAND --help' has the options of a command, and an example."


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the command `nodepert`."""
    with reported():
        _parse(sys.argv[1:] if argv is None else argv)()


@contextlib.contextmanager
def reported() -> Iterator[None]:
    """End the process as a user expects: what they can put right in one line with status 2, Ctrl-C with 130."""
    try:
        yield
    except UserError as error:
        fail(error)
    except BrokenPipeError:  # nodepert ... | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except (KeyboardInterrupt, Stopped) as stop:
        more = f"; {stop}" if isinstance(stop, Stopped) else ""
        print(f"nodepert: interrupted{more}", file=sys.stderr, flush=True)
        sys.stdout.flush()
        os._exit(130)  # at once: an ordinary exit while XLA compiles or computes can crash
    except RuntimeError as error:  # as XLA reports it
        if "RESOURCE_EXHAUSTED" not in str(error) and "Out of memory" not in str(error):
            raise
        fail("out of memory; a smaller network, batchsize or number of samples needs less")


def fail(error: object) -> None:
    """One clear line on stderr, exit status 2."""
    print("nodepert: error: " + " ".join(str(error).split()), file=sys.stderr)
    sys.exit(2)


def _parse(arguments: Sequence[str]) -> Callable[[], None]:
    """The command that the arguments ask for, ready to be called. Raises UserError where they are wrong."""
    parser.given[:] = arguments
    first = arguments[0] if arguments else ""
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--config", type=Path, nargs="?")
    config = finder.parse_known_args(arguments)[0].config
    if config:
        from nodepert.studies.store.run_folder import load_run
    if first == "experiment" and arguments[1:] and not arguments[1].startswith("-"):
        command, prog = parser.later(command_of(arguments[1], arguments[2:])), f"nodepert experiment {arguments[1]}"
        return parser.asked(partial(tyro.cli, command, args=list(arguments[2:]), prog=prog), prog)
    app = tyro.extras.SubcommandApp()
    commands = {"train": train_from(load_run(config) if config else Run()), **COMMANDS}
    for name, command in commands.items():
        app.command(name=name)(parser.later(command, brief=first not in commands))
    ask = partial(app.cli, args=list(arguments), prog="nodepert", description=ABOUT)
    return parser.asked(ask, f"nodepert {first}" if first in commands else "nodepert")


def _execute(runs: Sequence[Run], where: Where, named: Sequence[str]):
    """Train runs with progress on the terminal, and keep them."""
    import jax

    from nodepert.cli import display, live
    from nodepert.studies import train
    from nodepert.studies.trackers import trackers
    from nodepert.training import devices, processes

    if where.spread_batch and len(runs) > 1:
        raise UserError(
            f"--spread-batch is for one run; these are {len(runs)}, which are spread over the devices anyway"
        )
    if where.distributed:
        processes.joined()
    devices.start(len(runs))
    how = {"on": jax.devices()} if where.spread_batch else {}
    if where.spread_batch and jax.device_count() == 1:
        print("--spread-batch: JAX has one device here, which takes the whole batch")
    sent = processes.by_first(lambda: trackers(where.log)) or []
    stopping = Stopping(display.console.print)
    shown = live.progress(dict(zip(runs, named, strict=True)))
    with shown as show, counted(stopping.heard):
        results = train.train(runs, callbacks=[show, *sent], name=where.name, out=where.out,
                               data_dir=where.data_dir, checkpoint_every=where.checkpoint_every, stop=stopping,
                               **how)  # fmt: skip
    if not processes.writes():
        sys.exit()  # the first process tells the rest
    for label, result in zip(named, results, strict=True):
        if result.params is None:
            print(f"{label}: this run was finished before and is read back; to run it again, delete {result.folder}")
    return results


def _one_per_rule(option: str, values: Sequence, rules: Sequence[str]) -> Sequence:
    if len(values) not in (1, len(rules)):
        raise UserError(f"--{option} takes one value for all {len(rules)} rules, or one each; got {len(values)}")
    return values if len(values) == len(rules) else list(values) * len(rules)
