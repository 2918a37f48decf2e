"""Trackers: what they record is what came of the runs, and they never end training."""

import json
import math
import os
import re
import struct
from dataclasses import replace

import pytest
from small import RUN, RUNS, Told

import nodepert as npt
from nodepert.cli import app as cli
from nodepert.studies.callbacks import Callback
from nodepert.studies.store import open_files as files
from nodepert.studies.trackers import tracker


def recorded(results):
    """{title: [(epoch, {name: figure})]}, as trackers should have it."""
    return {tracker.title(r.run): [(row["epoch"], tracker.charted(row)) for row in r.rows] for r in results}


def from_tensorboard(place):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = {}
    for folder in place.iterdir():
        events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
        events.Reload()
        steps = {}
        for name in events.Tags()["scalars"]:
            for event in events.Scalars(name):
                assert name not in steps.setdefault(event.step, {})  # once each
                steps[event.step][name] = event.value
        text = events.Tensors("configuration/text_summary")[-1].tensor_proto.string_val[0].decode()
        found[folder.name] = sorted(steps.items()), json.loads(re.search("```json\n(.*)```", text, re.S)[1])
    return found


def same_figures(found, expected):
    assert [step for step, _ in found] == [step for step, _ in expected]
    for (_, got), (_, wanted) in zip(found, expected, strict=True):
        assert got.keys() == wanted.keys()
        for name, value in wanted.items():
            assert got[name] == pytest.approx(value, rel=1e-6, nan_ok=True)


def test_tensorboard_has_every_row_once_also_of_a_run_that_went_on(tmp_path):
    def stop(run, row):
        if row["epoch"] == 1:
            raise KeyboardInterrupt

    how = {"name": "n", "out": tmp_path, "checkpoint_every": 0.0}
    with pytest.raises(KeyboardInterrupt):
        npt.train(RUNS[:2], **how, callbacks=[npt.make_tracker("tensorboard"), Told(stop)])
    results = npt.train(RUNS, **how, callbacks=[npt.make_tracker("tensorboard")])
    found = from_tensorboard(tmp_path / "n" / "tensorboard")
    expected = recorded(results)
    assert len(found) == len(expected) == 3
    for title, rows in expected.items():
        steps, configuration = found[tracker.folder_name(title)]
        same_figures(steps, rows)
        assert title.endswith(npt.Run(**configuration).id)
    assert math.isnan(expected[tracker.title(RUNS[2])][-1][1]["loss/train"])
    assert len(npt.load_results("n", tmp_path, last=True)) == 3  # its folder is no run


def from_wandb(path):
    """What an offline file of wandb's holds: a log of records (LevelDB's format), each a protocol buffer."""
    from wandb.proto import wandb_internal_pb2 as pb

    data, at, whole, steps, run = path.read_bytes(), 7, b"", [], None
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # full, or the last part
            record, whole = pb.Record.FromString(whole), b""
            if record.HasField("run"):
                run = record.run
            if record.HasField("history"):
                row = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
                steps.append((row["_step"], {k: float(v) for k, v in row.items() if not k.startswith("_")}))
    return run.display_name, {c.key: json.loads(c.value_json) for c in run.config.update}, steps


