"""A job of a sweep: some runs of one group, in a file that a worker executes; and what a launcher is."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from nodepert.studies.execution import Execution, execution_of
from nodepert.studies.run import Run, from_config, refuse_unnamed
from nodepert.studies.store.records import Damaged, sealed, unsealed, write_whole, writing

FORMAT, VERSION = "nodepert-job", 2  # version 1 had the fields of its execution at the top
STOPPED = 75  # exit status of a worker that was asked to stop: it has left checkpoints


class Job(NamedTuple):
    """What a worker needs to know. Paths are absolute."""

    name: str
    out: Path
    runs: list[Run]
    execution: Execution

    def folders(self) -> list[Path]:
        """The runs' folders."""
        return [self.out / self.name / run.id for run in self.runs]


class JobState(NamedTuple):
    """waiting, running, ended, stopped (on request), or failed, and then why."""

    word: str
    why: str = ""

    @property
    def over(self) -> bool:
        return self.word in ("ended", "stopped", "failed")


class Launcher:
    """Something that executes jobs, a few at a time. Jobs are files that `write_jobs` wrote, in one folder."""

    detaches = False
    """Whether jobs continue when the sweep's own process ends."""
    in_process = False
    """Whether jobs run in the sweep's own process."""
    attaches = False
    """Whether a later sweep can follow the jobs that an earlier one left."""

    def submit(self, jobs: Sequence[Path]) -> None:
        """Take on jobs; `states` may start them. Raises UserError."""
        raise NotImplementedError

    def states(self) -> list[JobState]:
        """The states of the jobs, in their order; asked every second or so, and may start some of them."""
        raise NotImplementedError

    def log(self, k: int) -> Path:
        """The file of the output of job k."""
        raise NotImplementedError

    def stop(self, at_once: bool) -> None:
        """Ask the jobs of this machine to stop after their epoch, or end them at once; those that detach continue."""

    def attach(self, folder: Path, numbers: Sequence[int]) -> list[int]:
        """Follow these of the jobs that were submitted from a folder. Returns the numbers of those that are not over,
        in the order of `states`. Raises UserError."""
        raise NotImplementedError


def write_jobs(jobs: Sequence[Job]) -> list[Path]:
    """Write the jobs of one sweep to a new folder, `<out>/<name>/jobs/<time>/`. Raises UserError."""
    refuse_unnamed([run for job in jobs for run in job.runs], "saved")
    folder = jobs[0].out / jobs[0].name / "jobs" / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    while folder.exists():
        folder = folder.with_name(folder.name + "+")
    with writing(folder):
        folder.mkdir(parents=True)
    paths = [folder / f"{k}.json" for k in range(len(jobs))]
    for path, job in zip(paths, jobs, strict=True):
        values: dict[str, Any] = {"name": job.name, "out": str(job.out), "execution": job.execution.to_json(),
                                  "runs": [asdict(run) for run in job.runs]}  # fmt: skip
        write_whole(path, sealed({"format": FORMAT, "version": VERSION, **values}))
    return paths


def read_job(path: Path) -> Job:
    """The job in a file. Raises UserError for anything that `write_jobs` did not write."""
    record = unsealed(path, FORMAT, VERSION)
    try:
        first = {key: record.get(key, ()) for key in ("data_dir", "checkpoint_every", "log")}
        execution = execution_of(**(first if record["version"] == 1 else record["execution"]))
        runs = [from_config(values) for values in record["runs"]]
        return Job(str(record["name"]), Path(record["out"]), runs, execution)
    except (KeyError, TypeError, ValueError) as error:
        raise Damaged(f"{path} is not a job of this NodePert: {error}") from None


def job_folders(path: Path) -> list[Path]:
    """The folders of a job's runs; none where the file is no job."""
    try:
        return read_job(path).folders()
    except ValueError:
        return []


def tail(path: Path, lines: int = 10) -> list[str]:
    """The last lines of a log; none where there is no log."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 8_000))
            return file.read().decode(errors="replace").splitlines()[-lines:]
    except OSError:
        return []


def reason_in(path: Path, code: object) -> str:
    """Why a worker ended: the last line of its log, or its exit status."""
    last = next((line for line in reversed(tail(path)) if line.strip()), f"exit status {code}")
    return last.removeprefix("nodepert: error: ")
