"""Checkpoints: what is read is what was written; what is damaged is passed over; runs go on as they were."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import COLUMNS, Told
from sweeps import flip, truncate

import nodepert as npt
from nodepert.errors import UserError
from nodepert.studies import train as runner
from nodepert.studies.store import checkpoints, records
from nodepert.studies.store.lock import Lock
from nodepert.training.replicas import fit_all

STATE = ({"w": jnp.arange(6.0).reshape(2, 3) / 7, "b": jnp.ones(3, jnp.bfloat16) / 3}, (), jnp.int32(5))
RUN = npt.Run(dataset="digits(train=400, test=100)", network="fc(width=10)", rule="kp", optimizer="adam", lr=1e-2,
              epochs=4, batchsize=50)  # fmt: skip
RUNS = [RUN, replace(RUN, seed=1), replace(RUN, rule="np(baseline=running)")]

DATA = "400+100-abc"


def rows(epoch):
    return [dict(zip(COLUMNS, (e, 0.1, 10.0, 9.5, 1 / 3, 2.0), strict=True)) for e in range(epoch + 1)]


def equal(a, b):
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        np.array_equal(x, y) and x.dtype == y.dtype for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def changed(state):
    return jax.tree.map(lambda a: a + 1, state)


@pytest.fixture
def run(tmp_path):
    checkpoints.save(tmp_path, 1, rows(1), STATE, DATA)
    checkpoints.save(tmp_path, 3, rows(3), changed(STATE), DATA)
    return tmp_path


def test_what_is_read_is_what_was_written(run):
    found = checkpoints.latest(run, jax.eval_shape(lambda: STATE), DATA)
    assert found and (found.epoch, found.rows) == (3, rows(3)) and equal(found.state, changed(STATE))
    assert checkpoints.latest(run / "elsewhere", STATE, DATA) is None


def test_two_are_kept_and_nothing_else(run):
    stray = run / "checkpoints" / "5.orbax-checkpoint-tmp-7"
    stray.mkdir()
    checkpoints.save(run, 4, rows(4), STATE, DATA)
    assert sorted(os.listdir(run / "checkpoints")) == ["3", "3.json", "4", "4.json"]
    checkpoints.save(run, 6, rows(6), STATE, DATA, keep=1)
    assert sorted(os.listdir(run / "checkpoints")) == ["6", "6.json"]


def files(run, epoch):
    place = run / "checkpoints"
    return [place / f"{epoch}.json", *sorted(p for p in (place / str(epoch)).rglob("*") if p.is_file())]


@pytest.mark.parametrize("damage", [truncate, flip, os.unlink, lambda path: path.write_bytes(os.urandom(300))])
def test_any_damage_is_passed_over_and_never_believed(run, damage, caplog):
    """Orbax does not need each of its files: then the checkpoint is sound. Else it is that of the epoch before."""
    seen = set()
    for i in range(len(files(run, 3))):
        checkpoints.save(run, 3, rows(3), changed(STATE), DATA)
        for path in files(run, 3)[i : i + 1]:  # orbax does not always write as many
            damage(path)
        caplog.clear()
        found = checkpoints.latest(run, STATE, DATA)
        assert found and (found.epoch, found.rows) in ((3, rows(3)), (1, rows(1)))
        assert equal(found.state, changed(STATE) if found.epoch == 3 else STATE)
        seen.add(found.epoch)
    assert 1 in seen


def test_a_checkpoint_that_is_saved_again_does_not_count_until_it_is_complete(run, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", interrupted)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.save(run, 3, rows(3), STATE, DATA)
    assert not (run / "checkpoints" / "3.json").exists()
    assert checkpoints.latest(run, STATE, DATA).epoch == 1


def test_arrays_and_folders_are_on_disk_before_the_mark(tmp_path, monkeypatch):
    """So that a power cut leaves no mark without arrays."""
    flushed, marked = [], []
    monkeypatch.setattr(records, "settle", flushed.append)
    monkeypatch.setattr(checkpoints, "settle", flushed.append)
    monkeypatch.setattr(checkpoints, "write_whole", lambda path, text: marked.append((path, set(flushed))))
    run = tmp_path / "n" / "id"
    checkpoints.save(run, 1, rows(1), STATE, DATA)
    ((mark, before),) = marked
    assert mark == run / "checkpoints" / "1.json"
    assert before == {tmp_path, tmp_path / "n", run, run / "checkpoints", run / "checkpoints" / "1"}


def test_a_state_of_another_structure_is_not_taken(run):
    assert checkpoints.latest(run, STATE[:2], DATA) is None
    assert checkpoints.latest(run, ({**STATE[0], "b": jnp.ones(4)}, *STATE[1:]), DATA) is None


def test_a_sound_checkpoint_of_other_dtypes_is_not_called_corrupt(run, caplog):
    """As one that was written under jax_enable_x64; nor is it passed over, for the run would start again."""
    checkpoints.save(run, 4, rows(4), {"w": np.ones(3), "n": np.int64(5)}, DATA)
    for like in ({"w": np.ones(3, "float32"), "n": np.int64(0)}, {"w": np.ones(3), "n": np.int32(0)}):
        with pytest.raises(UserError, match=r"saved with .*64 where this run now has .*32.*another --name"):
            checkpoints.latest(run, like, DATA)
    assert not caplog.text and checkpoints.latest(run, {"w": np.ones(3), "n": np.int64(0)}, DATA).epoch == 4


def test_states_of_any_shape_and_dtype_are_saved(run):
    state = [
        np.ones((2, 0)),
        np.int64(3),
        jnp.ones((), jnp.bfloat16) / 3,
        np.zeros(2, bool),
        jnp.ones(2, jnp.float8_e5m2),
    ]
    checkpoints.save(run, 4, rows(4), state, DATA)
    assert equal(checkpoints.latest(run, state, DATA).state, [np.asarray(leaf) for leaf in state])


def test_threads_train_side_by_side(tmp_path):
    """Each saves its run whole; of several on one run, one trains it, and the others are refused."""
    runs = [npt.Run(dataset="digits(train=40, test=20)", network="fc(depth=0)", rule="sgd", optimizer="sgd",
                    batchsize=20, epochs=2, seed=seed) for seed in (0, 1)]  # fmt: skip

    def outcome(run):
        try:
            return npt.train(run, name="n", out=tmp_path, checkpoint_every=0).status
        except UserError as error:
            return "locked" if "locked by another process or thread" in str(error) else repr(error)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(outcome, [run for run in runs for _ in range(2)]))
    for i, run in enumerate(runs):
        assert "finished" in found[2 * i : 2 * i + 2] and {*found[2 * i : 2 * i + 2]} <= {"finished", "locked"}
        assert sorted(os.listdir(tmp_path / "n" / run.id / "checkpoints")) == ["2", "2.json"]
        assert npt.train(run, name="n", out=tmp_path).rows == npt.train(run, name="n", out=tmp_path).rows


def test_one_thread_of_many_gets_a_lock(tmp_path):
    held = Lock(tmp_path / "marker")
    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(lambda _: held.acquired(), range(64))) == 1
    held.release()
    assert held.acquired()


def test_what_cannot_be_written_says_so_and_leaves_what_was_there(run, monkeypatch):
    (run / "blocked").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        checkpoints.save(run / "blocked", 1, rows(1), STATE, DATA)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "write_whole", full)
    with pytest.raises(UserError, match="no space left"):
        checkpoints.save(run, 4, rows(4), STATE, DATA)
    assert checkpoints.latest(run, STATE, DATA).epoch == 3


def without_times(found):
    return [{k: v for k, v in row.items() if k != "epoch_time"} for row in found]


def test_interrupted_runs_go_on_and_end_with_the_same_bits(monkeypatch, tmp_path):
    """kp, adam and a running baseline have states of their own; the runs are stopped at different epochs."""
    whole = npt.train(RUNS)
    for stop_at in (2, 3, 1, 1):  # the third time the first group ends, the fourth time the second is stopped

        def stopping(*built, stop_at=stop_at, **how):
            for epoch in fit_all(*built, **how):
                yield epoch
                if max(row["epoch"] for row in epoch.rows.values()) >= stop_at:
                    raise KeyboardInterrupt

        monkeypatch.setattr(runner, "fit_all", stopping)
        with pytest.raises(KeyboardInterrupt):
            npt.train(RUNS, name="n", out=tmp_path, checkpoint_every=0.0)
    started = []

    def watched(*built, **how):
        for epoch in fit_all(*built, **how):
            started.append(min(row["epoch"] for row in epoch.rows.values()))
            yield epoch

    monkeypatch.setattr(runner, "fit_all", watched)
    table = []
    again = npt.train(
        RUNS, name="n", out=tmp_path, callbacks=[Told(lambda run, row: table.append((RUNS.index(run), row["epoch"])))]
    )
    assert min(started) == 2  # nothing was begun anew
    for a, b in zip(whole, again, strict=True):
        assert without_times(a.rows) == without_times(b.rows) and len(b.rows) == 5
        assert a.status == b.status == "finished" and equal(a.params, b.params)
        kept = os.listdir(b.folder / "checkpoints")
        assert sorted(kept) == ["4", "4.json"]
        assert json.loads((b.folder / "checkpoints" / "4.json").read_text())["rows"] == b.rows
    assert sorted(table) == [(i, e) for i in range(3) for e in range(5)]


def test_a_run_goes_on_without_checkpoints_where_they_cannot_be_written(monkeypatch, tmp_path, caplog):
    def refused(*_, **__):
        raise UserError("cannot write there: no space left on device")

    monkeypatch.setattr(checkpoints, "save", refused)
    assert npt.train(RUN, name="n", out=tmp_path, checkpoint_every=0.0).status == "finished"
    assert "no checkpoint of epoch 2: cannot write there" in caplog.text


@pytest.mark.parametrize("wrong", [-1.0, float("nan"), float("inf")])
def test_an_interval_is_a_time(wrong, tmp_path):
    with pytest.raises(UserError, match="checkpoint_every"):
        npt.train(RUN, name="n", out=tmp_path, checkpoint_every=wrong)


@pytest.mark.slow  # test_sweep.py kills sweeps
def test_a_killed_command_goes_on_when_it_is_given_again(tmp_path):
    """SIGKILL after the first checkpoint; the same command again ends as one that was left alone."""
    command = [sys.executable, "-m", "nodepert", "train", "--dataset", "digits", "--network", "fc(width=20)", "--seeds",
               "0..1", "--epochs", "60", "--checkpoint-every", "0", "--out", str(tmp_path)]  # fmt: skip
    process = subprocess.Popen([*command, "--name", "n"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list(tmp_path.glob("n/*/checkpoints/*.json")) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    reached = max(int(p.stem) for p in tmp_path.glob("n/*/checkpoints/*.json"))
    assert 0 < reached < 60
    for name in ("n", "whole"):
        subprocess.run([*command, "--name", name], check=True, capture_output=True)

    def left(name):
        tables = {p.parent.name: p.read_text().splitlines() for p in tmp_path.glob(f"{name}/*/metrics.csv")}
        records = {p.parents[1].name: json.loads(p.read_text()) for p in tmp_path.glob(f"{name}/*/checkpoints/60.json")}
        return ({i: [line.split(",")[2:] for line in lines] for i, lines in tables.items()},
                {i: record["digest"] for i, record in records.items()})  # fmt: skip

    assert left("n") == left("whole") and len(left("n")[1]) == 2