def test_wandb_offline_has_every_row_and_the_configuration(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    results = npt.train(RUNS, name="n", out=tmp_path, callbacks=[npt.make_tracker("wandb")])
    files = list((tmp_path / "n" / "wandb").glob("offline-run-*/*.wandb"))
    found = {title: (config, steps) for title, config, steps in map(from_wandb, files)}
    expected = recorded(results)
    assert found.keys() == expected.keys()
    for result in results:
        config, steps = found[tracker.title(result.run)]
        same_figures(steps, expected[tracker.title(result.run)])
        assert npt.Run(**{k: v for k, v in config.items() if not k.startswith("_")}).id == result.run.id


def test_a_tracker_that_fails_is_warned_of_once_and_training_goes_on(monkeypatch, caplog):
    class Broken(Callback):
        def on_epoch(self, run, row, state):
            raise OSError("no space left on device")

    npt.register("tracker", "broken", Broken)
    result = npt.train(RUN, callbacks=[npt.make_tracker("broken")])
    assert result.status == "finished" and len(caplog.records) == 1
    assert "--log broken failed, and is left out" in caplog.text and "no space left" in caplog.text


class Failing(Callback):
    """At the second run that begins, or wherever it is said."""

    def __init__(self, at):
        self.at, self.begun, self.ended = at, [], []

    def on_begin(self, run, folder):
        self.begun.append(run)
        if self.at == "begin" and len(self.begun) == 2:
            raise OSError("too many open files")

    def on_epoch(self, run, row, state):
        if self.at == "epoch":
            raise OSError("no space left on device")

    def on_end(self, run, status):
        self.ended.append((run, status))
        raise OSError("nor at the end")


@pytest.mark.parametrize("at", ["begin", "epoch", "end"])
def test_a_tracker_that_fails_closes_what_it_has_open_and_hears_no_more(at, caplog):
    failing, runs = Failing(at), [replace(RUN, seed=seed) for seed in range(3)]
    results = npt.train(runs, callbacks=[tracker.Surviving("failing", failing)])
    assert [result.status for result in results] == ["finished"] * 3 and len(caplog.records) == 1
    assert failing.begun == runs[: 2 if at == "begin" else 3]
    assert {run for run, _ in failing.ended} == set(failing.begun)
    assert len(failing.ended) == len(failing.begun)
    assert {status for _, status in failing.ended} <= {"finished", "left out"}


def test_tensorboard_leaves_the_store_its_files_and_is_left_out_where_there_are_none(tmp_path, monkeypatch, caplog):
    few = len(os.listdir("/dev/fd")) + 10
    monkeypatch.setattr(files, "SPARE", 10)
    monkeypatch.setattr(files.resource, "getrlimit", lambda which: (few, few))
    board, runs = npt.make_tracker("tensorboard"), [replace(RUN, seed=seed, epochs=1) for seed in range(6)]
    assert {r.status for r in npt.train(runs, callbacks=[board], name="n", out=tmp_path)} == {"finished"}
    assert "no more than" in caplog.text and "training continues" in caplog.text and len(caplog.records) == 1
    assert board.tracker.writers == {}


def test_folders_of_long_titles_are_apart():
    rule = "np; " + "; ".join(f"fc{i}=decorrelate(np(sigma=0.01))" for i in range(9))
    names = {tracker.folder_name(tracker.title(replace(RUN, rule=rule, seed=seed))) for seed in (0, 1)}
    assert len(names) == 2 and all(len(name) <= 200 for name in names)


def test_a_tracker_that_is_no_callback_is_refused_before_anything_is_trained():
    npt.register("tracker", "nothing", lambda: None)
    with pytest.raises(npt.UserError, match=r"'nothing' returns NoneType; its factory must return npt\.Callback"):
        npt.make_tracker("nothing")


@pytest.mark.parametrize("spec, extra", [("tensorboard", "tensorboard"), ("wandb", "wandb")])
def test_a_library_that_is_missing_is_one_line_before_anything_is_written(spec, extra, monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, {"tensorboard": "tensorboardX", "wandb": "wandb"}[spec], None)
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", "--dataset", "digits", "--log", spec, "--out", str(tmp_path / "runs")])
    err = capsys.readouterr().err
    assert stop.value.code == 2 and f'pip install "nodepert[{extra}]"' in err and err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_wandb_without_a_key_is_one_line(monkeypatch, tmp_path):
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    with pytest.raises(npt.UserError, match=r"not logged in: wandb login; or .* WANDB_MODE=offline"):
        npt.make_tracker("wandb")
    with pytest.raises(npt.UserError, match="online or offline; got 'loud'"):
        npt.make_tracker("wandb(mode=loud)")
