"""Execute the runs of a grid, in jobs, until each has its result or has failed.

A sweep looks only at the store: finished runs are not computed again, locked ones are waited for, and those whose
process died resume from their checkpoint.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from nodepert.errors import UserError
from nodepert.registry import make
from nodepert.registry.spec import Spec
from nodepert.studies.execution import Execution
from nodepert.studies.run import Run
from nodepert.studies.setup import groups
from nodepert.studies.stopping import Stopping
from nodepert.studies.store import lock
from nodepert.studies.store.records import Damaged, Foreign, writing
from nodepert.studies.store.run_folder import FAILED, RUNNING, RunFolder, has_result, now
from nodepert.studies.sweep.jobs import Job, JobState, Launcher, job_folders, tail, write_jobs
from nodepert.training.metrics import Row, score_of

PAUSE = 1.0  # seconds between looks at the store
log = logging.getLogger("nodepert")


class Progress(NamedTuple):
    """How far a run is, by its folder: status ("" before it starts), last row, scores of all epochs."""

    status: str = ""
    last: Row | None = None
    curve: tuple[float, ...] = ()

    @property
    def finished(self) -> bool:
        return has_result(self.status)

    @property
    def epoch(self) -> int:
        return self.last["epoch"] if self.last else 0


@dataclass
class Batch:
    """Jobs that were submitted together, and their states."""

    launcher: Launcher
    paths: list[Path]
    runs: list[list[int]]  # of each job, by their number in the sweep
    states: list[JobState] = field(default_factory=list)
    since: str = field(default_factory=now)  # when they were submitted


class Failure(NamedTuple):
    """A job that did not end well: its runs without a result, why, its log and the end of it."""

    runs: list[int]
    why: str
    log: Path
    lines: list[str]


@dataclass
class Sweep:
    """Runs of one study. `per_job`: at most so many runs of a group go into one job (0: all)."""

    name: str
    runs: list[Run]
    out: Path
    execution: Execution = field(default_factory=Execution)
    per_job: int = 0
    stopping: Stopping = field(default_factory=Stopping)
    batches: list[Batch] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    def __post_init__(self):
        self.out = self.out.absolute()
        self.folders = [self.out / self.name / run.id for run in self.runs]
        self.progress = [Progress()] * len(self.runs)
        self.seen: dict[int, Any] = {}  # the files as they were when they were read
        self.look(range(len(self.runs)))

    def left(self) -> list[int]:
        """Runs that neither have their result nor failed in this sweep."""
        failed = {i for failure in self.failures for i in failure.runs}
        return [i for i, progress in enumerate(self.progress) if not progress.finished and i not in failed]

    def started(self) -> list[int]:
        """Runs that are in some job of this study and have no result: those that `--retry` is about."""
        known = {folder for path in self._job_files("*.json") for folder in job_folders(path)}
        return [i for i in self.left() if self.folders[i] in known or self.progress[i].status == FAILED]

    def tidy(self) -> None:
        """Remove the locks of processes that were killed when their runs had finished."""
        for folder, progress in zip(self.folders, self.progress, strict=True):
            if progress.finished:
                with suppress(OSError):
                    lock.of(folder).free()

    def jobs(self, numbers: Sequence[int]) -> list[list[int]]:
        """Which runs go into one job: those of a group, at most `per_job`."""
        found = []
        for group in groups([self.runs[i] for i in numbers]):
            size = self.per_job or len(group)
            found += [[numbers[k] for k in group[at : at + size]] for at in range(0, len(group), size)]
        return found

    def submit(self, launcher: Launcher, numbers: Sequence[int]) -> None:
        """Write jobs for these runs and give them to a launcher. Raises UserError."""
        parts = self.jobs(numbers)
        paths = write_jobs([Job(self.name, self.out, [self.runs[i] for i in part], self.execution) for part in parts])
        launcher.submit(paths)
        self.batches.append(Batch(launcher, paths, parts, [JobState("waiting")] * len(parts)))

    def attach(self, spec: Spec) -> list[Batch]:
        """Follow the jobs that earlier sweeps left with such a launcher. Raises UserError."""
        number = {folder: i for i, folder in enumerate(self.folders)}
        for record in self._job_files("launch.json"):
            if record.with_name("over").exists():
                continue
            jobs = sorted(record.parent.glob("[0-9]*.json"), key=lambda path: int(path.stem))
            runs = {int(job.stem): [number[f] for f in job_folders(job) if f in number] for job in jobs}
            launcher = make("launcher", spec, self.name)
            try:
                active = launcher.attach(record.parent, [k for k, own in runs.items() if own])
            except (Damaged, Foreign) as error:
                log.warning("%s; its jobs are not followed", error)
                continue
            if active:
                paths, parts = [record.with_name(f"{k}.json") for k in active], [runs[k] for k in active]
                self.batches.append(Batch(launcher, paths, parts, [JobState("waiting")] * len(active)))
            else:
                with suppress(OSError):
                    record.with_name("over").touch()  # so that its scheduler is not asked again
        return self.batches

    def follow(self) -> Iterator[None]:
        """Until the submitted jobs are over; yields after every look. At an interruption a launcher that detaches is
        left alone; another is asked to stop, and the second time to stop at once."""
        heard = 0
        while True:
            start = time.monotonic()
            over = True
            for batch in self.batches:
                batch.states = [self._state(state, runs) for state, runs in
                                zip(batch.launcher.states(), batch.runs, strict=True)]  # fmt: skip
                over &= all(state.over for state in batch.states)
            self.look(i for batch in self.batches for runs in batch.runs for i in runs)
            yield
            if over:
                break
            if self.stopping.count > heard:
                heard = self.stopping.count
                if all(batch.launcher.detaches for batch in self.batches):
                    return  # the batches stay, for the report
                for batch in self.batches:
                    batch.launcher.stop(at_once=heard > 1)
            time.sleep(max(PAUSE / 5 if heard else 0, min(PAUSE, 0.05 + 5 * (time.monotonic() - start))))
        self._close()

    def execute(self, launcher: Launcher, numbers: Sequence[int]) -> Iterator[None]:
        """Execute these runs; wait for those locked by other processes, and take over what those leave unfinished."""
        asked = set(numbers)
        while not self.stopping.count and (left := [i for i in self.left() if i in asked]):
            with writing(self.out):
                free = [i for i in left if lock.of(self.folders[i]).free()]
            if free:
                self.submit(launcher, free)
                yield from self.follow()
                if launcher.detaches:
                    return
            else:
                time.sleep(PAUSE)
                self.look(asked)
                yield

    def look(self, numbers: Iterable[int]) -> None:
        """Refresh the progress of unfinished runs."""
        for i in numbers:
            progress, folder = self.progress[i], self.folders[i]
            key = [_stamp(folder / name) for name in ("config.json", "metrics.csv")]
            unchanged = key == self.seen.get(i) and (progress.status != RUNNING or lock.seems_held(folder))
            if not progress.finished and not unchanged:
                self.progress[i], self.seen[i] = progress_of(folder), key

    def _state(self, state: JobState, runs: Sequence[int]) -> JobState:
        """A job's own state; but one whose runs all have their result has ended, whatever its scheduler says."""
        return JobState("ended") if not state.over and all(self.progress[i].finished for i in runs) else state

    def _close(self) -> None:
        """Note the jobs that failed, in the records of their runs too."""
        for batch in self.batches:
            for k, state in enumerate(batch.states):
                left = [i for i in batch.runs[k] if not self.progress[i].finished]
                if state.word == "failed" and left:
                    why = [mark_failed(self.folders[i], state.why, batch.since) for i in left]
                    file = batch.launcher.log(k)
                    self.failures.append(Failure(left, why[0] or state.why, file, tail(file)))
                    self.look(left)
        self.batches = []

    def _job_files(self, pattern: str) -> list[Path]:
        return sorted((self.out / self.name / "jobs").glob(f"*/{pattern}"))


