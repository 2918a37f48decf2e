"""The launcher `local`: worker processes on this machine, a few at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from nodepert.registry.ranges import at_least
from nodepert.studies.store.records import writing
from nodepert.studies.sweep.jobs import STOPPED, JobState, Launcher, reason_in


def local(study: str, *, jobs: int = 1) -> Launcher:
    """Worker processes on this machine, each with a share of the cores and GPUs.

    Args:
        jobs: Processes side by side.

    Raises:
        ValueError: For fewer than one.
    """
    at_least("jobs", jobs, 1)
    return Local(jobs)


class Local(Launcher):
    """Each job in a process of its own, so that a crash, out of memory included, takes down no other."""

    def __init__(self, at_once: int):
        self.at_once = at_once
        self.jobs: list[Path] = []
        self.processes: dict[int, subprocess.Popen] = {}
        self.slots: dict[int, int] = {}  # of the jobs that run
        self.stopping = False

    def submit(self, jobs: Sequence[Path]) -> None:
        self.jobs, self.processes, self.slots = list(jobs), {}, {}

    def states(self) -> list[JobState]:
        self.slots = {k: slot for k, slot in self.slots.items() if self.processes[k].poll() is None}
        for k in range(len(self.jobs)):
            if len(self.slots) >= self.at_once or self.stopping:
                break
            if k not in self.processes:
                slot = min(set(range(self.at_once)) - set(self.slots.values()))
                self.processes[k], self.slots[k] = self._start(k, slot), slot
        return [self._state(k) for k in range(len(self.jobs))]

    def log(self, k: int) -> Path:
        return self.jobs[k].with_suffix(".log")

    def stop(self, at_once: bool) -> None:
        self.stopping = True
        for k in self.slots:
            self.processes[k].send_signal(signal.SIGKILL if at_once else signal.SIGTERM)

    def _start(self, k: int, slot: int) -> subprocess.Popen:
        command = [sys.executable, "-m", "nodepert.studies.sweep.worker", str(self.jobs[k]), "tied"]
        with writing(self.log(k)), open(self.log(k), "ab") as log:
            return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=self._share(slot),
                                    start_new_session=True)  # fmt: skip

    def _share(self, slot: int) -> dict[str, str]:
        """The environment of a worker: which cores and GPUs are its own."""
        env = dict(os.environ)
        if self.at_once > 1 and hasattr(os, "sched_getaffinity"):
            cores = sorted(os.sched_getaffinity(0))
            env["NODEPERT_CORES"] = ",".join(map(str, cores[slot :: self.at_once] or [cores[slot % len(cores)]]))
        said = os.environ.get("CUDA_VISIBLE_DEVICES")
        found = [p.name[6:] for p in Path("/dev").glob("nvidia[0-9]*")] if said is None else said.split(",")
        gpus = sorted(filter(None, found))
        if self.at_once > 1 and gpus:
            env["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[slot :: self.at_once] or [gpus[slot % len(gpus)]])
            if self.at_once > len(gpus):  # JAX takes three quarters of a GPU's memory
                env.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", f"{0.75 * len(gpus) / self.at_once:.2f}")
        return env

    def _state(self, k: int) -> JobState:
        if k not in self.processes:
            return JobState("stopped") if self.stopping else JobState("waiting")
        code = self.processes[k].poll()
        if code is None:
            return JobState("running")
        if self.stopping and (code == STOPPED or code < 0):
            return JobState("stopped")
        if code < 0:
            more = " (possibly out of memory)" if -code == signal.SIGKILL else ""
            return JobState("failed", f"the worker was killed by {signal.Signals(-code).name}{more}")
        if code == STOPPED:
            return JobState("failed", "its process was asked to stop; it left checkpoints")
        if code == 0:
            return JobState("ended")
        return JobState("failed", reason_in(self.log(k), code))
