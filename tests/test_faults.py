"""Stores that are damaged, disks that are full: a clear line, and the run is done again or goes on."""

import contextlib
import os
import shutil

import pytest

import nodepert as npt
from nodepert import cli, keeping, leases, records
from nodepert.config import run_id
from nodepert.sweeping import look

RUN = npt.Run(dataset="digits(train=200, test=50)", network="fc(width=8)", rule="np", batchsize=50, epochs=3)


def without_times(rows):
    return [{k: v for k, v in row.items() if k != "epoch_time"} for row in rows]


@pytest.fixture(scope="module")
def whole():
    return without_times(npt.train(RUN).rows)


@pytest.fixture(scope="module", params=["finished", "interrupted", "killed"])
def store(request, tmp_path_factory):
    """(what happened, a store with one run to which it did): a process that was killed says nothing more."""
    out = tmp_path_factory.mktemp(request.param)
    count = iter(range(100))
    with contextlib.suppress(keeping.Stopped):
        npt.train(RUN, name="study", out=out, checkpoint_every=0.0,
                  stop=lambda: request.param != "finished" and next(count) == 2)  # fmt: skip
    folder = out / "study" / run_id(RUN)
    if request.param == "killed":
        record = records.unsealed(folder / "config.json", "nodepert-run", 2)
        (folder / "config.json").write_text(records.sealed(record | {"status": "running"}))
        (folder / ".metrics.csv.0123456789abcdef0123456789abcdef").write_text("epo")
        (folder / "checkpoints" / "3.orbax-checkpoint-tmp").mkdir()
        (folder / leases.NAME).write_text(f"filelock/2\npid=4194304\nhost={os.uname().nodename}\nmode=lease\n"
                                          "token=0\nduration=180.0\nstart=1\n")  # fmt: skip
    assert look(folder).status == ("finished" if request.param == "finished" else "interrupted")
    return request.param, out


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


def flip(path):
    data = bytearray(path.read_bytes())
    if data:
        data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


def damaged_copies(out, damage, where):
    """A copy of the store for each of its files, with that file damaged."""
    for k, path in enumerate(sorted(p for p in out.rglob("*") if p.is_file())):
        copy = where / str(k)
        shutil.copytree(out, copy)
        damage(copy / path.relative_to(out))
        yield copy, path.relative_to(out)


@pytest.mark.parametrize("damage", [truncate, empty, flip, os.unlink])
def test_every_file_in_turn(store, damage, whole, tmp_path, capsys):
    _, out = store
    for copy, path in damaged_copies(out, damage, tmp_path):
        if path.name == "config.json":  # the only run of this study
            with pytest.raises(npt.UserError, match="no readable run|no study"):
                npt.load_results("study", out=copy)
        else:
            cli.main(["runs", "study", "--out", str(copy)])
            assert len(npt.load_results("study", out=copy)) > 0, path
        (result,) = npt.train([RUN], name="study", out=copy)
        assert without_times(result.rows) == whole and result.status == "finished", path
        folder = copy / "study" / run_id(RUN)
        assert look(folder).status == "finished"
        left = {p.name for p in folder.iterdir()} - {"config.json.damaged"}
        assert left <= {"config.json", "metrics.csv", "checkpoints"}, path


def test_what_a_damaged_file_costs_is_said_in_one_line(store, tmp_path, caplog):
    what, out = store
    shutil.copytree(out, tmp_path / "copy")
    folder = tmp_path / "copy" / "study" / run_id(RUN)
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
    for k in range(1, 16):
        out, count = tmp_path / str(k), iter(range(1, 10_000))

        def fsync(descriptor, count=count, k=k):
            if next(count) == k:
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
    assert failures > 3


def test_the_owner_of_a_lease_that_was_taken_over_writes_nothing_more(tmp_path):
    """As when a process slept for longer than a lease lasts."""
    with pytest.raises(RuntimeError, match="enough"):
        taken = []

        def on_row(row):
            folder = tmp_path / "study" / run_id(RUN)
            if row["epoch"] == 1 and not taken:
                taken.append((folder / "metrics.csv").read_bytes())
                leases.of(folder)._on_compromise(None)
            if row["epoch"] == 2:
                assert (folder / "metrics.csv").read_bytes() == taken[0]
                raise RuntimeError("enough")

        npt.train(RUN, name="study", out=tmp_path, on_row=on_row, checkpoint_every=0.0)


def test_a_lease_of_a_living_process_is_respected_and_a_dead_one_taken_over(tmp_path):
    first = leases.Lease(tmp_path)
    assert first.acquired() and not leases.Lease(tmp_path).acquired() and leases.seems_held(tmp_path)
    first.release()
    assert not leases.seems_held(tmp_path) and leases.Lease(tmp_path).free()
    (tmp_path / leases.NAME).write_bytes(b"")
    assert leases.Lease(tmp_path).free()
    assert list(tmp_path.iterdir()) == []
