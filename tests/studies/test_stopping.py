"""Ctrl-C and SIGTERM: the first stops at the end of the epoch, the second at once; rows are whole in either case."""

import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest
from commands import is_plain, process, record, table

from nodepert.studies.stopping import Stopping


@contextmanager
def brief(*arguments, start=process):
    """A command that does not outlive the test, nor two minutes."""
    with start(*arguments) as started:
        late = threading.Timer(120, started.kill)
        late.start()
        try:
            yield started
        finally:
            late.cancel()
            started.kill()


def begun(place, started, epochs=3):
    """Wait until a run that was started has written rows of so many epochs; its folder."""
    end = time.monotonic() + 100
    while not (found := [p.parent for p in place.glob("runs/default/*/metrics.csv") if len(table(p.parent)) >= epochs]):
        assert started.poll() is None and time.monotonic() < end
        time.sleep(0.05)
    return found[0]


LONG = ["train", "--dataset", "mnist5k", "--network", "fc(width=8)", "--epochs", "1000000"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_training_that_is_asked_to_stop_does_so_after_an_epoch_with_a_checkpoint_and_status_130(number, work):
    with brief(*LONG) as started:
        folder = begun(work, started)
        started.send_signal(number)
        out, err = started.communicate(timeout=60)
    assert started.returncode == 130 and "Traceback" not in err and "interrupted; the same command" in err
    rows = table(folder)
    assert record(folder)["status"] == "interrupted"
    assert [row["epoch"] for row in rows] == [str(e) for e in range(len(rows))] and None not in rows[-1].values()
    assert is_plain(out) and "stopping after this epoch" in out
    assert out.count("\n") == len(rows) + 1
    assert (folder / "checkpoints" / rows[-1]["epoch"]).is_dir()


ENDLESS = ["train", "--dataset", "mnist5k", "--network", "fc(width=1000)", "--rule", "np(samples=400)", "--seed", "1"]


def test_a_second_ctrl_c_ends_training_in_the_middle_of_an_epoch_and_keeps_whole_rows(work):
    with brief(*ENDLESS) as started:
        folder = begun(work, started, epochs=1)
        started.send_signal(signal.SIGINT)
        while "stopping after this epoch" not in started.stdout.readline():
            assert started.poll() is None
        started.send_signal(signal.SIGINT)
        err = started.communicate(timeout=30)[1]
    assert started.returncode == 130 and err == "nodepert: interrupted\n"
    assert record(folder)["status"] == "interrupted" and [row["epoch"] for row in table(folder)] == ["0"]


def test_a_command_that_runs_in_the_background_of_a_shell_does_not_hear_ctrl_c(work):
    def start(*arguments):
        command = f"trap '' INT; exec {shlex.join([sys.executable, '-m', 'nodepert', *arguments])}"
        pipe = subprocess.PIPE
        return subprocess.Popen(["sh", "-c", command], stdout=pipe, stderr=pipe, text=True)

    with brief(*LONG, "--seed", "1", start=start) as started:
        folder = begun(work, started)
        started.send_signal(signal.SIGINT)
        before = len(table(folder))
        begun(work, started, epochs=before + 3)  # it goes on
        started.terminate()
        assert started.communicate(timeout=60)[1] == "nodepert: interrupted; the same command resumes\n"


@pytest.mark.slow
def test_processes_of_one_job_stop_together_and_say_that_there_is_no_checkpoint(work):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    started = []
    for i in range(2):
        who = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": str(i)}
        command = [sys.executable, "-m", "nodepert", *LONG, "--distributed", "--seeds", "0", "1"]
        started.append(subprocess.Popen(command, env=os.environ | who | {"JAX_PLATFORMS": "cpu"},
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))  # fmt: skip
    try:
        folder = begun(work, started[0])
        for one in started:
            one.send_signal(signal.SIGINT)
        err = [one.communicate(timeout=60)[1] for one in started]
    finally:
        for one in started:
            one.kill()
    assert [one.returncode for one in started] == [130, 130]
    assert "nodepert: interrupted; the same command starts again\n" in err[0] and "Traceback" not in err[0] + err[1]
    assert record(folder)["status"] == "interrupted" and not (folder / "checkpoints").exists()


def test_ctrl_c_is_counted_while_training_and_ends_the_process_again_after_it():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    heard = []
    with Stopping(lambda _: heard.append(1)).listening():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
    assert heard == [1, 1] and [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_signal_that_is_ignored_stays_so_and_other_threads_hear_none():
    before, heard = signal.signal(signal.SIGINT, signal.SIG_IGN), []
    try:
        with Stopping(lambda _: heard.append(1)).listening():
            signal.raise_signal(signal.SIGINT)
        assert not heard and signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)

    def elsewhere():
        with Stopping().listening():
            heard.append("through")

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert heard == ["through"]
