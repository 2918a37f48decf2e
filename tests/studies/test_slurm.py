"""Sweeps on a real Slurm; left out where there is no sbatch (.ci/run starts one where it can)."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from sweeps import grid, records, results, start, sweep

from nodepert.cli import app as cli
from nodepert.studies.grid import load_grid
from nodepert.studies.sweep.jobs import read_job

pytestmark = pytest.mark.skipif(
    not shutil.which("sbatch") or b"is UP" not in subprocess.run(["scontrol", "ping"], capture_output=True).stdout,
    reason="no Slurm answers here",
)
SLURM = ["--launcher", "slurm", "--checkpoint-every", "0", "--slurm", "memory=2", "cpus=1"]
ENDLESS = 100_000


def until(true, process=None, seconds=90):
    """Wait for something; what a sweep said where it ended before."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it took too long"
        assert process is None or process.poll() is None, process.stdout.read()
        time.sleep(0.1)


def ids(out):
    """Slurm's number of the array."""
    return next(out.glob("study/jobs/*/launch.json")).parent.glob("*_0_submitted.pkl").__next__().name.split("_")[0]


def epochs(out):
    """{id: the last epoch in the table}"""
    return {
        p.parent.name: int(p.read_text().split()[-1].split(",")[0])
        for p in out.glob("study/*/metrics.csv")
        if p.is_file()
    }


def test_a_grid_gives_what_this_process_gives(tmp_path):
    path = grid(tmp_path, seeds=3)
    said = sweep(path, tmp_path / "slurm", *SLURM, "--runs-per-job", 3)
    assert "6 of 6 runs have finished" in said
    cli.main(["sweep", str(path), "--out", str(tmp_path / "here"), "--launcher", "debug", "--checkpoint-every", "0"])
    assert len(results(tmp_path / "here")) == 6 and results(tmp_path / "slurm") == results(tmp_path / "here")


@pytest.mark.slow
def test_jobs_that_are_killed_preempted_or_raise_end_as_they_should(tmp_path):
    """Jobs of one run each: one is killed, one warned (and queued again), one cancelled, one cannot write."""
    path = grid(tmp_path, epochs=100, seeds=3)
    way = tmp_path / "study"
    blocked = way / load_grid(path).runs[-1].id / "metrics.csv"
    (blocked / "way").mkdir(parents=True)
    process = start(path, tmp_path, *SLURM, "--runs-per-job", 1, "--slurm", "memory=1", "cpus=1", "parallel=2")
    until(lambda: len(list(way.glob("*/checkpoints/*.json"))) >= 2, process)
    array = ids(tmp_path)
    listed = subprocess.run(["squeue", "-h", "-j", array, "-t", "R", "-o", "%i"], capture_output=True, text=True).stdout
    first, second = sorted(listed.split())
    third = f"{array}_3"
    subprocess.run(["scancel", third], check=True)  # while it waits
    (folder,) = {p.parents[1] for p in way.glob("*/checkpoints/*.json") if is_run_of(p.parents[1], tmp_path, first)}
    for pid in pids(first):
        os.kill(pid, signal.SIGKILL)
    before = epochs(tmp_path)
    subprocess.run(["scancel", "--signal=USR2", second], check=True)  # as before a time limit or a preemption
    said, _ = process.communicate(timeout=200)
    assert process.returncode == 1, said
    for words in (f"Slurm job {first}: ", f"Slurm job {third}: ", "3 of 6 runs have finished", "cannot write"):
        assert words in said, said
    assert said.count("failed: 1 runs of") == 3, said
    found = records(tmp_path)
    assert found[folder.name]["status"] == "failed"
    assert sum(len(r["attempts"]) > 1 and min(r["attempts"][1:]) > 0 for r in found.values()) >= 1  # it went on
    assert all(epoch >= before[i] for i, epoch in epochs(tmp_path).items() if i in before)
    (blocked / "way").rmdir()
    blocked.rmdir()
    sweep(path, tmp_path, *SLURM, "--retry")
    sweep(path, tmp_path / "whole", "--launcher", "debug")
    assert results(tmp_path) == results(tmp_path / "whole")


def pids(number):
    """The Python processes of a task."""
    wanted = {f"SLURM_ARRAY_{key}_ID={n}".encode() for key, n in zip(("JOB", "TASK"), number.split("_"), strict=True)}
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command, env = (place / "cmdline").read_bytes(), (place / "environ").read_bytes().split(b"\0")
            if b"submitit.core._submit" in command and b"srun" not in command and wanted <= set(env):
                yield int(place.name)


def is_run_of(folder, out, number):
    job = next(out.glob(f"study/jobs/*/{number.split('_')[1]}.json"))
    return folder in read_job(job).folders()


def test_ctrl_c_leaves_the_jobs_and_watch_comes_back(tmp_path):
    path = grid(tmp_path, epochs=60)
    process = start(path, tmp_path, *SLURM)
    until(lambda: bool(list(tmp_path.glob("study/*/metrics.csv"))), process)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 130 and "the jobs continue" in said and "--watch" in said, said
    again = sweep(path, tmp_path, *SLURM)  # submits nothing twice, and follows what is there
    assert "4 of 4 runs have finished" in again
    assert len(list(tmp_path.glob("study/jobs/*"))) == 1 and len(results(tmp_path)) == 4
    assert "no queued or running jobs of this study" in sweep(path, tmp_path / "other", *SLURM, "--watch")


@pytest.mark.slow
def test_a_time_limit_is_answered_by_a_checkpoint_and_the_queue(tmp_path):
    path = grid(tmp_path, seeds=1, epochs=1_500)  # of 50 ms, so that a job needs more than its two minutes
    said = sweep(path, tmp_path, *SLURM, "--slurm", "memory=2", "cpus=1", "time=2", "warning=30")
    assert "2 of 2 runs have finished" in said
    assert any(len(record["attempts"]) > 1 for record in records(tmp_path).values())
    for record in records(tmp_path).values():
        assert record["attempts"] == sorted(set(record["attempts"]))
    logs = "".join(Path(p).read_text() for p in tmp_path.glob("study/jobs/*/*_log.out"))
    assert "is queued again" in logs


def test_what_slurm_does_not_take_is_one_line_and_leaves_nothing(tmp_path):
    wrong = {"partition=nosuch": "partition", "tim=5": "no argument 'tim'", "time=-1": "time must be positive"}
    for options, says in wrong.items():
        said = sweep(grid(tmp_path), tmp_path / "out", "--launcher", "slurm", "--slurm", options, status=2)
        (line,) = [line for line in said.splitlines() if line.startswith("nodepert: error: ")]
        assert says in line and said.rstrip().endswith(line)
        assert not (tmp_path / "out").exists()
