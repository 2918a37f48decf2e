"""The launcher `slurm`, by submitit: a job array, a task for each job; it continues when the sweep's process ends."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from contextlib import redirect_stderr, suppress
from pathlib import Path
from typing import Any

from nodepert.errors import UserError
from nodepert.registry.ranges import positive
from nodepert.studies.store.records import Damaged, sealed, unsealed, write_whole
from nodepert.studies.sweep.jobs import JobState, Launcher

FORMAT, VERSION = "nodepert-launch", 1
POLL = 3.0  # seconds between questions to Slurm
SURE = 2  # consecutive polls that a job must be out of the queue: a requeued one disappears briefly


def slurm(
    study: str,
    *,
    time: float = 60,
    cpus: int | None = None,
    gpus: int | None = None,
    memory: float | None = None,
    partition: str | None = None,
    account: str | None = None,
    qos: str | None = None,
    constraint: str | None = None,
    parallel: int = 256,
    warning: int = 90,
    setup: list | None = None,
    extra: dict | None = None,
) -> Launcher:
    """A Slurm job array, a task for each job.

    Args:
        time: Time limit of a job, minutes.
        cpus, gpus, memory: Of each job; memory in GB.
        partition, account, qos, constraint: As sbatch takes them.
        parallel: Tasks at a time.
        warning: Seconds before the time limit at which a job stops, with checkpoints, and is queued again.
        setup: Lines of shell that run before a job.
        extra: Any other options of sbatch, {name: value}.

    Raises:
        ValueError: For a number that is not positive.
        UserError: Where sbatch or submitit is missing.
    """
    numbers = {"time": time, "cpus": cpus, "gpus": gpus, "memory": memory, "parallel": parallel, "warning": warning}
    for name, value in numbers.items():
        positive(name, value)
    if not all(isinstance(line, str) for line in setup or []):
        raise ValueError(f"setup is a list of texts; got {setup!r}")
    if not all(type(value) in (str, int, float) for value in (extra or {}).values()):
        raise ValueError(f"extra is a table of texts and numbers; got {extra!r}")
    if not shutil.which("sbatch"):
        raise UserError("sbatch not found: --launcher slurm needs a machine that submits to Slurm")
    try:
        import submitit  # noqa: F401
    except ImportError:
        raise UserError('--launcher slurm needs submitit: pip install "nodepert[slurm]"') from None
    theirs = {"partition": partition, "account": account, "qos": qos, "constraint": constraint, "setup": setup,
              "cpus_per_task": cpus, "gpus_per_node": gpus, "additional_parameters": extra,
              "mem": None if memory is None else f"{max(1, round(1024 * memory))}MB"}  # fmt: skip
    return Slurm({name: value for name, value in theirs.items() if value is not None} | {
        "job_name": study, "time": max(1, round(time)), "nodes": 1, "array_parallelism": parallel,
        "signal_delay_s": warning,
    })  # fmt: skip


class Slurm(Launcher):
    """Jobs of one array. `parameters`: of submitit's SlurmExecutor."""

    detaches = attaches = True

    def __init__(self, parameters: dict[str, Any]):
        self.parameters = parameters
        self.handles: list[Any] = []
        self.out: dict[int, int] = {}  # how often a job was seen to be out of the queue
        self.asked, self.last = 0.0, []

    def submit(self, jobs: Sequence[Path]) -> None:
        import submitit

        from nodepert.studies.sweep.worker import on_slurm

        try:
            executor = submitit.SlurmExecutor(folder=jobs[0].parent)
            executor.update_parameters(**self.parameters)
            with redirect_stderr(io.StringIO()):  # the error has it as well
                self.handles = executor.map_array(on_slurm, [str(job) for job in jobs])
        except Exception as error:  # what sbatch says, in submitit's words
            shutil.rmtree(jobs[0].parent, ignore_errors=True)
            with suppress(OSError):
                for folder in list(jobs[0].parents)[1:4]:  # jobs/, the study's and all results', where they are empty
                    folder.rmdir()
            raise UserError(f"Slurm rejected the jobs: {' '.join(str(error).split())[:500]}") from None
        record = {"format": FORMAT, "version": VERSION, "launcher": "slurm", "ids": [h.job_id for h in self.handles]}
        write_whole(jobs[0].parent / "launch.json", sealed(record))

    def attach(self, folder: Path, numbers: Sequence[int]) -> list[int]:
        import submitit

        record = unsealed(folder / "launch.json", FORMAT, VERSION)
        if not isinstance(record.get("ids"), list) or not all(re.fullmatch(r"\d+_\d+", str(i)) for i in record["ids"]):
            raise Damaged(f"{folder}/launch.json does not name Slurm jobs")
        queued = in_queue(record["ids"])
        if queued is None:
            raise UserError("Slurm does not answer (squeue); try again")
        active = [k for k, number in enumerate(record["ids"]) if number in queued and k in numbers]
        self.handles = [submitit.SlurmJob(folder=folder, job_id=record["ids"][k]) for k in active]
        self.asked = 0.0
        return active

    def states(self) -> list[JobState]:
        if time.monotonic() - self.asked >= POLL or not self.last:
            self.asked = time.monotonic()
            queued = in_queue([handle.job_id for handle in self.handles])
            if queued is not None:  # else Slurm does not answer now
                over = {k: state for k, state in enumerate(self.last) if state.over}
                self.last = [over.get(k) or self._state(k, queued) for k in range(len(self.handles))]
            elif not self.last:
                self.last = [JobState("waiting")] * len(self.handles)
        return self.last

    def log(self, k: int) -> Path:
        """Standard error of the job; its standard output is beside it, in .out."""
        return Path(self.handles[k].paths.stderr)

    def _state(self, k: int, queued: dict[str, str]) -> JobState:
        """From squeue while it lists the job, then from sacct if accounting is enabled."""
        number = self.handles[k].job_id
        if number in queued:
            self.out.pop(k, None)
            return JobState("running" if queued[number] in ("RUNNING", "COMPLETING", "SUSPENDED") else "waiting")
        self.out[k] = self.out.get(k, 0) + 1
        if self.out[k] < SURE:
            return JobState("running")
        word = account(number)
        if word == "COMPLETED":
            return JobState("ended")
        if word in ("", "RUNNING", "PENDING", "COMPLETING", "REQUEUED") and self.out[k] < 3 * SURE:
            return JobState("running")  # the accounts are behind
        return JobState("failed", f"Slurm job {number}: {word.lower().replace('_', ' ') or 'no longer in the queue'}")


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
