"""Execute one job: `python -m nodepert.studies.sweep.worker JOB.json [tied]`, or `on_slurm(JOB.json)` in a Slurm job.

Its output is the job's log. A request to stop (SIGTERM, on Slurm SIGUSR2 before a time limit or a preemption) is
followed at the end of the epoch, with checkpoints; on Slurm the job is then queued again.
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
from nodepert.studies.callbacks import Callback, PrintRows, StateOf
from nodepert.studies.labels import labels
from nodepert.studies.output import guarded
from nodepert.studies.run import Run
from nodepert.studies.stopping import ENDS, Stopped, Stopping
from nodepert.studies.sweep.jobs import STOPPED, Job, read_job
from nodepert.training.metrics import Row


class CountEpochs(Callback):
    """How many epochs were trained since the start."""

    count = 0

    def on_epoch(self, run: Run, row: Row, state: StateOf) -> None:
        self.count += row["epoch"] > 0 and not state.read_back


def train_job(job: Job, stop: Callable[[], bool] = lambda: False, callbacks: Sequence[Callback] = ()) -> None:
    """Train a job's runs, skipping finished and locked ones; rows go to standard output.

    Raises Stopped when asked to stop.
    """
    from nodepert.training import devices

    devices.cores_apart(len(job.runs))
    from nodepert.studies.train import train

    rows = PrintRows(dict(zip(job.runs, labels(job.runs), strict=True)))
    train(job.runs, name=job.name, out=job.out, callbacks=[rows, *callbacks], skip=True, stop=stop,
          execution=job.execution)  # fmt: skip


def say_stop(stopping: Stopping) -> None:
    print(f"asked to stop by {signal.Signals(stopping.last).name}: at the end of this epoch", flush=True)


def on_slurm(path: str) -> None:
    """What submitit calls in a Slurm job. A job that is asked to stop before its time limit is queued again, where it
    has trained at least an epoch."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    stopping, epochs = Stopping(say_stop), CountEpochs()
    with guarded(), stopping.listening(signal.SIGTERM, signal.SIGUSR2, ignored=True):
        try:
            train_job(read_job(Path(path)), stopping, [epochs])
        except Stopped:
            if stopping.last == signal.SIGUSR2:
                if not epochs.count:
                    raise UserError("no epoch was trained within the time limit; give the jobs more time") from None
                array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
                number = f"{array}_{task}" if array and task else os.environ["SLURM_JOB_ID"]
                print(f"checkpoints are written; job {number} is queued again", flush=True)
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
    if tied:
        with_parent(lambda: os._exit(1))
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the launcher gets Ctrl-C, and decides
    with guarded():
        logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stdout)
        status = status_of(path)
        sys.stdout.flush()
    if not tied:
        with suppress(OSError):
            Path(path).with_suffix(".status").write_text(f"{status}\n")
    os._exit(status)  # at once: an ordinary exit waits for what XLA still does


def status_of(path: str) -> int:
    """Execute a job; the exit status of its process."""
    try:
        stopping = Stopping(say_stop)
        with stopping.listening(*ENDS, ignored=True):
            train_job(read_job(Path(path)), stopping)
    except Stopped:
        return STOPPED
    except UserError as error:
        print("nodepert: error: " + " ".join(str(error).split()), flush=True)
        return 2
    except Exception:
        traceback.print_exc(file=sys.stdout)
        return 1
    return 0


if __name__ == "__main__":
    main(*sys.argv[1:])