def progress_of(folder: Path) -> Progress:
    """How far the run in a folder is; a corrupt one has not started, and the worker will say why."""
    try:
        found = RunFolder.read(folder)
    except UserError:
        return Progress()
    status, rows = found.status, found.rows()
    if has_result(status) and not found.is_done_with(rows):
        status = RUNNING  # its table is corrupt
    return Progress(status, rows[-1] if rows else None, tuple(row.get(score_of(row), math.nan) for row in rows))


def mark_failed(folder: Path, why: str, since: str) -> str:
    """Record that a run failed, unless a living process holds it, or has recorded a failure since `since`. Returns the
    recorded reason."""
    held = lock.of(folder)
    with suppress(UserError, OSError):
        found = RunFolder.read(folder)
        if found.record["status"] == FAILED and str(found.record.get("updated")) >= since:
            return str(found.record.get("reason", why))
        if held.acquired():
            try:
                found = RunFolder.read(folder)  # nobody changes it now
                if found.record["status"] in (RUNNING, FAILED):
                    found.set_status(FAILED, reason=why)
            finally:
                held.release()
    return why


def _stamp(path: Path) -> Any:
    """Changes when a file is written again."""
    try:
        stat = path.stat()
        return stat.st_mtime_ns, stat.st_size, stat.st_ino
    except OSError:
        return None
