"""The command line: `nodepert train | compare | check | list | data`.

Bad input is one line on stderr and exit status 2.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial, wraps
from pathlib import Path
from typing import Annotated

import tyro

from nodepert.cli_check import check as check_rules
from nodepert.cli_info import data, listing
from nodepert.config import Run, Task, checked, run_id
from nodepert.registry import UserError

Flat = tyro.conf.OmitArgPrefixes


@dataclass(frozen=True)
class Where:
    """Where data come from and results go."""

    name: str = "default"
    """Name of the study: results go to OUT/NAME/ID/."""
    out: Path = Path("runs")
    """Folder of all results."""
    data_dir: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder that holds the data files; else NODEPERT_DATA_DIR, the user's cache, then a download."""


def train_from(defaults: Run) -> Callable[..., None]:
    """The command `train`, with these defaults."""

    def train(
        run: Flat[Run] = defaults,
        where: Flat[Where] = Where(),
        config: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None,
    ) -> None:
        """Train one network with one rule.

        Example: nodepert train --dataset mnist5k --rule 'np(samples=4, noise=rademacher)' --lr 1e-3

        Args:
            run: The run.
            where: Places.
            config: A config.json that NodePert wrote; its options become the defaults of this command.
        """
        from nodepert import display

        result = _execute(run, where, run.rule)
        display.console.print(display.results({run.rule: result}))
        print(f"rows: {result.folder}/metrics.csv")

    return train


def compare(
    rules: tuple[str, ...],
    task: Flat[Task] = Task(),
    where: Flat[Where] = Where(name="compare"),
    lr: tuple[float, ...] = (3e-4,),
    optimizer: tuple[str, ...] = ("adam(schedule=cosine)",),
) -> None:
    """Train two or more rules on one task and draw them into one picture.

    Example: nodepert compare --dataset mnist5k --rules np sgd

    Args:
        rules: Learning rules, as specs.
        task: The task.
        where: Places.
        lr: One learning rate for all rules, or one per rule.
        optimizer: One optimizer for all rules, or one per rule.
    """
    from nodepert import display
    from nodepert.data import load_dataset
    from nodepert.plots import learning_curves
    from nodepert.runner import precheck

    if len(rules) < 2:
        raise UserError("compare needs two or more rules, as in --rules np sgd")
    rates, optimizers = _one_per_rule("lr", lr, rules), _one_per_rule("optimizer", optimizer, rules)
    variants = zip(rules, optimizers, rates, strict=True)
    runs = [Run(**asdict(task), rule=rule, optimizer=optimizer, lr=rate) for rule, optimizer, rate in variants]
    if len({run_id(run) for run in runs}) < len(runs):
        raise UserError("two of these runs are the same; give each another rule, learning rate or optimizer")
    for run in runs:
        precheck(run)  # all of them, before the first one trains for an hour
    data = load_dataset(checked(runs[0]).dataset, where.data_dir)
    labels = _labels(runs)
    results = {label: _execute(run, where, label, data) for label, run in zip(labels, runs, strict=True)}
    display.console.print(display.results(results))
    title = f"{task.dataset}, {task.network}"
    path = learning_curves({k: r.rows for k, r in results.items()}, where.out / where.name / "compare.png", title)
    print(f"picture: {path}")


COMMANDS: dict[str, Callable[..., None]] = {"compare": compare, "list": listing, "data": data, "check": check_rules}


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
    except KeyboardInterrupt:
        print("nodepert: interrupted", file=sys.stderr, flush=True)
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
    """The command that the arguments ask for, ready to be called. What tyro frames in boxes becomes one line."""
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--config", type=Path, nargs="?")
    config = finder.parse_known_args(arguments)[0].config
    if config:
        from nodepert.store import load_run
    app = tyro.extras.SubcommandApp()
    for name, command in {"train": train_from(load_run(config) if config else Run()), **COMMANDS}.items():
        app.command(name=name)(_later(command))
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return app.cli(args=list(arguments), prog="nodepert", description="Learning by perturbation.")
    except SystemExit as stop:
        if stop.code:
            fail(f"{_complaint(said.getvalue())} (see nodepert --help)")
        raise


def _complaint(box: str) -> str:
    """What tyro says in the first part of its box, and what it suggests in the second, as one line."""
    box = re.sub(r"\x1b\[[0-9;]*m", "", box)  # colours, on a terminal
    inside = " ".join(line.strip("│ ") for line in box.splitlines()[1:-1])
    first, *others = (part.split() for part in re.split("─{5,}", inside))
    hints = [part[: 4 if part[0] == "Perhaps" else None] for part in others if part[:1] in (["Available"], ["Perhaps"])]
    return "; ".join(" ".join(part) for part in [first, *hints])


def _later(command: Callable[..., None]) -> Callable[..., Callable[[], None]]:
    @wraps(command)
    def bound(*args, **kwargs):
        return partial(command, *args, **kwargs)

    return bound


def _execute(run: Run, where: Where, label: str, data=None):
    """Train one run with progress on the terminal, and keep it."""
    from nodepert import display, runner

    with display.progress(label, run.epochs) as on_row:
        result = runner.train(run, data=data, on_row=on_row, name=where.name, out=where.out, data_dir=where.data_dir)
    if result.params is None:
        print(f"{label}: this run was finished before and is read back; to run it again, delete {result.folder}")
    return result


def _one_per_rule(option: str, values: Sequence, rules: Sequence[str]) -> Sequence:
    if len(values) not in (1, len(rules)):
        raise UserError(f"--{option} takes one value for all {len(rules)} rules, or one each; got {len(values)}")
    return values if len(values) == len(rules) else list(values) * len(rules)


def _labels(runs: Sequence[Run]) -> list[str]:
    """Rules as legends; with the learning rate and optimizer where a rule comes twice."""
    rules = [run.rule for run in runs]
    return [run.rule if rules.count(run.rule) == 1 else f"{run.rule}, {run.optimizer}, lr {run.lr:g}" for run in runs]
