"""The launcher `command`: a command for each job, as another scheduler takes it."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from nodepert.errors import UserError
from nodepert.studies.store import lock
from nodepert.studies.store.run_folder import INTERRUPTED, RUNNING
from nodepert.studies.sweep.jobs import STOPPED, JobState, Launcher, job_folders, reason_in
from nodepert.studies.sweep.sweep import progress_of


def command(study: str, *, template: str = "") -> Launcher:
    """Any other scheduler, by a command for each job.

    Args:
        template: The command, in which {command}, {log} and {name} are filled in: 'bsub -q long -o {log} {command}'.

    Raises:
        UserError: For a template without {command}, or with another field.
    """
    try:
        filled = template.format(command="", log="", name="")
    except (KeyError, IndexError, ValueError) as error:
        raise UserError(f"cannot fill in {template!r} ({error}): it may have {{command}}, {{log}}, {{name}}") from None
    if "{command}" not in template or not filled.strip():
        raise UserError("a template is a command with {command} in it, as in 'bsub -o {log} {command}'")
    return Command(template, study)


class Command(Launcher):
    """The state of a job follows from its runs and from the exit status that its worker writes beside it; the scheduler
    is not asked."""

    detaches = True

    def __init__(self, template: str, name: str):
        self.template, self.name = template, name
        self.jobs: list[Path] = []
        self.gone: dict[int, float] = {}  # since when

    def submit(self, jobs: Sequence[Path]) -> None:
        self.jobs = list(jobs)
        for k, job in enumerate(jobs):
            command = shlex.join([sys.executable, "-m", "nodepert.studies.sweep.worker", str(job)])
            line = self.template.format(command=command, log=shlex.quote(str(self.log(k))), name=self.name)
            done = subprocess.run(line, shell=True, capture_output=True, text=True, stdin=subprocess.DEVNULL)
            if done.returncode:
                said = " ".join((done.stderr or done.stdout).split())[:300]
                raise UserError(f"'{line}' ended with status {done.returncode}: {said}")

    def states(self) -> list[JobState]:
        return [self._state(k) for k in range(len(self.jobs))]

    def log(self, k: int) -> Path:
        return self.jobs[k].with_suffix(".log")

    def _state(self, k: int) -> JobState:
        path = self.jobs[k]
        with suppress(OSError):
            code = path.with_suffix(".status").read_text().strip()
            if code == str(STOPPED):
                return JobState("failed", "the worker was asked to stop; it left checkpoints")
            return JobState("ended") if code == "0" else JobState("failed", reason_in(self.log(k), code))
        found = [progress_of(folder) for folder in job_folders(path)]
        if found and all(progress.finished for progress in found):
            return JobState("ended")
        if any(progress.status == RUNNING for progress in found):
            self.gone.pop(k, None)
            return JobState("running")
        if any(progress.status == INTERRUPTED for progress in found):
            since = self.gone.setdefault(k, time.monotonic())
            if time.monotonic() - since > lock.LASTS:
                return JobState("failed", "its process is gone")
        return JobState("waiting")
