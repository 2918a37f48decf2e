"""A trained network predicts, is evaluated, saved and drawn, in the process that trained it and in any other."""

import doctest
import gc
import json
import os
import pickle
from dataclasses import replace
from functools import cache
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest
from flax import linen as nn
from small import RUN

import nodepert as npt
from nodepert.studies import load as loading
from nodepert.studies.result import Result, Results
from nodepert.studies.store import checkpoints, network_file
from nodepert.studies.store.records import sealed
from nodepert.studies.train import train

HERE = Path(__file__).parent
DIGITS = npt.load_dataset(RUN.dataset)
X, Y = DIGITS.test_x, DIGITS.test_y


@cache
def trained(rule="np", network=RUN.network):
    return npt.train(replace(RUN, rule=rule, network=network))


def metrics(result):
    return {name: value for name, value in result.rows[-1].items() if name not in ("epoch", "epoch_time")}


@pytest.mark.parametrize("rule", ["np", "decorrelate(np)"])
def test_a_saved_network_has_the_outputs_and_metrics_of_the_run_to_the_bit(rule):
    result = trained(rule)
    loaded = npt.load(result.save("a.npz"))
    assert loaded.run == result.run and loaded.rows == result.rows and loaded.status == "finished"
    for one in (result, loaded):
        assert one.evaluate() == one.evaluate(DIGITS) == metrics(result)
        assert np.array_equal(one.predict(X), result.outputs(X).argmax(-1))
        assert np.array_equal(one.outputs(X), result.outputs(X))
    assert loaded.save("b.npz").read_bytes() == result.save("a.npz").read_bytes()


def test_a_run_that_is_read_back_has_its_network(tmp_path, monkeypatch):
    first = npt.train(RUN, name="n", out=tmp_path)
    reads = []
    monkeypatch.setattr(checkpoints, "sound", lambda *a, own=checkpoints.sound: reads.append(a) or own(*a))
    again = npt.train(RUN, name="n", out=tmp_path)
    assert again.read_back and not first.read_back and not reads  # the checkpoint is read when it is asked for
    assert np.array_equal(again.outputs(X), first.outputs(X)) and len(reads) == 1
    assert jax.tree.all(jax.tree.map(np.array_equal, again.params, first.params))
    assert again.save("b.npz").read_bytes() == first.save("a.npz").read_bytes()


def test_a_network_that_an_earlier_version_saved_predicts():
    """network_1.npz was written by the version that introduced the format; network_1.json has its outputs then."""
    loaded, then = npt.load(HERE / "network_1.npz"), json.loads((HERE / "network_1.json").read_text())
    x = npt.load_dataset("digits").test_x[:5]
    np.testing.assert_allclose(loaded.outputs(x), then["outputs"], rtol=1e-4, atol=1e-5)
    assert loaded.evaluate() == pytest.approx(then["metrics"], rel=1e-4) == metrics(loaded)
    assert loaded.run.rule == "decorrelate(np)" and loaded.run.id == "444c67d721c4"


@pytest.mark.parametrize("by", ["folder", "record", "id"])
def test_a_run_is_loaded_without_its_data(by, tmp_path, monkeypatch):
    first = npt.train(RUN, name="n", out=tmp_path)
    monkeypatch.setattr(loading, "load_dataset", lambda *_: pytest.fail("data were loaded"))
    path = {"folder": first.folder, "record": first.folder / "config.json", "id": RUN.id}[by]
    loaded = npt.load(path, out=tmp_path)
    assert loaded.folder == first.folder and loaded.rows == first.rows
    assert np.array_equal(loaded.outputs(X), first.outputs(X))


