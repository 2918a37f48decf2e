"""Carry out the runs of a grid, in jobs, until each is through or has failed; and say how they stand.

A sweep looks at nothing but the store: what is through is not computed again, what another process is at is left to it
and waited for, and what a process that died has left goes on from its checkpoint.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from nodepert.errors import UserError
from nodepert.studies.run import Run, run_id
from nodepert.studies.setup import groups
from nodepert.studies.store import lock
from nodepert.studies.store.records import writing
from nodepert.studies.store.run_folder import FAILED, RUNNING, RunFolder, now, through
from nodepert.studies.sweep.jobs import Job, Launcher, State, read_job, tail, write_jobs

PAUSE = 1.0  # seconds between looks at the store


class Standing(NamedTuple):
    """How a run stands, by its folder: status ("" before it begins), last epoch, its row, its test accuracies."""

    status: str = ""
    epoch: int = 0
    row: dict[str, Any] | None = None
    curve: tuple[float, ...] = ()

    @property
    def through(self) -> bool:
        return through(self.status)


@dataclass
class Batch:
    """Jobs that were submitted together, and how they stand."""

    launcher: Launcher
    paths: list[Path]
    runs: list[list[int]]  # of each job, by their number in the sweep
    states: list[State] = field(default_factory=list)
    since: str = field(default_factory=now)  # when they were submitted


class Failure(NamedTuple):
    """A job that did not end well: its runs that are not through, why, its log and the end of it."""

    runs: list[int]
    why: str
    log: Path
    lines: list[str]


@dataclass
class Sweep:
    """Runs of one study. `per_job`: at most so many runs of a group go into one job (0: all); `log`: trackers."""

    name: str
    runs: list[Run]
    out: Path
    data_dir: Path | None = None
    checkpoint_every: float = 60.0
    per_job: int = 0
    log: tuple[str, ...] = ()
    stands: list[Standing] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    interrupts: int = 0

    def __post_init__(self):
        self.folders = [self.out.absolute() / self.name / run_id(run) for run in self.runs]
        self.stands = [Standing()] * len(self.runs)
        self.looked: dict[int, Any] = {}  # the files as they were when they were read
        self.look(range(len(self.runs)))

    def left(self) -> list[int]:
        """Runs that are neither through nor failed in this sweep."""
        failed = {i for failure in self.failures for i in failure.runs}
        return [i for i, stand in enumerate(self.stands) if not stand.through and i not in failed]

    def begun(self) -> list[int]:
        """Runs that are in some job of this study and not through: what `--retry` is about."""
        paths = (self.out.absolute() / self.name / "jobs").glob("*/*.json")
        known = {folder for path in paths for folder in job_folders(path)}
        return [i for i in self.left() if self.folders[i] in known or self.stands[i].status == FAILED]

    def tidy(self) -> None:
        """Clear away the leases of processes that were killed when their runs were through."""
        for folder, stand in zip(self.folders, self.stands, strict=True):
            if stand.through:
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
        out, data_dir = self.out.absolute(), self.data_dir and self.data_dir.absolute()
        made = [Job(self.name, out, data_dir, self.checkpoint_every, [self.runs[i] for i in part], self.log)
                for part in parts]  # fmt: skip
        paths = write_jobs(made)
        launcher.submit(paths)
        self.batches.append(Batch(launcher, paths, parts, [State("waiting")] * len(parts)))

    def follow(self) -> Iterator[None]:
        """Until the jobs that were submitted are over; yields after every look. Where the sweep is interrupted, a
        launcher that detaches is left alone; another is asked to stop, and the second time to stop at once."""
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
            if self.interrupts > heard:
                heard = self.interrupts
                if all(batch.launcher.detaches for batch in self.batches):
                    return  # the batches stay, for what is said of them
                for batch in self.batches:
                    batch.launcher.stop(at_once=self.interrupts > 1)
            time.sleep(max(PAUSE / 5 if heard else 0, min(PAUSE, 0.05 + 5 * (time.monotonic() - start))))
        self._close()

    def carry_out(self, launcher: Launcher, numbers: Sequence[int]) -> Iterator[None]:
        """Have these runs carried out, wait for those that other processes are at, and take on what those leave."""
        asked = set(numbers)
        while not self.interrupts and (left := [i for i in self.left() if i in asked]):
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
        """See how runs stand that were not through."""
        for i in numbers:
            stand, folder = self.stands[i], self.folders[i]
            key = [_stamp(folder / name) for name in ("config.json", "metrics.csv")]
            as_it_was = key == self.looked.get(i) and (stand.status != RUNNING or lock.seems_held(folder))
            if not stand.through and not as_it_was:
                self.stands[i], self.looked[i] = look(folder), key

    def _state(self, state: State, runs: Sequence[int]) -> State:
        """A job's own word; but one whose runs are all through has ended, whatever its scheduler says of it."""
        return State("ended") if not state.over and all(self.stands[i].through for i in runs) else state

    def _close(self) -> None:
        """Note the jobs that failed, in the records of their runs too."""
        for batch in self.batches:
            for k, state in enumerate(batch.states):
                left = [i for i in batch.runs[k] if not self.stands[i].through]
                if state.word == "failed" and left:
                    why = [mark_failed(self.folders[i], state.why, batch.since) for i in left]
                    log = batch.launcher.log(k)
                    self.failures.append(Failure(left, why[0] or state.why, log, tail(log)))
                    self.look(left)
        self.batches = []


def look(folder: Path) -> Standing:
    """How the run in a folder stands; what is damaged there is as not begun, and the worker will say so."""
    try:
        found = RunFolder.read(folder)
    except UserError:
        return Standing()
    status, rows = found.standing, found.rows()
    if through(status) and not found.done_with(rows):
        status = RUNNING  # its table is damaged
    last = rows[-1] if rows else None
    return Standing(status, last["epoch"] if last else 0, last, tuple(row["test_acc"] for row in rows))


def mark_failed(folder: Path, why: str, since: str) -> str:
    """Say in a run's record that it failed, unless a living process is at it or it says so itself `since` then. The
    reason that the record has then."""
    lease = lock.of(folder)
    with suppress(UserError, OSError):
        found = RunFolder.read(folder)
        if found.status == FAILED and str(found.record.get("updated")) >= since:
            return str(found.record.get("reason", why))
        if found.status in (RUNNING, FAILED) and lease.acquired():
            try:
                found.set_status(FAILED, reason=why)
            finally:
                lease.release()
    return why


def _stamp(path: Path) -> Any:
    """What tells whether a file was written anew."""
    try:
        stat = path.stat()
        return stat.st_mtime_ns, stat.st_size, stat.st_ino
    except OSError:
        return None


def job_folders(path: Path) -> list[Path]:
    """The folders of a job's runs; none where the file is no job."""
    try:
        return read_job(path).folders()
    except UserError:
        return []
