"""A job of a sweep: some runs of one group, in a file that a worker carries out; and what a launcher is."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from nodepert.studies.run import Run, checked, from_dict, run_id
from nodepert.studies.store.records import Damaged, sealed, unsealed, write_whole, writing

FORMAT, VERSION = "nodepert-job", 1
STOPPED = 75  # exit status of a worker that was asked to stop: it has left checkpoints


class Job(NamedTuple):
    """What a worker needs to know. Paths are absolute."""

    name: str
    out: Path
    data_dir: Path | None
    checkpoint_every: float
    runs: list[Run]
    log: tuple[str, ...] = ()  # trackers, as specs

    def folders(self) -> list[Path]:
        """The runs' folders."""
        return [self.out / self.name / run_id(run) for run in self.runs]


class State(NamedTuple):
    """How a job stands: waiting, running, ended, stopped (as it was asked to), or failed, and then why."""

    word: str
    why: str = ""

    @property
    def over(self) -> bool:
        return self.word in ("ended", "stopped", "failed")


class Launcher(Protocol):
    """Something that carries out jobs, a few at a time. Jobs are files that `write_jobs` wrote, in one folder."""

    detaches: bool
    """Whether jobs go on when the sweep's own process ends."""

    def submit(self, jobs: Sequence[Path]) -> None:
        """Take on jobs. Raises UserError where it cannot."""

    def states(self) -> list[State]:
        """How they stand, in their order; asked every second or so, and may start some of them."""
        ...

    def log(self, k: int) -> Path:
        """The file of what job k says."""
        ...

    def stop(self, at_once: bool) -> None:
        """Ask what runs here to stop after its epoch, or end it at once; what detaches goes on."""


def write_jobs(jobs: Sequence[Job]) -> list[Path]:
    """Write the jobs of one sweep to a new folder, `<out>/<name>/jobs/<time>/`. Raises UserError."""
    place = jobs[0].out / jobs[0].name / "jobs" / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    while place.exists():
        place = place.with_name(place.name + "+")
    with writing(place):
        place.mkdir(parents=True)
    paths = [place / f"{k}.json" for k in range(len(jobs))]
    for path, job in zip(paths, jobs, strict=True):
        places = {"out": str(job.out), "data_dir": job.data_dir and str(job.data_dir)}
        values: dict[str, Any] = job._asdict() | places | {"runs": [asdict(checked(run)) for run in job.runs]}
        write_whole(path, sealed({"format": FORMAT, "version": VERSION, **values}))
    return paths


def read_job(path: Path) -> Job:
    """The job in a file. Raises UserError for anything that `write_jobs` did not write."""
    told = unsealed(path, FORMAT, VERSION)
    try:
        data_dir = told["data_dir"] and Path(told["data_dir"])
        runs = [from_dict(values) for values in told["runs"]]
        log = tuple(map(str, told.get("log", ())))  # until 0.1 there was none
        return Job(str(told["name"]), Path(told["out"]), data_dir, float(told["checkpoint_every"]), runs, log)
    except (KeyError, TypeError, ValueError) as error:
        raise Damaged(f"{path} is not a job of this NodePert: {error}") from None


def tail(path: Path, lines: int = 10) -> list[str]:
    """The last lines of a log; none where there is no log."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 8_000))
            return file.read().decode(errors="replace").splitlines()[-lines:]
    except OSError:
        return []


def last_words(path: Path, code: object) -> str:
    """Why a worker ended, by the last line of its log; its exit status where it said nothing."""
    said = next((line for line in reversed(tail(path)) if line.strip()), f"exit status {code}")
    return said.removeprefix("nodepert: error: ")