def test_any_number_of_examples_has_the_outputs_of_each(monkeypatch):
    monkeypatch.setattr("nodepert.training.predictor.EVALUATION_BATCH", 16)
    result = npt.load(trained().save("a.npz"))
    whole = result.outputs(X)
    assert whole.shape == (50, 10) and result.predict(X[:0]).shape == (0,)
    for n in (0, 1, 3, 16, 17, 33):
        np.testing.assert_allclose(result.outputs(X[:n]), whole[:n], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(result.outputs(X.astype(float)), whole)
    assert result.predict(X.tolist()).tolist() == result.predict(X).tolist()


BAD = {
    "one example": (lambda: X[0], r"of shape \(N, 8, 8, 1\); got \(8, 8, 1\); for one example give x\[None\]"),
    "flat": (lambda: X.reshape(50, 64), r"got \(50, 64\)$"),
    "a number": (lambda: 3, r"got \(\)"),
    "text": (lambda: ["a"], "must be real numbers; got <U1"),
    "complex": (lambda: X * 1j, "must be real numbers; got complex128"),
    "ragged": (lambda: [[1], [1, 2]], "must be an array of shape"),
    "nan": (lambda: X * np.nan, "nan or inf"),
    "too large": (lambda: X * 1e300, "too large for float32"),
}


@pytest.mark.parametrize("case", BAD)
def test_wrong_inputs_are_one_line(case):
    x, message = BAD[case]
    with pytest.raises(npt.UserError, match=message):
        trained().predict(x())


@pytest.mark.parametrize("act", ["predict", "evaluate", "evaluate data"])
def test_inputs_in_other_units_are_remarked_once(act, caplog):
    for scale, says in {1: "", 1 / 255: "from 0 to 0.06275", 16: "from 0 to 240", 0: ""}.items():
        x = (X * scale).astype(np.float32)
        data = DIGITS._replace(train_x=x, train_y=Y, test_x=x)
        caplog.clear()
        {"predict": lambda x=x: trained().predict(x), "evaluate": lambda x=x: trained().evaluate((x, Y)),
         "evaluate data": lambda data=data: trained().evaluate(data)}[act]()  # fmt: skip
        remarks = [record.getMessage() for record in caplog.records]
        whole = f"inputs are {says}, and those of the training were from 0 to 16: give them in the units of"
        assert len(remarks) == bool(says) and (not says or whole in remarks[0])


def test_the_range_of_inputs_is_that_of_each_column(caplog):
    rng = np.random.default_rng(0)
    x = pd.DataFrame({"weight": rng.uniform(1, 3, 40), "doors": rng.integers(2, 6, 40)})
    made = npt.train(npt.Run(dataset=(x, x.doors % 2), network="fc(width=5)", epochs=0, batchsize=10))
    npt.load(made.save("a.npz")).predict(x.assign(weight=1000 * x.weight))
    (remark,) = [record.getMessage() for record in caplog.records]
    assert remark.startswith("inputs of column 'weight' are from 10") and "were from 1.0" in remark
    caplog.clear()
    made.predict(pd.concat([x] * 9).assign(weight=[9] + 359 * [2]))  # a single outlier
    assert not caplog.text


@pytest.mark.parametrize(
    "data, message",
    [
        (3, "takes a Dataset, a spec or a pair"),
        ("nosuch", "unknown dataset"),
        ("mnist5k(train=1, test=1)", r"mnist5k are \(28, 28, 1\); this network takes \(8, 8, 1\)"),
        ((X[:0], Y[:0]), "no examples"),
        ((X, Y[:3]), r"^these examples: 50 test inputs but labels of shape \(3,\)$"),
        ((X, np.eye(10)[Y]), r"labels of shape \(50, 10\); the classes of one-hot rows are y.argmax\(1\)$"),
        ((X, Y + 5), "must be in 0..9"),
        ((X, Y + 0.5), "test labels must be whole numbers"),
    ],
)
def test_data_that_do_not_fit_are_one_line(data, message):
    with pytest.raises(npt.UserError, match=message):
        trained().evaluate(data)


def test_other_data_are_standardised_as_in_training():
    result = trained()
    assert result.evaluate((X, Y.astype(float))) == {
        name: v for name, v in metrics(result).items() if name.startswith("test")
    }
    other = DIGITS._replace(train_x=X, train_y=Y, mean=DIGITS.mean * 0, std=DIGITS.std * 0 + 9)
    found = result.evaluate(other)
    assert found["test_loss"] == result.evaluate()["test_loss"]
    assert found["train_acc"] == pytest.approx(100 * (result.predict(X) == Y).mean())
    with pytest.raises(npt.UserError, match="has 11 classes; this network has 10 outputs"):
        result.evaluate(DIGITS._replace(classes=11))


@pytest.mark.parametrize("dtype", [np.float64, np.int64])
def test_wide_inputs_are_standardised_in_their_precision(dtype, own):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 60)
    x = (1.7e9 + 50 * labels + 20 * rng.normal(size=60))[:, None].astype(dtype)
    data = npt.make_dataset(x[:40], labels[:40], x[40:], labels[40:], name="times")
    npt.register("dataset", "times", lambda data_dir: data)
    result = npt.train(replace(RUN, dataset="times", epochs=1, batchsize=20))
    own_dtypes = npt.load(result.save("a.npz"))
    assert own_dtypes.evaluate() == result.evaluate() == metrics(result)
    assert np.array_equal(own_dtypes.outputs(x), result.outputs(x)) and np.ptp(result.outputs(x)) > 0


