"""The command `nodepert sweep`: train a grid of runs, anywhere, and first say what that will be."""

from __future__ import annotations

import ast
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from nodepert.cli import parser
from nodepert.cli.parser import Words
from nodepert.errors import UserError
from nodepert.studies.stopping import counted

if TYPE_CHECKING:
    from nodepert.studies.sweep.sweep import Sweep


@dataclass(frozen=True)
class How:
    """Where the runs are carried out."""

    launcher: Literal["local", "slurm", "command", "debug"] = "local"
    """local: worker processes here; slurm: a job array; command: another scheduler's; debug: this process."""
    jobs: int = 1
    """Worker processes side by side, on a share of the cores and GPUs each (local)."""
    runs_per_job: int = 0
    """At most so many runs in one job; 0: all runs of a group, which train as one program."""
    slurm: Words = ()
    """Options of the Slurm jobs, over those of the grid file's [slurm] table: time=60 (minutes), cpus=4, gpus=1,
    memory=8 (GB), partition=..., account=..., qos=..., constraint=..., parallel=10 (tasks at a time)."""
    command: str = ""
    """Of --launcher command, for each job: 'bsub -q long -o {log} {command}'."""


def sweep(
    grid: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="GRID")],
    how: tyro.conf.OmitArgPrefixes[How] = How(),
    out: Path = Path("runs"),
    data_dir: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None,
    checkpoint_every: float = 60.0,
    log: Words = (),
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    retry: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    watch: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
) -> None:
    """Train every run of a grid file; runs that are finished are not computed again, interrupted ones go on.

    The file has lists of options, whose every combination is a run (nodepert/grid.py and grids/ have examples):

        name = "study"
        seeds = 3
        [grid]
        rule = ["np", "sgd"]
        lr = [1e-4, 1e-3]

    Example: nodepert sweep grids/weight-decay.toml --dry-run

    Args:
        grid: The grid file (TOML).
        how: Launcher.
        out: Folder of all results; a run goes to OUT/NAME/ID/, the logs of jobs to OUT/NAME/jobs/.
        data_dir: Folder that holds the data files; else NODEPERT_DATA_DIR, the user's cache, then a download.
        checkpoint_every: Seconds between checkpoints, from which interrupted runs go on; 0 for one after every epoch.
        log: Send rows elsewhere, too: tensorboard, wandb, as specs. See 'nodepert list trackers'.
        dry_run: Say what would be done, and stop.
        retry: Only runs that were begun in some job and are not through, the failed ones among them.
        watch: Follow the jobs that an earlier command left with a scheduler, and submit none.
    """
    from nodepert.studies.grid import load_grid

    name, runs, slurm = load_grid(grid)
    from nodepert.studies.recorder import checked_interval

    checked_interval(checkpoint_every)
    if how.runs_per_job < 0:
        raise UserError(f"--runs-per-job must not be negative; got {how.runs_per_job}")
    from nodepert.cli import sweep_view
    from nodepert.studies.sweep.sweep import Sweep

    study = Sweep(name, runs, out, data_dir, checkpoint_every, how.runs_per_job, log)
    options = slurm | pairs(how.slurm)
    sweep_view.show_plan(study)
    if dry_run:
        return
    study.tidy()
    if watch and how.launcher != "slurm":
        raise UserError("--watch follows the jobs that Slurm has: give --launcher slurm as well")
    launcher, earlier = launched(how, study, options)
    numbers = [i for i in (study.begun() if retry else study.left()) if i not in earlier]
    if watch:
        numbers = []
        if not study.batches:
            print("no jobs of this study are with Slurm")
    if not (numbers or study.batches):
        return
    check(study, numbers, how)
    heard = nullcontext() if how.launcher == "debug" else counted(sweep_view.on_interrupt(study, launcher))
    with heard, sweep_view.shown(study) as show:
        for _ in study.follow() if study.batches and not numbers else study.carry_out(launcher, numbers):
            show()
    sweep_view.report(study, launcher, again())
    if study.interrupts:
        sys.exit(130)
    if study.failures:
        sys.exit(1)


def again() -> str:
    """The command that was given, to be given again, but for which of its runs it asked."""
    return shlex.join(["nodepert", *(word for word in parser.given if word not in ("--retry", "--watch"))])


def check(study: Sweep, numbers: Sequence[int], how: How) -> None:
    """Find what is wrong with runs before any job is written. Raises UserError."""
    import jax

    from nodepert.data import load_dataset
    from nodepert.studies.setup import precheck
    from nodepert.studies.trackers import trackers

    if how.launcher != "debug":  # the GPUs are for the workers
        if how.launcher == "local" and os.environ.get("JAX_PLATFORMS", "cpu") not in ("", "cpu"):
            tried_elsewhere()
        jax.config.update("jax_platforms", "cpu")
    runs = [study.runs[i] for i in numbers]
    precheck(runs)
    trackers(study.log)
    for spec in dict.fromkeys(run.dataset for run in runs):  # fetched once, before several jobs ask for it
        load_dataset(spec, study.data_dir)


def tried_elsewhere() -> None:
    """Start JAX as the workers will, in a process that leaves the GPUs to them. Raises UserError."""
    program = "from nodepert import devices; print('; '.join(devices.trouble() or ()))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    if said := done.stdout.strip():
        raise UserError(said)


def launched(how: How, study: Sweep, options: dict[str, Any]) -> tuple[Any, set[int]]:
    """The launcher, and the runs that earlier jobs of this study are at; those jobs are followed. Raises UserError."""
    if how.launcher == "slurm":
        from nodepert.studies.sweep.launchers.slurm import Slurm, active

        earlier = active(study, options)
        return Slurm(study.name, options), {i for batch in earlier for runs in batch.runs for i in runs}
    if how.launcher == "command":
        from nodepert.studies.sweep.launchers.command import Template

        return Template(how.command, study.name), set()
    from nodepert.studies.sweep.launchers.local import Debug, Local

    return Debug() if how.launcher == "debug" else Local(how.jobs), set()


def pairs(given: Sequence[str]) -> dict[str, Any]:
    """{"time": 60, "partition": "gpu"} of "time=60", "partition=gpu". Raises UserError."""
    found: dict[str, Any] = {}
    for one in given:
        key, equals, text = one.partition("=")
        if not equals:
            raise UserError(f"--slurm takes option=value, as in time=60; got '{one}'")
        try:
            found[key] = ast.literal_eval(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            found[key] = text
    return found
