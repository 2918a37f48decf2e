"""Stores that are damaged, disks that are full: a clear line, and the run is done again or goes on."""

import contextlib
import os
import re
import shutil
import stat
import time

import numpy as np
import pytest
from small import COLUMNS, Told
from sweeps import flip, grid, truncate

import nodepert as npt
from nodepert.cli import app as cli
from nodepert.studies.stopping import Stopped
from nodepert.studies.store import checkpoints, lock, records
from nodepert.studies.sweep.sweep import progress_of

RUN = npt.Run(dataset="digits(train=200, test=50)", network="fc(width=8)", rule="np", batchsize=50, epochs=3)


def without_times(rows):
    return [{k: v for k, v in row.items() if k != "epoch_time"} for row in rows]


@pytest.fixture(scope="module")
def whole():
    return without_times(npt.train(RUN).rows)


@pytest.fixture(scope="module", params=["finished", "killed"])
def store(request, tmp_path_factory):
    """(what happened, a store with one run to which it did): a process that was killed says nothing more."""
    out = tmp_path_factory.mktemp(request.param)
    count = iter(range(100))
    with contextlib.suppress(Stopped):
        npt.train(RUN, name="study", out=out, checkpoint_every=0.0,
                  stop=lambda: request.param != "finished" and next(count) == 2)  # fmt: skip
    folder = out / "study" / RUN.id
    if request.param == "killed":
        record = records.unsealed(folder / "config.json", "nodepert-run", 2)
        (folder / "config.json").write_text(records.sealed(record | {"status": "running"}))
        (folder / ".metrics.csv.0123456789abcdef0123456789abcdef").write_text("epo")
        (folder / "checkpoints" / "3.orbax-checkpoint-tmp").mkdir()
        (folder / lock.NAME).write_text(f"filelock/2\npid=4194304\nhost={os.uname().nodename}\nmode=lease\n"
                                          "token=0\nduration=180.0\nstart=1\n")  # fmt: skip
    assert progress_of(folder).status == ("finished" if request.param == "finished" else "interrupted")
    return request.param, out


def empty(path):
    path.write_bytes(b"")


def damaged_copies(out, damages, where):
    """A copy of the store for each of its files, with that file damaged, in these ways by turns."""
    files = sorted(p for p in out.rglob("*") if p.is_file())
    if len(damages) > 1:  # the checkpoint before the last is read only if that is corrupt: damaged one way at a time
        files = [p for p in files if f"/checkpoints/{BEFORE_LAST}/" not in str(p)]
    for k, path in enumerate(files):
        copy = where / str(k)
        shutil.copytree(out, copy)
        damages[k % len(damages)](copy / path.relative_to(out))
        yield copy, path.relative_to(out)


BEFORE_LAST = 1  # epoch, in the store of a killed process
WAYS = [truncate, empty, flip, os.unlink]


@pytest.mark.parametrize("damages", [WAYS, *(pytest.param([way], marks=pytest.mark.slow) for way in WAYS)])
def test_every_file_in_turn(store, damages, whole, tmp_path, capsys):
    _, out = store
    for copy, path in damaged_copies(out, damages, tmp_path):
        if path.name == "config.json":  # the only run of this study
            with pytest.raises(SystemExit) as stop:
                cli.main(["runs", "study", "--out", str(copy)])
            assert stop.value.code == 2 and "no " in capsys.readouterr().err
        else:
            cli.main(["runs", "study", "--out", str(copy)])
            assert len(npt.load_results("study", out=copy)) > 0, path
        (result,) = npt.train([RUN], name="study", out=copy)
        assert without_times(result.rows) == whole and result.status == "finished", path
        folder = copy / "study" / RUN.id
        assert progress_of(folder).status == "finished"
        left = {p.name for p in folder.iterdir()} - {"config.json.damaged"}
        assert left <= {"config.json", "metrics.csv", "checkpoints"}, path


def test_what_a_damaged_file_costs_is_said_in_one_line(store, tmp_path, caplog):
    what, out = store
    shutil.copytree(out, tmp_path / "copy")
    folder = tmp_path / "copy" / "study" / RUN.id
    flip(folder / "config.json")
    npt.train(RUN, name="study", out=tmp_path / "copy")
    said = [record.getMessage() for record in caplog.records if record.name == "nodepert"]
    assert [line for line in said if "config.json" in line] and all("\n" not in line for line in said)
    assert (folder / "config.json.damaged").exists()
    record = records.unsealed(folder / "config.json", "nodepert-run", 2)
    assert record["attempts"] == [3 if what == "finished" else 2]  # it went on from the checkpoint