def test_a_network_predicts_where_its_data_set_is_not_registered(own, tmp_path):
    npt.register("dataset", "mine", lambda data_dir: DIGITS._replace(name="mine"))
    result = npt.train(replace(RUN, dataset="mine"), name="n", out=tmp_path)
    result.save("a.npz")
    own_table = npt.registry.table.OWN["dataset"]
    del own_table["mine"]
    for path in ("a.npz", result.folder):
        loaded = npt.load(path)
        assert np.array_equal(loaded.outputs(X), result.outputs(X)) and "on mine" in repr(loaded)
        with pytest.raises(npt.UserError, match="unknown dataset 'mine'"):
            loaded.run  # noqa: B018


def test_data_of_the_name_that_are_others_are_refused(own, tmp_path):
    npt.register("dataset", "mine", lambda data_dir: DIGITS._replace(name="mine"))
    named = npt.train(replace(RUN, dataset="mine", epochs=0), name="n", out=tmp_path)
    npt.train(replace(RUN, dataset="mine", epochs=0)).save("a.npz")
    found = [named, npt.load(named.folder), npt.load("a.npz")]
    assert all(one.evaluate() == metrics(named) for one in found)
    npt.register("dataset", "mine", lambda data_dir: DIGITS._replace(name="mine", test_y=Y[::-1]))
    for one in found:
        with pytest.raises(npt.UserError, match=r"^mine is not the data set that this .*: evaluate\(data\), or"):
            one.evaluate()


def test_data_that_were_an_object_are_never_other_data_of_that_name(own):
    result = npt.train(replace(RUN, dataset=(X, Y), batchsize=10, epochs=0))
    result.save("a.npz")
    assert result.evaluate() == npt.load("a.npz").evaluate() == metrics(result)
    del result
    gc.collect()
    loaded = npt.load("a.npz")
    with pytest.raises(npt.UserError, match=r"trained on the data set own, which was an object.*evaluate\(data\)"):
        loaded.evaluate()
    other = replace(RUN, dataset=(X[::-1], Y), batchsize=10)
    assert other.dataset == loaded.config["dataset"] == "own"
    with pytest.raises(npt.UserError, match="own is not the data set that this network was trained on"):
        loaded.evaluate()


def test_data_that_are_not_found_elsewhere_are_asked_for(own, tmp_path):
    (tmp_path / "here").mkdir()
    np.savetxt("here/a.csv", np.arange(60).reshape(20, 3) % 7 / 7, delimiter=",", header="a,b,c", comments="")
    os.chdir("here")
    spec = "table(path='a.csv', target=c)"
    result = npt.load(npt.train(replace(RUN, dataset=spec, loss="auto", batchsize=10, epochs=0)).save("a.npz"))
    os.chdir(tmp_path)
    with pytest.raises(npt.UserError, match=r"no file a\.csv.*; give their folder \(--data-dir, data_dir=\), or give"):
        result.evaluate()
    assert result.evaluate(data_dir="here") == metrics(result)


def test_a_diverged_network_is_saved_and_predicts_nothing():
    result = npt.train(replace(RUN, lr=1e30, optimizer="sgd", rule="sgd", loss="linear-mse"))
    loaded = npt.load(result.save("a.npz"))
    assert loaded.status == result.status == "diverged at epoch 1"
    assert np.isnan(loaded.outputs(X)).all() and np.isnan(loaded.evaluate()["test_loss"])
    with pytest.raises(npt.UserError, match="its training has diverged"):
        loaded.predict(X)


