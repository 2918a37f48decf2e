"""The launcher `debug`: each job in this process, one after another, so that a debugger sees it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nodepert.studies.sweep.jobs import JobState, Launcher, read_job
from nodepert.studies.sweep.worker import train_job


def debug(study: str) -> Launcher:
    """This process, one job after another. An exception of a job ends the sweep, and so does Ctrl-C."""
    return Debug()


class Debug(Launcher):
    in_process = True

    def __init__(self):
        self.jobs: list[Path] = []
        self.ended = 0

    def submit(self, jobs: Sequence[Path]) -> None:
        self.jobs, self.ended = list(jobs), 0

    def states(self) -> list[JobState]:
        if self.ended < len(self.jobs):
            train_job(read_job(self.jobs[self.ended]))
            self.ended += 1
        return [JobState("ended") if k < self.ended else JobState("waiting") for k in range(len(self.jobs))]

    def log(self, k: int) -> Path:
        return self.jobs[k].with_suffix(".log")