def test_a_full_disk_at_any_write_loses_nothing(whole, tmp_path, monkeypatch, caplog):
    """The k-th file cannot be flushed to disk; with space again, the run ends as it should."""
    inner, failures = os.fsync, 0
    for k in range(1, 12, 2):
        out, count = tmp_path / str(k), iter(range(1, 10_000))

        def fsync(descriptor, count=count, k=k):
            if stat.S_ISREG(os.fstat(descriptor).st_mode) and next(count) == k:
                raise OSError(28, "No space left on device")
            inner(descriptor)

        monkeypatch.setattr(records.os, "fsync", fsync)
        try:
            npt.train(RUN, name="study", out=out, checkpoint_every=0.0)
        except npt.UserError as error:
            failures += 1
            assert "no space left on device" in str(error)
        monkeypatch.setattr(records.os, "fsync", inner)
        result = npt.train(RUN, name="study", out=out, checkpoint_every=0.0)
        assert without_times(result.rows) == whole
    assert failures > 1


def test_the_owner_of_a_lease_that_was_taken_over_writes_nothing_more(tmp_path):
    """As when a process slept for longer than a lease lasts."""
    with pytest.raises(RuntimeError, match="enough"):
        taken = []

        def on_row(run, row):
            folder = tmp_path / "study" / RUN.id
            if row["epoch"] == 1 and not taken:
                taken.append((folder / "metrics.csv").read_bytes())
                marker = folder / lock.NAME
                marker.write_text(re.sub("(?m)^token=.*$", "token=0123", marker.read_text()))
            if row["epoch"] == 2:
                assert (folder / "metrics.csv").read_bytes() == taken[0]
                raise RuntimeError("enough")

        npt.train(RUN, name="study", out=tmp_path, callbacks=[Told(on_row)], checkpoint_every=0.0)


def test_a_lock_of_a_living_process_is_respected_and_a_dead_one_taken_over(tmp_path):
    first = lock.Lock(tmp_path / lock.NAME)
    assert first.acquired() and not lock.Lock(tmp_path / lock.NAME).acquired() and lock.seems_held(tmp_path)
    first.release()
    assert not lock.seems_held(tmp_path) and lock.Lock(tmp_path / lock.NAME).free()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "garbage", "pid=1\nhost=elsewhere\nmode=lease\ntoken=1\nduration=7.0\n"])
def test_a_marker_that_is_no_lease_is_not_removed_at_once_but_when_it_stays(text, tmp_path, monkeypatch):
    """It may be just being written; another version's may be alive."""
    monkeypatch.setattr(lock, "MALFORMED", 0.3)
    monkeypatch.setattr(lock, "LASTS", 0.6)
    (tmp_path / lock.NAME).write_text(text)
    marker = lock.Lock(tmp_path / lock.NAME)
    assert not marker.free() and not marker.free()
    until = time.monotonic() + 5
    while not marker.free():
        assert time.monotonic() < until
        time.sleep(0.05)
    assert list(tmp_path.iterdir()) == []


def test_checkpoints_later_than_a_new_one_are_what_was_passed_over(tmp_path):
    state, row = {"w": np.zeros(2)}, dict.fromkeys(COLUMNS, 1.0)
    for epoch in (40, 60):
        checkpoints.save(tmp_path, epoch, [row | {"epoch": e} for e in range(epoch + 1)], state, "d")
        flip(tmp_path / "checkpoints" / f"{epoch}.json")
    checkpoints.save(tmp_path, 5, [row | {"epoch": e} for e in range(6)], state, "d")
    found = checkpoints.latest(tmp_path, state, "d")
    assert found and found.epoch == 5 and sorted(os.listdir(tmp_path / "checkpoints")) == ["5", "5.json"]


@pytest.mark.parametrize("options", [[], ["--launcher", "debug"]])
def test_a_place_that_cannot_be_written_is_one_line(options, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(SystemExit) as stop:
        cli.main(["sweep", str(grid(tmp_path)), "--out", str(tmp_path / "file"), *options])
    assert stop.value.code == 2 and "cannot write" in capsys.readouterr().err