def test_a_result_without_a_network_says_why(tmp_path):
    result = npt.train(RUN, name="n", out=tmp_path)
    checkpoints.keep_last(result.folder, 0)
    for one in (npt.load(result.folder), npt.train(RUN, name="n", out=tmp_path)):
        assert one.params is None and len(one.rows) == 3
        with pytest.raises(npt.UserError, match="it has no checkpoint; train the run under another name"):
            one.predict(X)
    locked = Result(RUN, [], "locked by another process")
    assert locked.params is None and "locked by another process" in repr(locked)
    for act in (lambda: locked.predict(X), lambda: locked.save("a.npz"), locked.evaluate, locked.plot):
        with pytest.raises(npt.UserError, match="locked by another process"):
            act()


def test_a_corrupt_checkpoint_is_one_line(tmp_path):
    result = npt.train(RUN, name="n", out=tmp_path)
    path = result.folder / "checkpoints" / "2" / "arrays.npz"
    path.write_bytes(path.read_bytes()[:-100])
    for one in (npt.load(result.folder), npt.train(RUN, name="n", out=tmp_path)):
        with pytest.raises(npt.UserError, match=r"the checkpoint of .* is corrupt"):
            one.params  # noqa: B018


def test_an_earlier_checkpoint_does_not_stand_for_the_result(tmp_path):
    result = npt.train(RUN, name="n", out=tmp_path)
    mark = result.folder / "checkpoints" / "2.json"
    record = json.loads(mark.read_text())
    (result.folder / "checkpoints" / "2").rename(result.folder / "checkpoints" / "1")
    record |= {"epoch": 1, "rows": record["rows"][:2]}
    mark.with_name("1.json").write_text(sealed(record))
    with pytest.raises(npt.UserError, match="is corrupt"):
        npt.load(result.folder).predict(X)


def test_an_unfinished_run_has_the_network_of_its_last_checkpoint(tmp_path, caplog):
    with pytest.raises(BaseException, match="resumes"):
        npt.train(RUN, name="n", out=tmp_path, stop=iter([False, True]).__next__)
    loaded = npt.load(RUN.id, out=tmp_path)
    assert loaded.status == "interrupted" and loaded.evaluate() == metrics(loaded)
    assert "this run is interrupted; its network is that after epoch 1" in caplog.text


def test_a_checkpoint_without_its_network_takes_it_from_the_data(tmp_path, monkeypatch):
    """As version 0.1 wrote them."""
    result = npt.train(RUN, name="n", out=tmp_path)
    mark = result.folder / "checkpoints" / "2.json"
    record = json.loads(mark.read_text())
    del record["network"]
    mark.write_text(sealed(record))
    assert np.array_equal(npt.load(result.folder).outputs(X), result.outputs(X))
    monkeypatch.setattr(loading, "load_dataset", lambda *_: DIGITS._replace(test_y=Y[::-1]))
    with pytest.raises(npt.UserError, match="was trained on other data than digits"):
        npt.load(result.folder).predict(X)

    def missing(*_):
        raise npt.DataNotFound("digits: not here")

    monkeypatch.setattr(loading, "load_dataset", missing)
    with pytest.raises(npt.UserError, match=r"does not say how its inputs are standardised.*not here"):
        npt.load(result.folder).predict(X)


def test_other_dtypes_are_refused():
    with jax.enable_x64(True):
        npt.train(RUN).save("a.npz")
        assert npt.load("a.npz").params["out"]["w"].dtype == np.float64
    with pytest.raises(npt.UserError, match=r"a.npz: its parameters are float64.*jax_enable_x64"):
        npt.load("a.npz").predict(X)


def test_a_result_is_one_line_and_is_pickled_drawn_and_listed():
    result = trained()
    assert repr(result).startswith("<Result: np on digits(train=200, test=50), fc(width=8), seed 0; finished, epoch 2,")
    assert len(repr(result)) < 120
    again = pickle.loads(pickle.dumps(result))
    assert np.array_equal(again.outputs(X), result.outputs(X))
    figure = result.plot()
    assert len(figure.axes) == 2 and figure.get_suptitle() == "digits(train=200, test=50), fc(width=8)"
    many = Results([result] * 30)
    assert repr(many).count("\n") == 20 and "... 10 more" in repr(many)
    assert type(npt.train([replace(RUN, epochs=0)])) is Results and train is npt.train


