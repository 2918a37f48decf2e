"""Sweeps: whatever happens to them, every run ends as it would have ended undisturbed."""

import contextlib
import os
import random
import signal
import time

import jax
import pytest
from sweeps import grid, records, results, start, sweep

from nodepert.cli import app as cli
from nodepert.cli import parser
from nodepert.cli import sweep as cli_sweep

QUICK = ["--checkpoint-every", "0"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """{id: what comes of it} of a sweep of four runs in this process."""
    folder = tmp_path_factory.mktemp("undisturbed")
    cli.main(["sweep", str(grid(folder)), "--out", str(folder), "--launcher", "debug", *QUICK])
    found = results(folder)
    assert len(found) == 4 and {status for status, *_ in found.values()} == {"finished"}
    return found


def test_worker_processes_find_what_this_process_finds(undisturbed, tmp_path):
    said = sweep(grid(tmp_path), tmp_path, "--jobs", 2, *QUICK)
    assert results(tmp_path) == undisturbed
    assert "4 of 4 runs have finished" in said and said.count("finished, test") == 4
    logs = sorted(path.name for path in tmp_path.glob("study/jobs/*/*"))
    assert logs == ["0.json", "0.log", "1.json", "1.log"]
    again = sweep(grid(tmp_path), tmp_path)
    assert "4 done" in again and len(list(tmp_path.glob("study/jobs/*"))) == 1


def killed_again_and_again(folder, path, times, longest, rng):
    """Start the sweep and kill it, with all that belongs to it or its first process alone; then let it end."""
    for k in range(times):
        process = start(path, folder, *QUICK)
        end = time.monotonic() + rng.uniform(1.0, longest)
        while process.poll() is None and time.monotonic() < end:
            time.sleep(0.01)
        with contextlib.suppress(ProcessLookupError):  # it has finished
            (os.killpg if k % 2 else os.kill)(process.pid, signal.SIGKILL)
        process.wait()
    return sweep(path, folder, *QUICK)


def in_order(out):
    """Each run was begun from the start until it had a checkpoint, and never again."""
    for record in records(out).values():
        assert record["attempts"] == sorted(record["attempts"]), record


def test_a_sweep_that_is_killed_goes_on_where_it_was(tmp_path):
    path, rng = grid(tmp_path, epochs=40), random.Random(3)
    killed_again_and_again(tmp_path / "killed", path, 2, 8.0, rng)
    cli.main(["sweep", str(path), "--out", str(tmp_path / "whole"), "--launcher", "debug"])
    assert results(tmp_path / "killed") == results(tmp_path / "whole")
    in_order(tmp_path / "killed")


@pytest.mark.slow
def test_24_runs_killed_at_20_moments(tmp_path):
    path, rng = grid(tmp_path, seeds=6, rates=(1e-3, 1e-2), epochs=80), random.Random(7)
    killed_again_and_again(tmp_path / "killed", path, 20, 15.0, rng)
    sweep(path, tmp_path / "whole")
    found = results(tmp_path / "killed")
    assert len(found) == 24 and found == results(tmp_path / "whole")
    in_order(tmp_path / "killed")


@pytest.mark.parametrize(("count", "launcher"), [(3, "debug"), pytest.param(8, "local", marks=pytest.mark.slow)])
def test_processes_that_sweep_one_store_at_once_do_every_run_once(undisturbed, tmp_path, count, launcher):
    path = grid(tmp_path)
    processes = [start(path, tmp_path, "--launcher", launcher, "--runs-per-job", 1, *QUICK) for _ in range(count)]
    for process in processes:
        said, _ = process.communicate(timeout=500)
        assert process.returncode == 0, said
    assert results(tmp_path) == undisturbed
    assert [record["attempts"] for record in records(tmp_path).values()] == [[0]] * 4


def test_a_job_that_fails_harms_no_other_and_retry_does_what_is_left(undisturbed, tmp_path, monkeypatch):
    """One run's metrics.csv cannot be written: a folder is in its way."""
    path = grid(tmp_path)
    number = next(i for i, (_, rows, *_) in undisturbed.items() if rows)
    (tmp_path / "study" / number / "metrics.csv" / "way").mkdir(parents=True)
    said = sweep(path, tmp_path, "--runs-per-job", 1, *QUICK, status=1)
    assert "failed: 1 runs of" in said and "cannot write" in said and "--retry" in said
    assert "3 of 4 runs have finished" in said
    assert records(tmp_path)[number]["status"] == "failed" and "cannot write" in records(tmp_path)[number]["reason"]
    (tmp_path / "study" / number / "metrics.csv" / "way").rmdir()
    (tmp_path / "study" / number / "metrics.csv").rmdir()
    sweep(path, tmp_path, "--retry", *QUICK)
    assert results(tmp_path) == undisturbed
    assert [len(record["attempts"]) for record in records(tmp_path).values()].count(1) == 3  # of the others none again


def test_ctrl_c_stops_after_the_epoch_with_checkpoints(tmp_path):
    path = grid(tmp_path, epochs=100_000)
    process = start(path, tmp_path, "--jobs", 1)
    end = time.monotonic() + 100
    while not list(tmp_path.glob("study/*/metrics.csv")):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "stopping after this epoch" in said and "Traceback" not in said
    assert f"the rest: nodepert sweep {path} --out {tmp_path} --jobs 1\n" in said
    begun = records(tmp_path)
    assert begun and {record["status"] for record in begun.values()} == {"interrupted"}
    assert all(list((tmp_path / "study" / i / "checkpoints").glob("*.json")) for i in begun)


@pytest.mark.parametrize(
    ("words", "again"),
    [
        (["--jobs", "1"], "--jobs 1"),
        (["--retry", "--out", "a b", "--runs-per-job=1"], "--out 'a b' --runs-per-job=1"),
        (["--launcher", "slurm", "--watch"], "--launcher slurm"),
        (["--checkpoint-every", "60.0", "--log", "tensorboard"], "--checkpoint-every 60.0 --log tensorboard"),
    ],
)
def test_what_is_to_be_typed_again_is_what_was_typed(words, again, tmp_path, monkeypatch):
    monkeypatch.setattr(parser, "given", [])
    cli._parse(["sweep", "grid.toml", *words])
    assert cli_sweep.command_line() == f"nodepert sweep grid.toml {again}"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--jobs", "0"], "jobs must be at least 1"),
        (["--runs-per-job", "-1"], "must not be negative"),
        (["--launcher", "command"], "a template is a command with {command} in it"),
        (["--launcher", "command", "--command", "bsub {jobs}"], "cannot fill in"),
        (["--launcher", "slurm", "--slurm", "time"], "--slurm takes option=value"),
        (["--launcher", "pbs"], "unknown launcher 'pbs'; there are: local, slurm, command, debug"),
        (["--watch"], "--watch needs a launcher"),
        (["--checkpoint-every", "-3"], "checkpoint_every"),
    ],
)
def test_bad_options_are_one_line_and_leave_nothing(options, says, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["sweep", str(grid(tmp_path)), "--out", str(tmp_path / "out"), *options])
    assert stop.value.code == 2
    line = capsys.readouterr().err
    assert says in line and len(line.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_template_gives_each_job_to_another_scheduler(undisturbed, tmp_path):
    """Here to the shell, in the background, as bsub would."""
    template = "({command} > {log} 2>&1 &)"
    said = sweep(grid(tmp_path), tmp_path, "--launcher", "command", "--command", template, *QUICK)
    assert results(tmp_path) == undisturbed and "4 of 4 runs have finished" in said


def test_a_launcher_is_a_spec_whose_arguments_replace_options_and_those_the_grids_table():
    table = {"slurm": {"time": 1, "gpus": 1, "setup": ["module load x"]}}
    where = cli_sweep.Where(launcher="slurm(time=5)", slurm=("time=60", "cpus=2"))
    found = dict(cli_sweep.launcher_of(where, table).kwargs)
    assert found == {"time": 5.0, "gpus": 1, "setup": ["module load x"], "cpus": 2}
    assert cli_sweep.launcher_of(cli_sweep.Where(slurm=("cpus=2",)), {}).name == "slurm"
    assert str(cli_sweep.launcher_of(cli_sweep.Where(command="bsub {command}"), {})).startswith("command(template=")
    assert str(cli_sweep.launcher_of(cli_sweep.Where(jobs=3), {})) == "local(jobs=3)"


def test_a_sweep_does_not_count_results_of_other_settings_of_jax(tmp_path, capsys):
    grid_file = grid(tmp_path, seeds=1, epochs=1)
    arguments = ["sweep", str(grid_file), "--out", str(tmp_path / "out"), "--launcher", "debug"]
    with jax.default_matmul_precision("float32"):
        cli.main(arguments)
    cli.main([*arguments, "--dry-run"])  # only looks
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    assert "jax_default_matmul_precision=float32, and here it is None" in capsys.readouterr().err
