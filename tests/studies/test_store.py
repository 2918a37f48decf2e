"""Runs on disk: every file whole, results exact, nothing of anybody else's overwritten."""

import csv
import json
import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, fields, replace

import numpy as np
import pytest
from small import Told

from nodepert.cli import app as cli
from nodepert.data import load_dataset
from nodepert.errors import UserError
from nodepert.studies import recorder as keeping
from nodepert.studies import train as runner
from nodepert.studies.run import Run
from nodepert.studies.store import records
from nodepert.studies.store.records import write_whole
from nodepert.studies.store.run_folder import load_run, open_run
from nodepert.studies.store.tables import append_rows
from nodepert.studies.train import train
from nodepert.training.devices import device_name
from nodepert.training.program import State
from nodepert.training.replicas import Epoch

RUN = Run("digits(train=200, test=50)", "fc(width=8, depth=1)", "auto", 60, 3, 1e-4, 1, "np", "sgd", 0.1)
COLUMNS = ["epoch", "epoch_time", "train_acc", "test_acc", "train_loss", "test_loss"]
ROW = dict.fromkeys(COLUMNS, 0.1) | {"epoch": 0}


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    monkeypatch.delenv("NODEPERT_DATA_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One undisturbed run."""
    return train(RUN, name="study", out=tmp_path_factory.mktemp("runs"))


def record(folder):
    return json.loads((folder / "config.json").read_text())


def table(folder):
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def metrics(rows):
    return [{k: float(v) for k, v in row.items() if k != "epoch_time"} for row in rows]


def content(folder):
    return {p.name: p.read_bytes() if p.is_file() else None for p in folder.iterdir() if p.name != ".owner"}


def stop_at(epoch):
    def stop(run, row):
        if row["epoch"] == epoch:
            raise KeyboardInterrupt

    return [Told(stop)]


def opened(out, name, data="20+5-abc"):
    with open_run(out, name, RUN, data) as folder:
        return folder


def known(rows):
    """What `fit_all` gives of one run whose rows are known."""
    return (Epoch({0: row}, lambda i: State({"w": np.zeros(2)}, (), (), np.int32(1))) for row in rows)


def never(*_, **__):
    raise AssertionError("the run was computed again")
    yield


# ------------------------------------------------------------------------------------------ a run's folder


def test_a_run_is_a_folder_of_record_table_and_last_checkpoint_named_after_study_and_identity(finished):
    assert finished.folder.parts[-2:] == ("study", RUN.id)
    assert set(content(finished.folder)) == {"config.json", "metrics.csv", "checkpoints"}
    assert {p.name for p in (finished.folder / "checkpoints").iterdir()} == {"3", "3.json"}


def test_the_record_says_what_was_run_where_and_with_what(finished):
    said = record(finished.folder)
    assert (said["format"], said["version"], said["id"]) == ("nodepert-run", 2, RUN.id)
    assert said["status"] == finished.status == "finished"
    assert said["config"] == RUN.config and "sigma=0.001" in said["config"]["rule"]
    assert said["config"]["loss"] == "mse"  # not "auto"
    assert {"nodepert", "jax", "jaxlib", "optax", "numpy", "python"} <= set(said["versions"])
    assert said["device"] == device_name() and said["source"] == "package scikit-learn"


def test_the_record_gives_the_run_back(finished):
    assert load_run(finished.folder).id == load_run(finished.folder / "config.json").id == RUN.id


def test_the_table_has_the_columns_of_a_row_in_full_precision(finished):
    rows = table(finished.folder)
    assert list(rows[0]) == list(finished.rows[0]) == COLUMNS
    assert [row["epoch"] for row in rows] == ["0", "1", "2", "3"]
    assert [{k: float(v) for k, v in row.items()} for row in rows] == finished.rows


def test_the_same_run_has_the_same_bits_and_another_seed_has_not(finished):
    assert metrics(train(RUN).rows) == metrics(finished.rows)
    assert metrics(train(replace(RUN, seed=2)).rows)[0] != metrics(finished.rows)[0]


def test_a_finished_run_is_read_back_and_not_computed_again(finished, monkeypatch):
    monkeypatch.setattr(runner, "fit_all", never)
    before, seen = content(finished.folder), []
    again = train(
        RUN, name="study", out=finished.folder.parents[1], callbacks=[Told(lambda run, row: seen.append(row))]
    )
    assert again.rows == seen == finished.rows and again.status == "finished"
    assert content(finished.folder) == before


def test_an_interrupted_run_keeps_its_rows_and_started_again_is_whole_and_the_same(finished, tmp_path):
    folder = tmp_path / "runs" / "default" / RUN.id
    for epoch in (2, 1):  # the second time it gets less far: the longer table stays
        with pytest.raises(KeyboardInterrupt):
            train(RUN, name="default", callbacks=stop_at(epoch))
        assert metrics(table(folder)) == metrics(finished.rows[:3])
        assert record(folder)["status"] == "interrupted"
        assert set(content(folder)) == {"config.json", "metrics.csv"}
    result = train(RUN, name="default")
    assert record(folder)["status"] == result.status == "finished"
    assert metrics(table(folder)) == metrics(result.rows) == metrics(finished.rows)


def test_a_run_belongs_to_one_process_at_a_time(tmp_path):
    with open_run(tmp_path, "study", RUN, "data") as first:
        with (
            pytest.raises(UserError, match="this run is locked by another process"),
            open_run(tmp_path, "study", RUN, "data"),
        ):
            raise AssertionError("opened twice")
        first.set_status("finished")
    assert not opened(tmp_path, "study", "data").done  # finished without its rows: it is done again


def test_a_run_of_the_first_format_is_read_back(finished, tmp_path, monkeypatch):
    """It had no seal, no digest of the table and no checkpoint."""
    folder = tmp_path / "study" / RUN.id
    shutil.copytree(finished.folder, folder)
    shutil.rmtree(folder / "checkpoints")
    old = {k: v for k, v in record(folder).items() if k not in ("seal", "table", "attempts")} | {"version": 1}
    (folder / "config.json").write_text(json.dumps(old))
    monkeypatch.setattr(runner, "fit_all", never)
    assert train(RUN, name="study", out=tmp_path).rows == finished.rows
    assert load_run(folder) == load_run(finished.folder)


def test_a_run_on_other_data_is_not_taken_for_this_one(finished, monkeypatch):
    monkeypatch.setattr(runner, "fit_all", never)
    monkeypatch.setattr(keeping, "fingerprint", lambda data: "200+50-other")
    with pytest.raises(UserError, match="has this run, trained on other data"):
        train(RUN, name="study", out=finished.folder.parents[1])
    assert finished.rows == [{k: type(row[k])(v) for k, v in zip(row, line.values(), strict=True)}
                             for row, line in zip(finished.rows, table(finished.folder), strict=True)]  # fmt: skip


def test_data_of_another_name_are_refused():
    with pytest.raises(UserError, match="these data are mnist5k"):
        train(RUN, data=load_dataset("mnist5k(train=10)"))


def test_numbers_of_numpy_are_numbers():
    run = replace(RUN, lr=np.float32(0.5), seed=np.int64(3))
    assert (type(run.lr), type(run.seed), run.lr, run.seed) == (float, int, 0.5, 3)


@pytest.mark.parametrize("damage", ["", "a,b\n" + "1,2\n" * 9, "epoch,epoch_time\n0,0.0\n", "last row"])
def test_a_finished_run_with_a_damaged_table_is_computed_again(finished, tmp_path, monkeypatch, damage):
    monkeypatch.setattr(runner, "fit_all", lambda *_, **__: known(finished.rows))
    folder = train(RUN, name="study", out=tmp_path).folder
    whole = (folder / "metrics.csv").read_text()
    text = "".join(whole.splitlines(keepends=True)[:-1]) if damage == "last row" else damage
    (folder / "metrics.csv").write_text(text)
    assert train(RUN, name="study", out=tmp_path).rows == finished.rows
    assert (folder / "metrics.csv").read_text() == whole


def test_a_diverging_run_says_so_keeps_its_rows_and_is_no_failure(tmp_path, capsys, monkeypatch):
    options = asdict(RUN) | {"network": "linfc(width=8)", "loss": "linear-mse", "rule": "sgd", "lr": 1e30}
    command = ["train", *(text for key, value in options.items() for text in (f"--{key}", str(value)))]
    cli.main(command)  # no SystemExit: exit status 0
    (folder,) = (tmp_path / "runs" / "default").iterdir()
    rows = table(folder)
    assert re.fullmatch(r"diverged at epoch [123]", record(folder)["status"])
    assert [row["epoch"] for row in rows] == [str(e) for e in range(int(record(folder)["status"][-1]) + 1)]
    assert rows[-1]["train_loss"] in ("nan", "inf") and float(rows[0]["train_loss"]) > 0
    monkeypatch.setattr(runner, "fit_all", never)
    cli.main(command)  # a result as well: read back
    assert "diverged" in " ".join(capsys.readouterr().out.split())


# --------------------------------------------------------------------------------------------- identity

CHANGES = {
    "dataset": "digits(train=201, test=50)",
    "network": "fc(width=9, depth=1)",
    "loss": "cross-entropy",
    "batchsize": 61,
    "epochs": 4,
    "wd": 2e-4,
    "seed": 2,
    "validation": 0.25,
    "rule": "np(samples=2)",
    "optimizer": "momentum",
    "lr": 0.2,
}


def test_the_identity_changes_with_every_field():
    assert set(CHANGES) == {f.name for f in fields(Run)} - {"patience"}  # it needs a validation split
    identities = {RUN.id, *(replace(RUN, **{k: v}).id for k, v in CHANGES.items())}
    assert len(identities) == 1 + len(CHANGES)
    assert all(re.fullmatch("[0-9a-f]{12}", identity) for identity in identities)


@pytest.mark.parametrize(
    "spelling",
    [
        {"rule": "np(sigma=1e-3)"},
        {"rule": " np( samples = 1, sigma=.001 )"},
        {"loss": "mse"},
        {"network": "fc(depth=1, width=8)"},
        {"dataset": "digits(test=50, train=200)"},
        {"optimizer": "sgd(schedule='constant')"},
    ],
    ids=str,
)
def test_the_identity_does_not_change_with_the_spelling(spelling):
    assert replace(RUN, **spelling).id == RUN.id


def test_the_identity_knows_aliases_and_whole_numbers():
    assert replace(RUN, rule="bp", lr=1).id == replace(RUN, rule="sgd", lr=1.0).id


# ---------------------------------------------------------------------------------- what is in the way


def with_config(**changes):
    valid = {"format": "nodepert-run", "version": 1, "status": "finished", "config": RUN.config}
    return json.dumps(valid | changes).encode()


FOREIGN = {
    "no JSON": b"learning rate: 3\n",
    "empty": b"",
    "a list": b"[1, 2]",
    "other format": with_config(format="other"),
    "newer version": with_config(version=3),
    "no seal": with_config(version=2),
    "a seal that does not fit": with_config(version=2, seal="0"),
    "no status": with_config(status=None),
    "no config": with_config(config=None),
    "unknown option": with_config(config={"momentum": 0.9}),
    "wrong type": with_config(config={"lr": "fast"}),
    "unknown rule": with_config(config={"rule": "nosuch"}),
    "damaged text": b'{"format": "nodepert-run\xff"}',
    "huge": b" " * (records.LARGEST + 1),
    "deep": b"[" * 100_000,
    "long number": b'{"version": ' + b"1" * 5000 + b"}",
    "number beyond floats": with_config(config={"lr": 10**400}),
    "another run": with_config(config=replace(RUN, seed=7).config),
}


REFUSED = {"a list", "other format", "newer version", "huge"}  # the others may be ours, damaged


@pytest.mark.parametrize("kind", sorted(set(FOREIGN) - REFUSED))
def test_what_may_be_a_damaged_record_is_set_aside_and_the_run_made_anew(kind, tmp_path, caplog):
    folder = tmp_path / "study" / RUN.id
    folder.mkdir(parents=True)
    (folder / "config.json").write_bytes(FOREIGN[kind])
    with open_run(tmp_path, "study", RUN, "20+5-abc") as found:
        assert not found.done and found.record["config"] == RUN.config
    assert content(folder) == {"config.json.damaged": FOREIGN[kind]}
    assert "saved as config.json.damaged" in caplog.text and len(caplog.messages) == 1
    (folder / "config.json").write_bytes(FOREIGN[kind])
    if kind != "another run":
        with pytest.raises(UserError, match=re.escape(str(folder / "config.json"))) as caught:
            load_run(folder)
        assert len(str(caught.value).splitlines()) == 1 and len(str(caught.value)) < 1000


@pytest.mark.parametrize("kind", sorted(REFUSED))
def test_a_foreign_record_is_refused_and_left_alone(kind, tmp_path):
    folder = tmp_path / "study" / RUN.id
    folder.mkdir(parents=True)
    path = folder / "config.json"
    path.write_bytes(FOREIGN[kind])
    with pytest.raises(UserError, match=re.escape(str(path))) as caught:
        opened(tmp_path, "study")
    assert len(str(caught.value).splitlines()) == 1 and len(str(caught.value)) < 1000
    assert content(folder) == {"config.json": FOREIGN[kind]}
    with pytest.raises(UserError, match=re.escape(str(path))):
        load_run(path)


@pytest.mark.parametrize("place", ["out", "out/study", "out/study/ID", "out/study/ID/metrics.csv/file"])
def test_a_place_that_cannot_be_written_is_refused(place, tmp_path, monkeypatch):
    blocking = tmp_path / place.replace("ID", RUN.id)
    blocking.parent.mkdir(parents=True, exist_ok=True)
    blocking.write_text("mine")
    monkeypatch.setattr(runner, "fit_all", lambda *_, **__: known([ROW]))
    with pytest.raises(UserError, match="cannot write"):
        train(RUN, name="study", out=tmp_path / "out")
    assert blocking.read_text() == "mine"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a", "a\0b", "a b", "a\n", "x" * 101])
def test_a_name_that_is_no_folder_name_is_refused(name, tmp_path):
    with pytest.raises(UserError, match="name"):
        opened(tmp_path, name)
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------ writing files


@pytest.mark.parametrize(("step", "error"), [("replace", OSError(28, "No space left")), ("fsync", KeyboardInterrupt())])
def test_a_write_that_fails_midway_keeps_the_old_file_and_leaves_no_other(step, error, tmp_path, monkeypatch):
    def fail(*_):
        raise error

    path = tmp_path / "table.csv"
    write_whole(path, "old")
    monkeypatch.setattr(os, step, fail)
    with pytest.raises(UserError if isinstance(error, OSError) else KeyboardInterrupt):
        write_whole(path, "new")
    assert content(tmp_path) == {"table.csv": b"old"}


def test_rows_appended_by_many_at_once_are_all_there_and_whole(tmp_path):
    path = tmp_path / "new" / "table.csv"
    rows = [{"job": job, "epoch": epoch, "text": "a, b" * 50} for job in range(8) for epoch in range(6)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda job: [append_rows(path, [row]) for row in rows if row["job"] == job], range(8)))
    with open(path, newline="") as file:
        read = list(csv.DictReader(file))
    expected = [{key: str(value) for key, value in row.items()} for row in rows]
    assert sorted(read, key=lambda row: (row["job"], row["epoch"])) == expected


def test_a_torn_last_line_does_not_swallow_the_next_row(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("a,b\n1,2\n3,")
    append_rows(path, [{"a": 5, "b": 0.1}])
    append_rows(path, [{"a": 6, "b": "x,y"}])
    assert path.read_text() == 'a,b\n1,2\n3,\n5,0.1\n6,"x,y"\n'


def test_a_table_with_other_columns_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("a,c\n1,2\n")
    with pytest.raises(UserError, match="other columns"):
        append_rows(path, [{"a": 5, "b": 6}])
    assert path.read_text() == "a,c\n1,2\n"