def test_saving_replaces_a_file_as_a_whole_or_not_at_all(monkeypatch, tmp_path):
    result = trained()
    before = result.save("a.npz").read_bytes()
    for path, message in (("a.npy", "must end in .npz"), ("no/a.npz", "no folder no")):
        with pytest.raises(npt.UserError, match=message):
            result.save(path)
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(npt.UserError, match="no space left"):
        trained("sgd").save("a.npz")
    assert [p.name for p in tmp_path.iterdir()] == ["a.npz"] and (tmp_path / "a.npz").read_bytes() == before


def test_numpy_alone_reads_a_saved_network():
    result = trained()
    with np.load(result.save("a.npz"), allow_pickle=False) as found:
        assert np.array_equal(found["params/fc0/w"], result.params["fc0"]["w"])
        record = json.loads(found["record"].tobytes())
    assert record["config"] == RUN.config and record["rows"] == result.rows
    assert record["network"]["inputs"]["shape"] == [8, 8, 1] and "jax" in record["facts"]["versions"]


def test_every_truncated_or_changed_file_is_one_line_or_the_same_network():
    result = trained()
    whole = result.save("a.npz").read_bytes()
    for at in range(0, len(whole), len(whole) // 40):
        for content in (whole[:at], whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :]):
            with open("b.npz", "wb") as file:
                file.write(content)
            try:
                assert np.array_equal(npt.load("b.npz").params["fc0"]["w"], result.params["fc0"]["w"])
            except npt.UserError as error:
                assert "b.npz" in str(error) and "\n" not in str(error)


def rewritten(path, **changes):
    """A saved network with another record."""
    record, params = network_file.read(path)
    network_file.write(path, record | changes, params)


def test_a_network_of_ones_own_is_registered_again_or_given(own):
    own_network = nn.Sequential([nn.Dense(8), nn.relu, nn.Dense(10)])
    npt.register("network", "mine", lambda shape, classes: npt.from_flax(Flat(own_network), shape))
    result = npt.train(replace(RUN, network="mine", epochs=1))
    result.save("a.npz")
    variables, x = npt.load("a.npz").module(), result.standardised(X)
    np.testing.assert_allclose(Flat(own_network).apply(variables, x), result.outputs(X), 1e-4, 1e-6)
    del npt.registry.table.OWN["network"]["mine"]
    with pytest.raises(npt.UserError, match=r"unknown network 'mine'.*npt.register.*npt.load\(..., network=module\)"):
        npt.load("a.npz").predict(X)
    given = npt.load("a.npz", network=Flat(own_network))
    assert np.array_equal(given.outputs(X), result.outputs(X)) and given.evaluate() == metrics(result)
    with pytest.raises(npt.UserError, match=r"a.npz: its parameters are not those of the network that is given"):
        npt.load("a.npz", network=Flat(nn.Dense(10))).predict(X)
    with pytest.raises(npt.UserError, match="is not a Flax or Equinox network"):
        trained().module()


class Flat(nn.Module):
    inner: nn.Module

    def __call__(self, x):
        return self.inner(x.reshape(len(x), -1))


def test_the_example_of_a_result_runs():
    (test,) = doctest.DocTestFinder(recurse=False).find(Result, globs={"npt": npt})
    assert doctest.DocTestRunner().run(test).failed == 0


class Trap:
    def __reduce__(self):
        return print, ("executed",)


def test_foreign_files_and_later_versions_are_one_line(tmp_path, capsys):
    path = trained().save("a.npz")
    np.savez_compressed("zip.npz", record=np.zeros(3, np.uint8))
    np.savez("trap.npz", record=np.array([Trap()], dtype=object))
    np.save("one.npy", np.zeros(3))
    for name in ("zip.npz", "trap.npz", "one.npy"):
        with pytest.raises(npt.UserError, match=name):
            npt.load(name)
    assert "executed" not in capsys.readouterr().out
    rewritten(path, version=2)
    with pytest.raises(npt.UserError, match="format version 2; this NodePert reads up to version 1"):
        npt.load(path)
    network = trained().save(path) and network_file.read(path)[0]["network"]
    rewritten(path, network=network | {"targets": {"kind": "sounds", "outputs": 1}})
    with pytest.raises(npt.UserError, match="does not know targets of the kind 'sounds'"):
        npt.load(path).predict(X)
    trained().save(path)
    rewritten(path, config={})
    with pytest.raises(npt.UserError, match="has no status or configuration"):
        npt.load(path)
    trained().save(path)
    rewritten(path, network={})
    with pytest.raises(npt.UserError, match="the record of its network is corrupt"):
        npt.load(path).predict(X)


