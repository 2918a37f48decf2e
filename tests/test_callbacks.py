"""Callbacks and trackers: who is told what, and that what they record is what came of the runs."""

import json
import math
import re
import struct
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from told import Told

import nodepert as npt
from nodepert import catalogue, cli, registry
from nodepert.callbacks import Callback
from nodepert.config import run_id
from nodepert.trackers import tracker

RUN = npt.Run(dataset="digits(train=200,test=50)", network="fc(width=8)", epochs=2, batchsize=50, lr=1e-2)
RUNS = [RUN, replace(RUN, seed=1), replace(RUN, lr=1e30, optimizer="sgd", rule="sgd", loss="linear-mse")]


class Spy(Callback):
    def __init__(self):
        self.told, self.states = [], []

    def on_begin(self, run, folder):
        self.told.append((run, "begins", folder))

    def on_epoch(self, run, row, state):
        self.told.append((run, row["epoch"], dict(row)))
        self.states.append(state())
        row.clear()  # what it does with its row is its own affair

    def on_end(self, run, status):
        self.told.append((run, "ends", status))

    def of(self, run):
        return [(what, more) for own, what, more in self.told if own == run]


def test_it_is_told_of_every_run_from_beginning_to_end_with_its_rows_and_states():
    spy = Spy()
    results = npt.train(RUNS, callbacks=[spy])
    for result in results:
        (begins, folder), *rows, (ends, status) = spy.of(result.run)
        assert (begins, folder, ends, status) == ("begins", None, "ends", result.status)
        assert str([row for _, row in rows]) == str(result.rows)  # nan is not equal to itself
    assert results[2].status == "diverged at epoch 1" and len(spy.states) == 8
    final = [state for state in spy.states if int(state.step) == 8 and np.isfinite(state.params["out"]["w"]).all()]
    assert len(final) == 2  # copies of its own: they outlive the epochs after them
    same = jax.tree.map(jnp.array_equal, final[0].params, results[0].params)
    assert all(jax.tree.leaves(same))


def test_rows_that_were_read_back_come_first_and_have_no_state(tmp_path):
    whole = npt.train(RUN, name="n", out=tmp_path / "whole")
    spy = Spy()
    again = npt.train(RUN, name="n", out=tmp_path / "whole", callbacks=[spy])
    assert [what for what, _ in spy.of(RUN)] == ["begins", 0, 1, 2, "ends"] and spy.states == [None] * 3
    assert spy.told[0][2] == again.folder == whole.folder

    def stop(run, row):
        if row["epoch"] == 1:
            raise KeyboardInterrupt

    spy = Spy()
    with pytest.raises(KeyboardInterrupt):
        npt.train(RUN, name="n", out=tmp_path, callbacks=[spy, Told(stop)], checkpoint_every=0.0)
    assert spy.told[-1] == (RUN, "ends", "interrupted")
    spy = Spy()
    result = npt.train(RUN, name="n", out=tmp_path, callbacks=[spy])
    assert [what for what, _ in spy.of(RUN)] == ["begins", 0, 1, 2, "ends"]
    assert [state is None for state in spy.states] == [True, True, False]
    assert [row for _, row in spy.of(RUN)[1:-1]] == result.rows


def test_what_is_no_callback_is_an_error():
    with pytest.raises(npt.UserError, match=r"instances of npt\.Callback; got type"):
        npt.train(RUN, callbacks=[Spy])


# --------------------------------------------------------------------------------------------- trackers


def recorded(results):
    """{title: [(epoch, {name: figure})]}, as trackers should have it."""
    return {tracker.title(r.run): [(row["epoch"], tracker.figures(row)) for row in r.rows] for r in results}


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
        assert title.endswith(run_id(npt.Run(**configuration)))
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
        assert run_id(npt.Run(**{k: v for k, v in config.items() if not k.startswith("_")})) == run_id(result.run)


def test_a_tracker_that_fails_is_warned_of_once_and_training_goes_on(monkeypatch, caplog):
    class Broken(Callback):
        def on_epoch(self, run, row, state):
            raise OSError("no space left on device")

    npt.register("tracker", "broken", Broken)
    result = npt.train(RUN, callbacks=[npt.make_tracker("broken")])
    assert result.status == "finished" and len(caplog.records) == 1
    assert "--log broken failed, and is left out" in caplog.text and "no space left" in caplog.text


