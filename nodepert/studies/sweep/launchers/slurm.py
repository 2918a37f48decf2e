"""The launcher of Slurm, by submitit: a job array, a task for each job; it goes on when the sweep's process ends."""

from __future__ import annotations

import io
import logging
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from contextlib import redirect_stderr, suppress
from pathlib import Path
from typing import Any

from nodepert.errors import UserError
from nodepert.studies.store.records import Damaged, sealed, unsealed, write_whole
from nodepert.studies.sweep.jobs import State
from nodepert.studies.sweep.sweep import Batch, Sweep, job_folders

FORMAT, VERSION = "nodepert-launch", 1
OPTIONS: dict[str, type] = {  # of the grid file's [slurm] table and of --slurm
    "time": float, "cpus": int, "gpus": int, "memory": float, "partition": str, "account": str, "qos": str,
    "constraint": str, "parallel": int, "warning": int, "setup": list, "extra": dict,
}  # fmt: skip
POLL = 3.0  # seconds between questions to Slurm
log = logging.getLogger("nodepert")
SURE = 2  # times that a job must be out of the queue: one that is queued again may be out for a moment


class Slurm:
    """Jobs of one array.

    Options: time (minutes), cpus, gpus, memory (GB), partition, account, qos, constraint, parallel (tasks at a time),
    warning (seconds before the time limit at which a job stops, with checkpoints), setup (lines of shell), extra (a
    table of any other options of sbatch).
    """

    detaches = True

    def __init__(self, name: str, options: dict[str, Any]):
        self.name, self.options = name, checked_options(options)
        if not shutil.which("sbatch"):
            raise UserError("there is no sbatch here: --launcher slurm works on a machine that submits to Slurm")
        try:
            import submitit  # noqa: F401
        except ImportError:
            raise UserError('--launcher slurm needs submitit: pip install "nodepert[slurm]"') from None
        self.handles: list[Any] = []
        self.out: dict[int, int] = {}  # how often a job was seen to be out of the queue
        self.asked, self.last = 0.0, []

    def submit(self, jobs: Sequence[Path]) -> None:
        import submitit

        from nodepert.studies.sweep.worker import on_slurm

        try:
            executor = submitit.SlurmExecutor(folder=jobs[0].parent)
            executor.update_parameters(**self._parameters())
            with redirect_stderr(io.StringIO()):  # the error has it as well
                self.handles = executor.map_array(on_slurm, [str(job) for job in jobs])
        except Exception as error:  # what sbatch says, in submitit's words
            shutil.rmtree(jobs[0].parent, ignore_errors=True)
            with suppress(OSError):
                for folder in list(jobs[0].parents)[1:4]:  # jobs/, the study's and all results', where they are empty
                    folder.rmdir()
            raise UserError(f"Slurm does not take these jobs: {' '.join(str(error).split())[:500]}") from None
        record = {"format": FORMAT, "version": VERSION, "launcher": "slurm", "ids": [h.job_id for h in self.handles]}
        write_whole(jobs[0].parent / "launch.json", sealed(record))

    def attach(self, place: Path) -> None:
        """Follow the jobs of an earlier submission, in their folder. Raises UserError."""
        import submitit

        told = unsealed(place / "launch.json", FORMAT, VERSION)
        if not isinstance(told.get("ids"), list) or not all(re.fullmatch(r"\d+_\d+", str(i)) for i in told["ids"]):
            raise Damaged(f"{place}/launch.json does not name Slurm jobs")
        self.handles = [submitit.SlurmJob(folder=place, job_id=str(number)) for number in told["ids"]]
        self.asked = 0.0

    def states(self) -> list[State]:
        if time.monotonic() - self.asked >= POLL or not self.last:
            self.asked = time.monotonic()
            queued = in_queue([handle.job_id for handle in self.handles])
            if queued is not None:  # else Slurm does not answer now
                self.last = [self._state(k, queued) for k in range(len(self.handles))]
            elif not self.last:
                self.last = [State("waiting")] * len(self.handles)
        return self.last

    def log(self, k: int) -> Path:
        """Standard error of the job; what it says else is beside it, in .out."""
        return Path(self.handles[k].paths.stderr)

    def stop(self, at_once: bool) -> None:
        pass

    def _parameters(self) -> dict[str, Any]:
        given = self.options
        theirs = {"cpus": "cpus_per_task", "gpus": "gpus_per_node", "extra": "additional_parameters"}
        apart = ("time", "memory", "parallel", "warning")
        found: dict[str, Any] = {theirs.get(name, name): value for name, value in given.items() if name not in apart}
        if "memory" in given:
            found["mem"] = f"{max(1, round(1024 * given['memory']))}MB"
        return found | {"job_name": self.name, "time": max(1, round(given.get("time", 60))), "nodes": 1,
                        "array_parallelism": given.get("parallel", 256),
                        "signal_delay_s": given.get("warning", 90)}  # fmt: skip

    def _state(self, k: int, queued: dict[str, str]) -> State:
        """By the queue, which knows a job until it is over; then by the accounts, where there are some."""
        number = self.handles[k].job_id
        if number in queued:
            self.out.pop(k, None)
            return State("running" if queued[number] in ("RUNNING", "COMPLETING", "SUSPENDED") else "waiting")
        self.out[k] = self.out.get(k, 0) + 1
        if self.out[k] < SURE:
            return State("running")
        word = account(number)
        if word == "COMPLETED":
            return State("ended")
        if word in ("", "RUNNING", "PENDING", "COMPLETING", "REQUEUED") and self.out[k] < 3 * SURE:
            return State("running")  # the accounts are behind
        return State("failed", f"Slurm job {number}: {word.lower().replace('_', ' ') or 'no longer in the queue'}")