def test_what_is_not_there_is_one_line(tmp_path):
    npt.train([RUN, replace(RUN, seed=1)], name="n", out=tmp_path / "runs")
    (tmp_path / "runs" / "n" / "empty").mkdir()
    for path, message in {
        "nosuch": "no file or run's folder nosuch, and no run of this id in runs",
        "runs/n": rf"is 2 runs; give one of them: runs/n/{RUN.id} \(np, seed 0\), runs/n/\w+ \(np, seed 1\)$",
        "runs": "runs is a folder of studies; give one of them: runs/n$",
        tmp_path / "runs" / "n" / "empty": "there is no run in the folder .*/empty: it has no config.json",
        3: "^a path is a text or a pathlib.Path; got 3$",
    }.items():
        with pytest.raises(npt.UserError, match=message):
            npt.load(path)
    (tmp_path / "runs" / "n" / RUN.id / "config.json").write_text("{")
    with pytest.raises(npt.UserError, match=rf"is 2 runs; give one of them: runs/n/{RUN.id}, runs/n/\w+$"):
        npt.load("runs/n")
    with pytest.raises(npt.UserError, match=r"config.json is not readable as JSON"):
        npt.load(RUN.id)


def test_targets_of_another_width_and_those_without_a_variance_are_named(caplog):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 3)), rng.normal(size=(40, 2))
    result = npt.train(npt.Run(dataset=(x, y), network="fc(width=5)", epochs=0, batchsize=10))
    with pytest.raises(npt.UserError, match=r"test targets are 3 numbers per example, of shape \(3,\); expected 2$"):
        result.evaluate((x, x))
    assert np.isfinite(result.evaluate((x, y))["test_r2"]) and not caplog.text
    for one in (x[:1], y[:1]), (x, np.ones((40, 2))):
        caplog.clear()
        assert np.isnan(result.evaluate(one)["test_r2"])
        assert [r.getMessage() for r in caplog.records] == [
            "R2 of the test split is nan: its targets are all equal, and R2 is relative to their variance"]  # fmt: skip


TASKS = {"values": lambda rng, n: rng.normal(50, 9, (n, 2)), "one value": lambda rng, n: rng.normal(50, 9, n),
         "multilabel": lambda rng, n: rng.integers(0, 2, (n, 3))}  # fmt: skip


@pytest.mark.parametrize("kind", TASKS)
def test_a_network_of_another_task_predicts_in_the_units_of_its_targets_and_loads_again(own, kind, tmp_path):
    rng = np.random.default_rng(0)
    arrays = [part for n in (40, 20) for part in (rng.normal(size=(n, 4)), TASKS[kind](rng, n))]
    data = npt.make_dataset(*arrays, name="mine")
    npt.register("dataset", "mine", lambda data_dir: data, task=data.task)
    result = npt.train(npt.Run(dataset="mine", network="fc(width=5)", epochs=1, batchsize=10))
    x, y = arrays[2:]
    found = result.predict(x)
    assert found.shape == y.shape and result.evaluate() == {name: result.rows[-1][name] for name in result.evaluate()}
    if kind == "multilabel":
        assert {*found.ravel()} <= {0, 1} and result.score == result.rows[-1]["test_f1"]
    else:
        assert np.sqrt(np.square(found - y).mean()) == pytest.approx(result.rows[-1]["test_rmse"], rel=1e-5)
        assert 30 < found.mean() < 70 and result.score == result.rows[-1]["test_r2"]
    again = npt.load(result.save(tmp_path / "a.npz"))
    assert (
        np.array_equal(again.predict(x), found) and again.evaluate((x, y))["test_loss"] == result.rows[-1]["test_loss"]
    )
    classes = npt.make_dataset(arrays[0], np.arange(40) % 2, arrays[2], np.arange(20) % 2)
    with pytest.raises(npt.UserError, match="targets of own are classes; this network was trained on"):
        again.evaluate(classes)