def test_a_tracker_that_is_no_callback_is_refused_before_anything_is_trained():
    npt.register("tracker", "nothing", lambda: None)
    with pytest.raises(npt.UserError, match=r"tracker 'nothing' gives NoneType, and not an npt\.Callback"):
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


# --------------------------------------------------------------------------------------------- register


@pytest.fixture
def own(monkeypatch):
    for kind in catalogue.CONTEXT:
        monkeypatch.setitem(registry.OWN, kind, {})


def half(model, loss, *, factor: float = 0.5):
    """Backpropagation, scaled."""
    whole = npt.backprop(model, loss)

    def grads(key, state, params, batch):
        found, state, info = whole.grads(key, state, params, batch)
        return jax.tree.map(lambda g: factor * g, found), state, info

    return npt.Rule(whole.init, grads)


def test_a_factory_that_is_registered_has_a_name_in_specs_and_takes_part_in_replicas(own):
    npt.register("rule", "half", half)
    assert "half" in registry.names("rule") and registry.about("rule", "half") == "Backpropagation, scaled."
    run = replace(RUN, optimizer="sgd", lr=0.1)
    one, other = npt.train([replace(run, rule="half"), replace(run, rule="half(factor=1)")])
    exact = npt.train(replace(run, rule="sgd"))
    halved = npt.train(replace(run, rule="sgd", lr=0.05))
    assert other.test_acc == exact.test_acc and one.rows[-1]["test_loss"] != other.rows[-1]["test_loss"]
    assert one.rows[-1]["test_loss"] == pytest.approx(halved.rows[-1]["test_loss"], rel=1e-5)
    npt.register("rule", "half", lambda model, loss: npt.backprop(model, loss))  # again: replaced
    with pytest.raises(npt.UserError, match="rule 'half' has no argument 'factor'"):
        npt.train(replace(RUN, rule="half(factor=1)"))


BAD = {
    "kind": (("rules", "half", half), "no kind 'rules'; there are: rule, network"),
    "name": (("rule", "my rule", half), "'my rule' cannot stand in a spec"),
    "spec": (("rule", "half(factor=1)", half), "cannot stand in a spec"),
    "taken": (("rule", "np", half), "'np' is taken by a rule of NodePert"),
    "what it makes": (("network", "net", npt.Model(None, None)), "this is a Model; register takes the function"),
    "alias": (("rule", "bp", half), "'bp' is taken"),
    "no factory": (("rule", "half", 3), "register takes a factory"),
    "few arguments": (("network", "net", lambda input_shape: None), "takes 2 positional arguments"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_cannot_be_registered_is_an_error_that_says_why(what, own):
    arguments, part = BAD[what]
    with pytest.raises(npt.UserError, match=re.escape(part)):
        npt.register(*arguments)
    assert registry.table("rule").keys() == catalogue.BUILT_IN["rule"].keys()


def test_a_network_for_one_shape_alone_trains_and_what_fails_in_it_is_one_line(own):
    eqx = pytest.importorskip("equinox", reason="no equinox here")
    npt.register("network", "mlp", lambda shape, classes: npt.from_equinox(Flat(eqx, classes)))
    run = npt.Run(dataset="digits(train=200,test=50)", network="mlp", epochs=1)
    assert npt.train(run).status == "finished"

    def broken(params, x, node=npt.plain):
        raise TypeError("of this network\nand more")

    npt.register("network", "broken", lambda shape, classes: npt.Model(lambda key: {}, broken))
    with pytest.raises(npt.UserError, match=r"fails on inputs of shape \(2, 8, 8, 1\): TypeError: of this network$"):
        npt.train(replace(run, network="broken"))


def Flat(eqx, classes):
    layer = eqx.nn.Linear(64, classes, key=jax.random.key(0))  # of digits, and of nothing else
    return eqx.nn.Sequential([eqx.nn.Lambda(jnp.ravel), layer])
