"""Commands whose output cannot be written: one line, status 2, and whatever they compute is complete."""

import os
import signal
import subprocess
import sys

import pytest
from commands import record
from small import RUN

import nodepert as npt
from nodepert.cli import app as cli

FULL = "nodepert: error: cannot write output: No space left on device\n"
CLOSED = "nodepert: error: cannot write output: standard output is closed\n"
TRAIN = ["train", "--dataset", RUN.dataset, "--network", RUN.network, "--epochs", "2", "--lr", "1e-2"]


def ends(command, stream, monkeypatch, capfd):
    """(status, standard error) of a command whose standard output is this stream."""
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stop:
        patch.setattr(sys, "stdout", stream)
        cli.main(command)
    return stop.value.code, capfd.readouterr().err


SHORT = [["list", "rules"], ["--help"], ["train", "--help"], ["completion", "bash"], ["doctor"], ["data"],
         ["experiment"], ["runs"], ["runs", "n"], ["results", "n"], ["report", "n", "--to", "n.md"]]  # fmt: skip


def test_a_full_disk_and_a_closed_output_are_one_line(work, monkeypatch, capfd):
    npt.train(RUN, name="n")
    for command in SHORT:
        with open("/dev/full", "w") as full:
            assert ends(command, full, monkeypatch, capfd) == (2, FULL), command
        assert ends(command, None, monkeypatch, capfd) == (2, CLOSED), command
    assert (work / "n.md").read_text().endswith("\n")


@pytest.mark.parametrize("closed", [False, True])
def test_training_is_complete_all_the_same(closed, work, monkeypatch, capfd):
    with open("/dev/full", "w") as full:
        found = ends(TRAIN, None if closed else full, monkeypatch, capfd)
    assert found == (2, CLOSED if closed else FULL)
    (folder,) = (work / "runs" / "default").iterdir()
    assert record(folder)["status"] == "finished"


def test_a_reader_that_goes_away_costs_no_epoch(work, monkeypatch, capfd):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as pipe:
        assert ends(TRAIN, pipe, monkeypatch, capfd) == (141, "")
    (folder,) = (work / "runs" / "default").iterdir()
    assert record(folder)["status"] == "finished"


def test_the_error_of_a_command_is_more_than_that_of_its_output(work, monkeypatch, capfd):
    with open("/dev/full", "w") as full:
        status, err = ends(["runs", "nosuch"], full, monkeypatch, capfd)
    assert status == 2 and "no space" not in err.lower()


@pytest.mark.parametrize("closed", [">/dev/full", ">&-", ">/dev/full 2>/dev/full", ">&- 2>&- <&-"])
def test_a_process_ends_without_a_traceback(closed, work):
    """Python itself flushes at the end, and would report what it cannot."""
    command = f"{sys.executable} -m nodepert list rules {closed}"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == ("" if "2>" in closed else FULL if "full" in closed else CLOSED)


@pytest.mark.slow
@pytest.mark.parametrize("ignored", [False, True])
def test_a_terminal_that_is_closed(ignored, work):
    """With SIGHUP training stops with a checkpoint; without it, it goes on to the end."""
    terminal, end = os.openpty()
    own = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execvp(sys.argv[1], sys.argv[1:])"
    command = [sys.executable, "-m", "nodepert", *TRAIN[:5], "--epochs", "100" if ignored else "1000000"]
    handler = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)  # the child inherits it
    started = subprocess.Popen([sys.executable, "-c", own, *command], stdin=end, stdout=end, stderr=end,
                               start_new_session=True)  # fmt: skip
    signal.signal(signal.SIGHUP, handler)
    os.close(end)
    while not (found := list(work.glob("runs/default/*/metrics.csv"))) or len(found[0].read_text().splitlines()) < 3:
        os.read(terminal, 4096)
    os.close(terminal)
    assert (started.wait(60), record(found[0].parent)["status"]) == (
        (2, "finished") if ignored else (130, "interrupted")
    )
    assert list(found[0].parent.glob("checkpoints/*"))
