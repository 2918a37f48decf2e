"""Objects in place of the specs of a run."""

import copy
import functools
import gc
import json
import pickle
import re
from dataclasses import asdict, replace

import jax
import numpy as np
import optax
import pytest
from small import RUN, half, same_rows

import nodepert as npt
from nodepert.registry.table import GIVEN
from nodepert.report.study import command
from nodepert.studies.labels import labels
from nodepert.studies.results import saved_runs
from nodepert.studies.setup import check_runs, groups
from nodepert.studies.sweep.jobs import Job, write_jobs
from nodepert.studies.trackers.tracker import title

pytestmark = pytest.mark.usefixtures("quickly_compiled", "own")

RNG = np.random.default_rng(0)
Y = RNG.integers(0, 3, 60)
X = (RNG.normal(size=(60, 5)) + Y[:, None]).astype(np.float32)
MODEL = npt.make_model("fc(width=4)", (5,), 3)


def error(outputs, targets):
    return optax.softmax_cross_entropy_with_integer_labels(outputs, targets)


def objects():
    return {"dataset": (X, Y), "network": MODEL, "rule": half, "loss": error, "optimizer": optax.sgd(0.1)}


def run_of(**options):
    return npt.Run(**objects() | {"epochs": 1, "batchsize": 20} | options)


def test_a_run_of_objects_trains_as_that_of_specs():
    run = run_of()
    assert (run.dataset, run.network, run.rule, run.loss, run.optimizer) == ("own", "Model", "half", "error", "optax")
    assert run.lr is None and len(repr(run)) < 200 and json.loads(json.dumps(run.config)) == run.config
    npt.register("dataset", "mine", lambda data_dir: npt.make_dataset(*split()))
    npt.register("rule", "halved", lambda model, loss: half(model, loss))
    by_specs = npt.Run("mine", "fc(width=4)", "cross-entropy", 20, 1, rule="halved", optimizer="sgd", lr=0.1)
    result = npt.train(run)
    assert same_rows(result, npt.train(by_specs))
    assert result.predict(X[:3]).shape == (3,) and result.evaluate((X, Y))["test_acc"] > 0


def split():
    from nodepert.data import tables

    return tables.split(X, Y, 12)


def test_what_nodepert_or_register_has_a_name_for_is_that_spec():
    assert (
        npt.Run(rule=functools.partial(npt.node_perturbation, samples=np.int64(4))).id
        == npt.Run(rule="np(samples=4)").id
    )
    assert npt.Run(rule=npt.backprop, loss=npt.make_loss("cross-entropy")).config == npt.Run(
        rule="sgd", loss="cross-entropy").config  # fmt: skip
    npt.register("rule", "mine", half)
    npt.register("network", "net", MODEL)
    npt.register("optimizer", "slow", optax.sgd(1e-3))
    npt.register("dataset", "few", (X, Y))
    run = npt.Run((X.copy(), Y), MODEL, rule=half, optimizer="slow")
    assert (run.dataset, run.network, run.rule, run.lr) == ("few", "net", "mine", None) and not run.unnamed
    assert run == npt.Run("few", "net", rule="mine", optimizer="slow") and pickle.loads(pickle.dumps(run)) == run


def test_runs_that_share_objects_are_replicas_and_others_are_not():
    run = run_of()
    runs = [replace(run, rule=functools.partial(half, factor=f), seed=i) for i, f in enumerate((0.5, 1.0))]
    assert [one.rule for one in runs] == ["half", "half(factor=1.0)"] == labels([replace(one, seed=0) for one in runs])
    again = run_of(optimizer=optax.sgd(0.1))
    assert groups([run, *runs, again]) == [[0, 1, 2], [3]] and again.optimizer == "optax_2" and again != run
    assert run_of(seed=3, optimizer="sgd").network == run.network
    slow, fast = npt.train(runs)
    assert not same_rows(slow, fast)


def test_a_dataset_and_arrays_of_both_splits_are_data():
    data = npt.make_dataset(*split(), name="clouds")
    assert npt.Run(dataset=data).dataset == "clouds" and npt.Run(dataset=(X, Y, X, Y)).dataset == "own"
    assert npt.Run(dataset=(X, Y / 2.0)).loss == "linear-mse"  # values


def test_modules_are_networks():
    linen = pytest.importorskip("flax.linen", reason="no flax here")
    eqx = pytest.importorskip("equinox", reason="no equinox here")
    nnx = pytest.importorskip("flax.nnx", reason="no flax here")
    mlp = eqx.nn.MLP(5, 3, 4, depth=1, key=jax.random.key(0))
    modules = [linen.Dense(3), mlp, nnx.Linear(5, 3, rngs=nnx.Rngs(0)), lambda shape, classes: linen.Dense(classes)]
    runs = [run_of(network=module) for module in modules]
    assert [run.network for run in runs] == ["Dense", "MLP", "Linear", "network"]
    check_runs(runs)  # each is traced
    assert type(npt.train(runs[1]).module()) is type(mlp)


