"""The launcher of Slurm, by submitit: a job array, a task for each job; it goes on when the sweep's process ends."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nodepert.jobs import State, one_of
from nodepert.records import sealed, unsealed, write_whole
from nodepert.registry import UserError
from nodepert.sweeping import Batch, job_folders

FORMAT, VERSION = "nodepert-launch", 1
OPTIONS: dict[str, type] = {  # of the grid file's [slurm] table and of --slurm
    "time": float, "cpus": int, "gpus": int, "memory": float, "partition": str, "account": str, "qos": str,
    "constraint": str, "parallel": int, "warning": int, "setup": list, "extra": dict,
}  # fmt: skip
ENDS = {"COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", "OUT_OF_MEMORY", "NODE_FAIL", "BOOT_FAIL", "DEADLINE"}
POLL = 3.0  # seconds between questions to Slurm
SURE = 3  # times that a failure must be seen: a job that is queued again shows one for a moment


class Slurm:
    """Jobs of one array.

    Options: time (minutes), cpus, gpus, memory (GB), partition, account, qos, constraint, parallel (tasks at a time),
    warning (seconds before the time limit at which a job stops, with checkpoints), setup (lines of shell), extra (a
    table of any other options of sbatch).
    """

    detaches = True

    def __init__(self, name: str, options: dict[str, Any]):
        self.name, self.options = name, one_of(options, OPTIONS, "slurm")
        if not shutil.which("sbatch"):
            raise UserError("there is no sbatch here: --launcher slurm works on a machine that submits to Slurm")
        try:
            import submitit  # noqa: F401
        except ImportError:
            raise UserError('--launcher slurm needs submitit: pip install "nodepert[slurm]"') from None
        self.handles: list[Any] = []
        self.seen: dict[int, int] = {}
        self.asked, self.last = 0.0, []

    def submit(self, jobs: Sequence[Path]) -> None:
        import submitit

        from nodepert.launch.worker import on_slurm

        executor = submitit.SlurmExecutor(folder=jobs[0].parent)
        executor.update_parameters(**self._parameters())
        try:
            self.handles = executor.map_array(on_slurm, [str(job) for job in jobs])
        except Exception as error:  # what sbatch says, in submitit's words
            raise UserError(f"Slurm does not take these jobs: {' '.join(str(error).split())[:500]}") from None
        record = {"format": FORMAT, "version": VERSION, "launcher": "slurm", "ids": [h.job_id for h in self.handles]}
        write_whole(jobs[0].parent / "launch.json", sealed(record))

    def attach(self, place: Path) -> None:
        """Follow the jobs of an earlier submission, in their folder. Raises UserError."""
        import submitit

        told = unsealed(place / "launch.json", FORMAT, VERSION)
        self.handles = [submitit.SlurmJob(folder=place, job_id=str(number)) for number in told["ids"]]
        self.asked = 0.0

    def over(self) -> bool:
        """Whether all of them are, by one look."""
        self.handles[0].watcher.update()
        words = (h.watcher.get_state(h.job_id, mode="cache").split() or ["UNKNOWN"] for h in self.handles)
        return all(word[0].rstrip("+") in ENDS for word in words)

    def ids(self) -> str:
        """How Slurm calls them."""
        return ", ".join(dict.fromkeys(handle.job_id.split("_")[0] for handle in self.handles))

    def states(self) -> list[State]:
        if time.monotonic() - self.asked >= POLL or not self.last:
            self.asked = time.monotonic()
            self.handles[0].watcher.update()
            self.last = [self._state(k) for k in range(len(self.handles))]
        return self.last

    def log(self, k: int) -> Path:
        """Standard error of the job; what it says else is beside it, in .out."""
        return Path(self.handles[k].paths.stderr)

    def stop(self, at_once: bool) -> None:
        pass

    def _parameters(self) -> dict[str, Any]:
        given = self.options
        names = {"cpus": "cpus_per_task", "gpus": "gpus_per_node", "partition": "partition", "account": "account",
                 "qos": "qos", "constraint": "constraint", "setup": "setup"}  # fmt: skip
        found: dict[str, Any] = {theirs: given[ours] for ours, theirs in names.items() if ours in given}
        if "memory" in given:
            found["mem"] = f"{max(1, round(1024 * given['memory']))}MB"
        if "extra" in given:
            found["additional_parameters"] = given["extra"]
        return found | {"job_name": self.name, "time": max(1, round(given.get("time", 60))), "nodes": 1,
                        "array_parallelism": given.get("parallel", 256),
                        "signal_delay_s": given.get("warning", 90)}  # fmt: skip

    def _state(self, k: int) -> State:
        handle = self.handles[k]
        words = handle.watcher.get_state(handle.job_id, mode="cache").split() or ["UNKNOWN"]
        word = words[0].rstrip("+")
        if word == "COMPLETED":
            return State("ended")
        if word in ENDS:
            self.seen[k] = self.seen.get(k, 0) + 1
            if self.seen[k] >= SURE:
                return State("failed", f"Slurm job {handle.job_id}: {word.lower().replace('_', ' ')}")
            handle.watcher._finished.discard(handle.job_id)  # submitit would not ask again
            return State("running")
        self.seen.pop(k, None)
        return State("waiting" if word in ("PENDING", "REQUEUED", "UNKNOWN", "PREEMPTED") else "running")


def active(study: Any, options: dict[str, Any]) -> list[Batch]:
    """The jobs of earlier commands that are still with Slurm; the sweep follows them. What is over is noted, so that
    Slurm is not asked again. Raises UserError."""
    place = study.out.absolute() / study.name / "jobs"
    number = {folder: i for i, folder in enumerate(study.folders)}
    for path in sorted(place.glob("*/launch.json")):
        if path.with_name("over").exists():
            continue
        launcher = Slurm(study.name, options)
        launcher.attach(path.parent)
        paths = [path.with_name(f"{k}.json") for k in range(len(launcher.handles))]
        runs = [[number[folder] for folder in job_folders(job) if folder in number] for job in paths]
        if launcher.over():
            path.with_name("over").touch()
        else:
            study.batches.append(Batch(launcher, paths, runs, [State("waiting")] * len(paths)))
    return study.batches
