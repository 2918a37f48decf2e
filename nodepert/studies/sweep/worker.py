"""Execute one job: `python -m nodepert.studies.sweep.worker JOB.json [tied]`, or `on_slurm(JOB.json)` in a Slurm job.

What it says goes to the job's log. A request to stop (SIGTERM, on Slurm SIGUSR2 before a time limit or a preemption) is
answered at the end of the epoch, with checkpoints; on Slurm the job then goes back into the queue.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from nodepert.errors import UserError
from nodepert.studies.callbacks import Callback, StateOf
from nodepert.studies.run import Run
from nodepert.studies.stopping import Stopped
from nodepert.studies.sweep.jobs import STOPPED, Job, read_job
from nodepert.training.metrics import Row


class Asked(Callback):
    """What signals have asked for, and how many epochs were trained since the start."""

    def __init__(self, *numbers: signal.Signals):
        self.signal: int | None = None
        self.epochs = 0
        for number in numbers:
            signal.signal(number, self._heard)

    def _heard(self, number: int, _: object) -> None:
        if self.signal != signal.SIGUSR2:  # what is sent after it does not take it back
            self.signal = number
        print(f"asked to stop by {signal.Signals(number).name}: at the end of this epoch", flush=True)

    def stop(self) -> bool:
        return self.signal is not None

    def on_epoch(self, run: Run, row: Row, state: StateOf) -> None:
        self.epochs += row["epoch"] > 0 and not state.read_back


def train_job(job: Job, stop: Callable[[], bool], callbacks: Sequence[Callback] = ()) -> None:
    """Train a job's runs, but those that are through or that other processes are at; rows go to standard output.

    Raises Stopped when asked to stop.
    """
    from nodepert.training import devices

    devices.cores_apart(len(job.runs))
    from nodepert.cli.display import Lines
    from nodepert.cli.options import labels
    from nodepert.studies import train
    from nodepert.studies.trackers import trackers

    lines = Lines(dict(zip(job.runs, labels(job.runs), strict=True)))
    train.train(job.runs, name=job.name, out=job.out, data_dir=job.data_dir, checkpoint_every=job.checkpoint_every,
                 callbacks=[lines, *callbacks, *trackers(job.log)], skip=True, stop=stop)  # fmt: skip


def carry_out(path: Path, asked: Asked) -> None:
    """Train the runs of the job in a file. Raises Stopped when asked to stop."""
    train_job(read_job(path), asked.stop, [asked])


def on_slurm(path: str) -> None:
    """What submitit calls in a Slurm job. A job that is asked to stop before its time limit is queued again, where it
    has trained at least an epoch."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    asked = Asked(signal.SIGTERM, signal.SIGUSR2)
    try:
        carry_out(Path(path), asked)
    except Stopped:
        if asked.signal == signal.SIGUSR2:
            if not asked.epochs:
                raise UserError("no epoch was trained within the time limit; give the jobs more time") from None
            array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
            number = f"{array}_{task}" if array and task else os.environ["SLURM_JOB_ID"]
            print(f"checkpoints are written; job {number} goes back into the queue", flush=True)
            subprocess.run(["scontrol", "requeue", number], check=True, timeout=60)
        sys.exit(STOPPED)  # not an Exception: for submitit the job has no result yet


def with_parent(end: Callable[[], None]) -> None:
    """Call `end` when the process at the other end of standard input is gone, however it went."""

    def wait() -> None:
        while sys.stdin.buffer.read(1):
            pass
        end()

    threading.Thread(target=wait, daemon=True).start()


def main(path: str, *tied: str) -> None:
    """A worker process. `tied`: standard input is a pipe from the launcher, with which it ends."""
    if cores := os.environ.get("NODEPERT_CORES"):
        os.sched_setaffinity(0, {int(core) for core in cores.split(",")})
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stdout)
    if tied:
        with_parent(lambda: os._exit(1))
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the launcher hears Ctrl-C, and says what is to be done
    status = 0
    try:
        asked = Asked(signal.SIGTERM)
        try:
            carry_out(Path(path), asked)
        except Stopped:
            status = STOPPED
    except UserError as error:
        print("nodepert: error: " + " ".join(str(error).split()), flush=True)
        status = 2
    except Exception:
        traceback.print_exc(file=sys.stdout)
        status = 1
    sys.stdout.flush()
    if not tied:
        with suppress(OSError):
            Path(path).with_suffix(".status").write_text(f"{status}\n")
    os._exit(status)  # at once: an ordinary exit waits for what XLA still does


if __name__ == "__main__":
    main(*sys.argv[1:])