BAD = {
    "rate": ({"lr": 0.1}, "the optimizer optax has its own learning rate: leave out lr"),
    "default rate": ({"lr": float("3e-4")}, "leave out lr"),
    "decay": ({"wd": 0.1}, "the optimizer optax has its own weight decay"),
    "function of optax": ({"optimizer": optax.adam}, "as in optax.adam(1e-3); got the function adam"),
    "network": ({"network": 3}, "a network is a Model, a Flax or Equinox module, or a factory (input_shape, classes)"),
    "class": ({"network": npt.Model}, "got the class Model"),
    "rule": ({"rule": npt.make_rule("np", MODEL, error)}, "a rule is a factory (model, loss) -> Rule"),
    "one argument": ({"rule": lambda model: None}, "the factory of a rule takes 2 positional arguments"),
    "argument": ({"rule": functools.partial(half, fctor=1)}, "rule 'half' has no argument 'fctor'"),
    "loss": ({"loss": 3}, "a loss is a function (outputs, targets) -> losses, (B,); got 3"),
    "one array": ({"dataset": X}, "a dataset is a Dataset, or arrays: (x, y)"),
    "lengths": ({"dataset": (X, Y[:5])}, "as many inputs as targets"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_what_is_no_such_object_is_an_error_when_the_run_is_made(what):
    options, part = BAD[what]
    with pytest.raises(npt.UserError, match=re.escape(part)):
        run_of(**options)


FAILING = {
    "shape": ({"network": npt.make_model("fc", (4,), 3)}, "dot_general requires"),
    "outputs": ({"network": npt.make_model("fc", (5,), 2), "loss": "mse"}, "label 2 has no output"),
    "network": ({"network": lambda shape, classes: 1 / 0}, "network 'network' fails: ZeroDivisionError"),
    "optimizer": ({"optimizer": optax.lbfgs()}, "missing 3 required keyword-only arguments"),
    "scalar": ({"loss": lambda outputs, targets: error(outputs, targets).mean()}, "loss"),
}


@pytest.mark.parametrize("what", FAILING)
def test_an_object_that_does_not_fit_is_one_line(what):
    options, part = FAILING[what]
    with pytest.raises(npt.UserError, match=re.escape(part)) as raised:
        npt.train(run_of(**options))
    assert "\n" not in str(raised.value)


def test_a_run_that_is_saved_or_pickled_needs_registered_names(tmp_path):
    run = npt.Run(dataset=(X, Y), network=MODEL)
    assert copy.deepcopy(run) is run is copy.copy(run)
    line = (
        r"needs a registered name for its dataset own and network Model, as in npt\.register\('dataset', 'my-dataset'"
    )
    for save in (pickle.dumps, lambda run: npt.train(run, name="n", out=tmp_path),
                 lambda run: write_jobs([Job("n", tmp_path, [run], npt.studies.execution.Execution())])):  # fmt: skip
        with pytest.raises(npt.UserError, match=line):
            save(run)
    assert not list(tmp_path.iterdir())


def test_a_run_whose_name_was_registered_for_another_object_is_refused():
    run = run_of()
    npt.register("network", "Model", npt.make_model("fc(width=2)", (5,), 3))
    with pytest.raises(npt.UserError, match="the name Model is now that of another network; make the run again"):
        npt.train(run)


def test_objects_are_released_with_their_runs():
    gc.collect()
    for i in range(50):
        run_of(loss=lambda outputs, targets, i=i: error(outputs, targets), optimizer=optax.sgd(0.1))
    gc.collect()
    assert not any(len(names) for names in GIVEN.values())


def test_another_object_of_the_same_name_is_an_error_when_the_run_is_asked_for_again(tmp_path):
    def register(kind, given):
        npt.register(kind, "mine", given)

    first = {"network": MODEL, "optimizer": optax.sgd(0.1), "dataset": (X, Y)}
    for kind, given in first.items():
        register(kind, given)
    run = npt.Run("mine", "mine", "cross-entropy", 20, 1, rule="sgd", optimizer="mine")
    trained = npt.train(run, name="n", out=tmp_path)
    record = json.loads((trained.folder / "config.json").read_text())
    assert set(record["objects"]) == {"network mine", f"optimizer mine (optax {optax.__version__})"}
    other = {"network": npt.make_model("fc(width=5)", (5,), 3), "optimizer": optax.sgd(0.2), "dataset": (X + 1, Y)}
    parts = {"network": "another network mine", "optimizer": "another optimizer mine", "dataset": "on other data"}
    for kind, given in other.items():
        register(kind, given)
        with pytest.raises(npt.UserError, match=parts[kind]):
            npt.train(npt.Run(**asdict(run)), name="n", out=tmp_path)
        register(kind, first[kind])
    assert "--lr" not in command(saved_runs(["n"], tmp_path)) and np.isnan(npt.load_results("n", tmp_path).lr).all()
    again = npt.train(npt.Run(**asdict(run)), name="n", out=tmp_path)
    assert again.read_back and again.run.id == run.id


def test_a_saved_network_that_was_an_object_is_given_again(tmp_path):
    result = npt.train(run_of())
    expected = result.predict(X)
    path = result.save(tmp_path / "a.npz")
    with pytest.raises(npt.UserError, match="its network was given as an object, without a name"):
        npt.load(path).predict(X)
    assert np.array_equal(npt.load(path, network=MODEL).predict(X), expected)


def test_an_optimizer_object_is_left_for_a_spec():
    run = npt.Run(optimizer=optax.adam(1e-3))
    assert "optax, seed=0" in title(run) and "lr=0.0003, seed=0" in title(npt.Run())
    assert replace(run, optimizer="sgd").lr == npt.Run().lr and replace(run, seed=1).lr is None
    assert replace(RUN, optimizer=optax.adam(1e-3), lr=None).optimizer == run.optimizer + "_2"
