"""Output that goes away while runs train: no epoch is lost, and callbacks are executed to their end."""

import errno
import io
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace

import pytest
from small import RUN, Told

import nodepert as npt
from nodepert.studies.callbacks import PrintRows
from nodepert.studies.execution import Execution
from nodepert.studies.output import Output, guarded
from nodepert.studies.stopping import Stopped, Stopping, after_epoch
from nodepert.studies.sweep import worker
from nodepert.studies.sweep.jobs import Job, write_jobs


class Failing(io.StringIO):
    """Raises an error from the second flush on, as a pipe does whose reader has gone."""

    def __init__(self, number):
        super().__init__()
        self.number, self.flushed = number, 0

    def flush(self):
        self.flushed += 1
        if self.flushed > 1:
            raise OSError(self.number, os.strerror(self.number))


@pytest.mark.parametrize("number", [errno.EPIPE, errno.ENOSPC, errno.EIO, errno.EBADF])
def test_training_goes_on_and_callbacks_are_executed_to_their_end(number, monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(sys, "stdout", stream := Failing(number))
    epochs = []

    def own(run, row):
        print("epoch", row["epoch"], flush=True)
        epochs.append(row["epoch"])

    result = npt.train(RUN, name="n", out=tmp_path, callbacks=[PrintRows({RUN: "np"}), Told(own)])
    assert result.status == "finished" and epochs == [0, 1, 2] and sys.stdout is stream
    assert json.loads((result.folder / "config.json").read_text())["status"] == "finished"
    text = f"standard output could not be written to the end ({os.strerror(number)})"
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [text]


def test_closed_streams_and_an_encoding_without_the_characters(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    sys.stderr.close()
    result = npt.train(RUN, callbacks=[PrintRows({RUN: "np"}), Told(lambda run, row: print("x", file=sys.stderr))])
    assert result.status == "finished" and sys.stdout is None
    monkeypatch.setattr(sys, "stdout", file := io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    with guarded():
        print("1 ± 2")
    assert file.buffer.getvalue() in (b"", b"1 ? 2\n")
    file.flush()
    assert file.buffer.getvalue() == b"1 ? 2\n"


def test_contexts_that_overlap_in_threads_end_with_the_stream_of_the_beginning():
    before, started, ended = sys.stdout, threading.Event(), threading.Event()

    def other():
        with guarded():
            started.set()
            ended.wait(10)

    thread = threading.Thread(target=other)
    with guarded():
        thread.start()
        started.wait(10)
    assert isinstance(sys.stdout, Output)  # the other thread still needs it
    ended.set()
    thread.join()
    assert sys.stdout is before


class Slow(io.StringIO):
    """Raises what a descriptor that is not blocking does while its reader is slow: at the first write or flush."""

    def __init__(self, at):
        super().__init__()
        self.at, self.raised = at, False

    def first(self, at):
        if at == self.at and not self.raised:
            self.raised = True
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), 0)

    def write(self, text):
        self.first("write")
        return super().write(text)

    def flush(self):
        self.first("flush")


@pytest.mark.parametrize("at", ["write", "flush"])
def test_a_slow_reader_misses_what_it_does_not_take_and_no_more(at, monkeypatch, caplog):
    monkeypatch.setattr(sys, "stdout", file := Slow(at))
    with guarded():
        print("1", flush=True)
        print("2", flush=True)
        print("3", flush=True)
    assert file.getvalue().endswith("2\n3\n") and file.raised and not caplog.records


def test_a_pipe_that_is_full_takes_output_again_when_it_is_read(monkeypatch):
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with open(writing, "w", buffering=1) as pipe, open(reading, "rb", buffering=0) as reader:
        monkeypatch.setattr(sys, "stdout", pipe)
        with guarded():
            for _ in range(200):
                print("x" * 1000)
            reader.read(2**20)  # all that the pipe holds
            print("again", flush=True)
            assert b"again" in reader.read(2**20)


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_stream_that_redirection_puts_back_has_its_errors_again(name, monkeypatch):
    """redirect_stdout in another thread saves the guarded stream, and restores it after the end of the guard."""
    redirection = {"stdout": redirect_stdout, "stderr": redirect_stderr}[name](io.StringIO())
    monkeypatch.setattr(sys, name, file := io.StringIO())
    with guarded():
        redirection.__enter__()
    redirection.__exit__(None, None, None)
    left = getattr(sys, name)
    print("1", file=left)
    with guarded():
        print("2", file=getattr(sys, name))
    assert file.getvalue() == "1\n2\n" and getattr(sys, name) is file
    file.close()
    with pytest.raises(ValueError, match="closed file"):
        print("3", file=left)


def test_a_file_never_takes_the_place_of_a_closed_descriptor(tmp_path):
    program = """from nodepert.studies.output import guarded
with guarded():
    print(open("x", "w").fileno(), file=open("y", "w"))"""
    subprocess.run(["sh", "-c", f'{sys.executable} -c "$0" <&- >&- 2>&-', program], check=True, cwd=tmp_path)
    assert int((tmp_path / "y").read_text()) > 2


def test_a_worker_whose_log_is_full_trains_its_runs(monkeypatch, tmp_path):
    (job,) = write_jobs([Job("n", tmp_path, [RUN], Execution())])
    monkeypatch.setattr(os, "_exit", sys.exit)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with open("/dev/full", "w", buffering=1) as full, pytest.raises(SystemExit) as stop:
        monkeypatch.setattr(sys, "stdout", full)
        try:
            worker.main(str(job))
        finally:
            Output(full).silence()
    assert stop.value.code == 0 and job.with_suffix(".status").read_text() == "0\n"
    (record,) = tmp_path.glob(f"n/{RUN.id}/config.json")
    assert json.loads(record.read_text())["status"] == "finished"


def test_a_closed_terminal_stops_after_the_epoch_however_often_it_is_signalled(tmp_path):
    """The system and the shell both send SIGHUP."""
    run, before = replace(RUN, epochs=3), signal.signal(signal.SIGHUP, signal.SIG_DFL)  # tests may run under nohup

    def closed(run, row):
        if row["epoch"] == 1:
            signal.raise_signal(signal.SIGHUP)
            signal.raise_signal(signal.SIGHUP)

    try:
        with Stopping(after_epoch(print)).listening() as stopping, pytest.raises(Stopped, match="resumes"):
            npt.train(run, name="n", out=tmp_path, callbacks=[Told(closed)], stop=stopping)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert stopping.count == 1
    folder = tmp_path / "n" / run.id
    assert json.loads((folder / "config.json").read_text())["status"] == "interrupted"
    assert (folder / "checkpoints" / "2").is_dir()


@pytest.mark.parametrize("ignored", [False, True])
def test_under_nohup_a_closed_terminal_is_ignored(ignored):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Stopping().listening(signal.SIGTERM, signal.SIGHUP, ignored=ignored) as stopping:
            signal.raise_signal(signal.SIGHUP)
        assert stopping.count == 0
    finally:
        signal.signal(signal.SIGHUP, before)