def checked_options(options: dict[str, Any]) -> dict[str, Any]:
    """Options of Slurm jobs, checked. Raises UserError that lists the valid ones."""
    nouns = {int: "a whole number above 0", float: "a number above 0", str: "a text", list: "a list of texts",
             dict: "a table of texts and numbers"}  # fmt: skip
    found = {}
    for key, value in options.items():
        if key not in OPTIONS:
            raise UserError(f"slurm has no option '{key}'; there are: {', '.join(OPTIONS)}")
        kind = OPTIONS[key]
        number = isinstance(value, int | float) and not isinstance(value, bool)
        good = {
            int: number and isinstance(value, int) and 0 < value < 10**9,
            float: number and 0 < value < 10**9,
            str: isinstance(value, str) or number,
            list: isinstance(value, list) and all(isinstance(one, str) for one in value),
            dict: isinstance(value, dict)
            and all(isinstance(k, str) and isinstance(v, str | int | float) for k, v in value.items()),
        }[kind]
        if not good:
            raise UserError(f"slurm: {key} must be {nouns[kind]}; got {value!r}")
        found[key] = str(value) if kind is str else value
    return found


def account(number: str) -> str:
    """The state of a job by Slurm's accounts, such as COMPLETED; "" where there are none."""
    try:
        done = subprocess.run(["sacct", "-n", "-X", "-P", "-j", number, "-o", "State"], capture_output=True, text=True,
                              timeout=60)  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    words = [line.split()[0].rstrip("+") for line in done.stdout.splitlines() if line.split()]
    return words[-1] if words and not done.returncode else ""


def in_queue(numbers: Sequence[str]) -> dict[str, str] | None:
    """{job: its state} of those in the queue; None where Slurm does not answer."""
    arrays = ",".join(dict.fromkeys(number.split("_")[0] for number in numbers))
    try:
        done = subprocess.run(["squeue", "-h", "-r", "-j", arrays, "-o", "%i %T"], capture_output=True, text=True,
                              timeout=60)  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode and "Invalid job id" not in done.stderr:  # it forgets what is over
        return None
    return dict(line.split()[:2] for line in done.stdout.splitlines() if len(line.split()) > 1)


def active(study: Sweep, options: dict[str, Any]) -> list[Batch]:
    """The jobs of earlier commands that are still with Slurm; the sweep follows them. What is over is noted, so that
    Slurm is not asked again. Raises UserError."""
    number = {folder: i for i, folder in enumerate(study.folders)}
    for path in sorted((study.out.absolute() / study.name / "jobs").glob("*/launch.json")):
        if path.with_name("over").exists():
            continue
        launcher = Slurm(study.name, options)
        try:
            launcher.attach(path.parent)
        except UserError as error:
            log.warning("%s; its jobs are not followed", error)
            continue
        queued = in_queue([handle.job_id for handle in launcher.handles])
        if queued is None:
            raise UserError("Slurm does not answer (squeue); try again")
        if not any(handle.job_id in queued for handle in launcher.handles):
            with suppress(OSError):
                path.with_name("over").touch()
            continue
        jobs = [path.with_name(f"{k}.json") for k in range(len(launcher.handles))]
        runs = [[number[folder] for folder in job_folders(job) if folder in number] for job in jobs]
        ours = [k for k, of_job in enumerate(runs) if of_job and launcher.handles[k].job_id in queued]
        if ours:
            launcher.handles = [launcher.handles[k] for k in ours]
            picked = [jobs[k] for k in ours], [runs[k] for k in ours]
            study.batches.append(Batch(launcher, *picked, [State("waiting")] * len(ours)))
    return study.batches
