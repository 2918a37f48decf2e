"""The command `nodepert sweep`: train a grid of runs, anywhere, and show the plan first."""

from __future__ import annotations

import ast
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from nodepert.cli import parser
from nodepert.cli.options import Flat, HowToRun, execution_from
from nodepert.cli.output import Output
from nodepert.cli.parser import Words
from nodepert.errors import UserError
from nodepert.registry import check, make
from nodepert.registry.describe import parameters
from nodepert.registry.spec import Spec, parse

if TYPE_CHECKING:
    from nodepert.studies.sweep.jobs import Launcher
    from nodepert.studies.sweep.sweep import Sweep


@dataclass(frozen=True)
class Where:
    """Where the jobs run."""

    launcher: str = ""
    """As a spec: local(jobs=2), slurm(time=60, gpus=1), command(template='bsub -o {log} {command}'), debug. See
    'nodepert list launchers'. A table [slurm] in the grid file has options as well."""
    jobs: int | None = None
    """The same as local(jobs=N): worker processes side by side, on a share of the cores and GPUs each."""
    slurm: Words = ()
    """The same as arguments of slurm(...): time=60 (minutes), cpus=4, gpus=1, memory=8 (GB), partition=..., ..."""
    command: str | None = None
    """The same as command(template=...), for each job: 'bsub -q long -o {log} {command}'."""
    runs_per_job: int = 0
    """Maximum number of runs per job; 0: all runs of a group, which train as one program."""


def sweep(
    grid: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="GRID")],
    where: Flat[Where] = Where(),
    out: Path = Path("runs"),
    execution: Flat[HowToRun] = HowToRun(),
    dry_run: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    retry: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    watch: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False,
    output: Flat[Output] = Output(),
) -> None:
    """Train every run of a grid file; runs that have finished are not computed again, interrupted ones resume.

    The file has lists of options, whose every combination is a run (nodepert/studies/grid.py and grids/ have examples):

        name = "study"
        seeds = 3
        [grid]
        rule = ["np", "sgd"]
        lr = [1e-4, 1e-3]

    Example: nodepert sweep grids/weight-decay.toml --dry-run

    Args:
        grid: The grid file (TOML).
        where: Launcher.
        out: Folder of all results; a run goes to OUT/NAME/ID/, the logs of jobs to OUT/NAME/jobs/.
        execution: How to execute the runs.
        dry_run: Show the plan and exit.
        retry: Only runs that were started in some job and have no result, the failed ones among them.
        watch: Follow the jobs that an earlier command left with a scheduler, and submit none.
        output: What is printed.
    """
    from nodepert.cli import sweep_view
    from nodepert.studies.grid import load_grid
    from nodepert.studies.sweep.sweep import Sweep

    name, runs, tables = load_grid(grid)
    spec = launcher_of(where, tables)
    if where.runs_per_job < 0:
        raise UserError(f"--runs-per-job must not be negative; got {where.runs_per_job}")
    study = Sweep(name, runs, out, execution_from(execution), where.runs_per_job)
    if dry_run:
        output.show(lambda: sweep_view.show_plan(study), lambda: summary(study))
        return
    with output.working():
        sweep_view.show_plan(study)
    check_saved(study)
    study.tidy()
    launcher = make("launcher", spec, name)
    if watch and not launcher.attaches:
        raise UserError("--watch needs a launcher that can be asked for its jobs, such as --launcher slurm")
    attached = {i for batch in study.attach(spec) for part in batch.runs for i in part} if launcher.attaches else set()
    numbers = [i for i in (study.started() if retry else study.left()) if i not in attached]
    if watch:
        numbers = []
        if not (study.batches or output.brief):
            print("no queued or running jobs of this study")
    if not (numbers or study.batches):
        output.show(lambda: None, lambda: summary(study))
        return
    check_first(study, numbers, launcher)
    follow(study, launcher, numbers, output)


