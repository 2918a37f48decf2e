"""The launcher of any other scheduler: a command for each job, such as "bsub -q long -o {log} {command}"."""

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
from nodepert.studies.sweep.jobs import State, last_words
from nodepert.studies.sweep.sweep import job_folders, look


class Template:
    """Gives a job to a scheduler by a command of the user's, in which {command}, {log} and {name} are filled in.

    How the job stands is told by its runs, and by the exit status that its worker leaves beside it, if it can: a
    scheduler's own word is not known here.
    """

    detaches = True

    def __init__(self, template: str, name: str):
        try:
            filled = template.format(command="", log="", name="")
        except (KeyError, IndexError, ValueError) as error:
            raise UserError(
                f"cannot fill in {template!r} ({error}): it may have {{command}}, {{log}}, {{name}}"
            ) from None
        if "{command}" not in template or not filled.strip():
            raise UserError("a template is a command with {command} in it, as in 'bsub -o {log} {command}'")
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

    def states(self) -> list[State]:
        return [self._state(k) for k in range(len(self.jobs))]

    def log(self, k: int) -> Path:
        return self.jobs[k].with_suffix(".log")

    def stop(self, at_once: bool) -> None:
        pass

    def _state(self, k: int) -> State:
        path = self.jobs[k]
        with suppress(OSError):
            code = path.with_suffix(".status").read_text().strip()
            return State("ended") if code == "0" else State("failed", last_words(self.log(k), code))
        found = [look(folder) for folder in job_folders(path)]
        if found and all(stand.through for stand in found):
            return State("ended")
        if any(stand.status == RUNNING for stand in found):
            self.gone.pop(k, None)
            return State("running")
        if any(stand.status == INTERRUPTED for stand in found):
            since = self.gone.setdefault(k, time.monotonic())
            if time.monotonic() - since > lock.LASTS:
                return State("failed", "its process is gone")
        return State("waiting")
