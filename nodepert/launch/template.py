"""The launcher of any other scheduler: a command for each job, such as "bsub -q long -o {log} {command}"."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from nodepert.jobs import State, read_job
from nodepert.registry import UserError
from nodepert.store import RUNNING, standing


class Template:
    """Gives a job to a scheduler by a command of the user's, in which {command}, {log} and {name} are filled in.

    How the job stands is told by its runs: a scheduler's own word is not known here.
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

    def submit(self, jobs: Sequence[Path]) -> None:
        self.jobs = list(jobs)
        for k, job in enumerate(jobs):
            command = shlex.join([sys.executable, "-m", "nodepert.launch.worker", str(job)])
            line = self.template.format(command=shlex.quote(command), log=shlex.quote(str(self.log(k))), name=self.name)
            done = subprocess.run(line, shell=True, capture_output=True, text=True, stdin=subprocess.DEVNULL)
            if done.returncode:
                said = " ".join((done.stderr or done.stdout).split())[:300]
                raise UserError(f"'{line}' ended with status {done.returncode}: {said}")

    def states(self) -> list[State]:
        return [self._state(job) for job in self.jobs]

    def log(self, k: int) -> Path:
        return self.jobs[k].with_suffix(".log")

    def stop(self, at_once: bool) -> None:
        pass

    def _state(self, path: Path) -> State:
        found = [_standing(folder) for folder in read_job(path).folders()]
        if all(word == "finished" or word.startswith("diverged") or word == "failed" for word in found):
            return State("ended")
        return State("running" if RUNNING in found else "waiting")


def _standing(folder: Path) -> str:
    try:
        return standing(folder)
    except UserError:
        return ""