def follow(study: Sweep, launcher: Launcher, numbers: Sequence[int], output: Output) -> None:
    """Execute these runs, or follow jobs, and report; exit with 130 after Ctrl-C, with 1 after a failure."""
    from nodepert.cli import sweep_view
    from nodepert.studies.stopping import Stopping

    study.stopping = Stopping(sweep_view.on_signal(launcher))
    listening = nullcontext() if launcher.in_process else study.stopping.listening()
    with output.working(), listening, sweep_view.shown(study) as show:
        for _ in study.follow() if study.batches and not numbers else study.execute(launcher, numbers):
            show()
    output.show(lambda: sweep_view.report(study, launcher, command_line()), lambda: summary(study))
    if study.stopping.count:
        sys.exit(130)
    if study.failures:
        sys.exit(1)


def summary(study: Sweep) -> dict[str, Any]:
    """A sweep for JSON: its runs with their last rows as metrics, and its failures."""
    runs = [
        {"id": run.id, "status": now.status or "waiting", "options": asdict(run), "metrics": now.last or {}}
        for run, now in zip(study.runs, study.progress, strict=True)
    ]
    failures = [{"runs": [study.runs[i].id for i in failure.runs], "why": failure.why, "log": failure.log}
                for failure in study.failures]  # fmt: skip
    return {"name": study.name, "runs": runs, "failures": failures}


def launcher_of(where: Where, tables: Mapping[str, Mapping[str, Any]]) -> Spec:
    """The launcher's spec. Its arguments replace --jobs, --slurm and --command; those replace the grid file's table.

    Raises UserError for an unknown launcher or argument.
    """
    name = "slurm" if where.slurm else "command" if where.command else "local"
    spec = parse(where.launcher or name)
    options = {"local": {"jobs": where.jobs}, "slurm": pairs(where.slurm), "command": {"template": where.command}}
    given = {key: value for key, value in options.get(spec.name, {}).items() if value is not None}
    arguments = {**tables.get(spec.name, {}), **given, **dict(spec.kwargs)}
    for name, parameter in parameters("launcher", spec.name).items():
        if parameter.annotation is str and type(arguments.get(name)) in (int, float):  # account=12345
            arguments[name] = str(arguments[name])
    return check("launcher", Spec(spec.name, spec.args, tuple(arguments.items())))


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


def command_line() -> str:
    """The command as it was given, without the options that choose among its runs."""
    return shlex.join(["nodepert", *(word for word in parser.given if word not in ("--retry", "--watch"))])


def check_saved(study: Sweep) -> None:
    """Raise UserError where a run has a result or a checkpoint of other settings of JAX."""
    from nodepert.studies.store import checkpoints
    from nodepert.studies.store.run_folder import RunFolder
    from nodepert.training.configuration import check_settings

    for folder, progress in zip(study.folders, study.progress, strict=True):
        if progress.finished or (progress.status and checkpoints.exist(folder)):
            check_settings(str(folder), RunFolder.read(folder).record, "name in the grid file")


def check_first(study: Sweep, numbers: Sequence[int], launcher: Launcher) -> None:
    """Find what is wrong with runs before any job is written. Raises UserError."""
    import jax

    from nodepert.data import load_dataset
    from nodepert.studies.setup import check_runs
    from nodepert.studies.trackers import trackers

    if not launcher.in_process:  # the GPUs are for the workers
        if not launcher.detaches and os.environ.get("JAX_PLATFORMS", "cpu") not in ("", "cpu"):
            check_jax_elsewhere()
        jax.config.update("jax_platforms", "cpu")
    runs = [study.runs[i] for i in numbers]
    for part in study.jobs(numbers):
        study.execution.check_runs(part)
    check_runs(runs)
    trackers(study.execution.log)
    for spec in dict.fromkeys(run.dataset for run in runs):  # fetched once, before several jobs ask for it
        load_dataset(spec, study.execution.data_dir)


def check_jax_elsewhere() -> None:
    """Start JAX as the workers will, in a process that leaves the GPUs to them. Raises UserError."""
    program = "from nodepert.training import devices; print('; '.join(devices.trouble() or ()))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    if done.returncode or done.stdout.strip():
        raise UserError(done.stdout.strip() or f"JAX does not start: {done.stderr.strip()[-200:]}")
