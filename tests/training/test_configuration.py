"""JAX's configuration: the generator is pinned, what changes bits is recorded; ways to debug work, or are refused."""

import json
import os
import select
from contextlib import nullcontext
from dataclasses import replace

import jax
import numpy as np
import optax
import pytest

import nodepert as npt
from nodepert.core import plain
from nodepert.errors import UserError
from nodepert.training import configuration
from nodepert.training.configuration import PRECISION, SETTINGS, settings

SMALL = npt.Run(dataset="digits(train=40, test=20)", network="fc(width=3, depth=1)", epochs=1, batchsize=20)
PLAIN = replace(SMALL, network="fc(depth=0)", rule="sgd", optimizer="sgd")
TWO = replace(PLAIN, epochs=2)


@pytest.fixture(scope="module", autouse=True)
def compiled_for_one_use(quickly_compiled):
    """Programs of these tests run once."""


def numbers(result):
    return [{name: value for name, value in row.items() if name != "epoch_time"} for row in result.rows]


@pytest.fixture
def drawing(own):
    """A network, a rule, a loss, an optimizer and data with keys of their own, which have the default generator."""

    def features(input_shape, classes):
        """A linear layer of fixed random features."""
        inner = npt.make_model("fc(depth=0)", (5,), classes)
        drawn = jax.random.normal(jax.random.key(0), (int(np.prod(input_shape)), 5))
        return npt.Model(inner.init, lambda p, x, node=plain: inner.apply(p, x.reshape(len(x), -1) @ drawn, node))

    def noisy(model, loss):
        """Backpropagation with noise, drawn at every step."""
        inner = npt.make_rule("sgd", model, loss)

        def grads(key, state, params, batch):
            found, *rest = inner.grads(key, state, params, batch)
            return jax.tree.map(lambda g: g + jax.random.normal(jax.random.key(3), g.shape), found), *rest

        return npt.Rule(inner.init, grads)

    def weighted(outputs, targets):
        return npt.make_loss("mse")(outputs, targets) * jax.random.uniform(jax.random.key(1))

    def wandering(lr, steps):
        return optax.chain(optax.sgd(lr), optax.add_noise(0.1, 0.5, jax.random.key(2)))

    def blobs(data_dir):
        x = np.asarray(jax.random.normal(jax.random.key(4), (60, 5)))
        return npt.make_dataset(x[:40], np.arange(40) % 2, x[40:], np.arange(20) % 2)

    factories = {"network": features, "rule": noisy, "loss": weighted, "optimizer": wandering, "dataset": blobs}
    for kind, factory in factories.items():
        npt.register(kind, "drawing", factory)


def test_results_do_not_depend_on_the_default_generator(drawing):
    run = replace(PLAIN, **dict.fromkeys(("network", "rule", "loss", "optimizer", "dataset"), "drawing"))
    here = numbers(npt.train(run))
    with jax.default_prng_impl("rbg"):
        assert numbers(npt.train(run)) == here


def test_a_check_does_not_depend_on_the_default_generator(drawing):
    batch = np.ones((4, 6), "float32"), np.arange(4) % 2

    def found():
        model = npt.make_model("drawing", (6,), 2)
        return npt.check(model, "drawing", "drawing", batch, draws=100, study=False).rows

    here = found()
    with jax.default_prng_impl("rbg"):
        assert found() == here


def test_the_default_generator_stays_that_of_the_caller():
    with jax.default_prng_impl("rbg"):
        npt.train(PLAIN)
        with pytest.raises(UserError):
            npt.train(replace(PLAIN, batchsize=1000))
        assert str(jax.random.key_impl(jax.random.key(0))) == "rbg"


def other_settings():
    """(name in the record, a context under which it differs)"""
    return [
        ("jax_enable_x64", jax.enable_x64(True)),
        ("jax_default_matmul_precision", jax.default_matmul_precision("bfloat16")),
        ("jax_softmax_custom_jvp", jax.softmax_custom_jvp(True)),
    ]


@pytest.mark.parametrize(("name", "context"), other_settings(), ids=lambda v: v if isinstance(v, str) else "")
def test_a_result_of_other_settings_is_not_read_back(name, context, tmp_path):
    with context:
        there = settings()[name]
        done = npt.train(PLAIN, name="n", out=tmp_path)
        assert npt.train(PLAIN, name="n", out=tmp_path).rows == done.rows  # of the same settings it is
    assert json.loads((done.folder / "config.json").read_text())["settings"][name] == there
    with pytest.raises(UserError, match=f"{name}={there}, and here it is {SETTINGS[name]}.*give another --name"):
        npt.train(PLAIN, name="n", out=tmp_path)
    assert len(npt.load_results("n", out=tmp_path)) == 2  # reading is not computing


@pytest.mark.parametrize(
    ("before", "here", "same"),
    [
        ({PRECISION: "highest"}, {PRECISION: "float32"}, True),
        ({PRECISION: "high"}, {PRECISION: "tensorfloat32"}, True),
        ({PRECISION: "bfloat16"}, {PRECISION: "default"}, True),
        ({PRECISION: "F32_F32_F32"}, {PRECISION: "F32_F32_F32"}, True),
        ({PRECISION: "highest"}, {PRECISION: "high"}, False),
        ({PRECISION: "F32_F32_F32"}, {PRECISION: "float32"}, False),
        ({}, {PRECISION: "highest"}, False),
        ({"NVIDIA_TF32_OVERRIDE": "0"}, {"NVIDIA_TF32_OVERRIDE": "0"}, True),
        ({"NVIDIA_TF32_OVERRIDE": "0"}, {}, False),
        ({}, {"NVIDIA_TF32_OVERRIDE": "0"}, False),
        ({"XLA_FLAGS": "--xla_dump_to=x"}, {}, True),
        ({}, {"jax_scan3": True}, False),
        ({"jax_threefry_partitionable": False}, {}, False),
    ],
)
def test_settings_are_equal_where_they_mean_the_same(before, here, same, monkeypatch):
    monkeypatch.setattr(configuration, "settings", lambda: here)
    with nullcontext() if same else pytest.raises(UserError, match="and here it is"):
        configuration.check_settings("runs/n/1", {"settings": before}, "--name")


def test_an_environment_that_changes_products_is_a_setting(monkeypatch):
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")
    assert settings()["NVIDIA_TF32_OVERRIDE"] == "0"
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "")
    assert "NVIDIA_TF32_OVERRIDE" not in settings()


def test_an_interrupted_run_is_not_resumed_with_other_settings(tmp_path):
    stops = iter([False, True])
    with jax.default_matmul_precision("float32"), pytest.raises(Exception, match="resumes"):
        npt.train(TWO, name="n", out=tmp_path, checkpoint_every=0, stop=lambda: next(stops))
    with pytest.raises(UserError, match=r"jax_default_matmul_precision=float32.*here it is None"):
        npt.train(TWO, name="n", out=tmp_path)
    record = json.loads((tmp_path / "n" / TWO.id / "config.json").read_text())
    assert record["status"] == "interrupted"
    with jax.default_matmul_precision("float32"):
        assert npt.train(TWO, name="n", out=tmp_path).status == "finished"


def test_a_run_without_checkpoint_starts_again_under_any_settings(tmp_path):
    with jax.default_matmul_precision("float32"), pytest.raises(Exception, match="resumes"):
        npt.train(TWO, name="n", out=tmp_path, checkpoint_every=0, stop=lambda: True)
    found = npt.train(TWO, name="n", out=tmp_path)
    assert json.loads((found.folder / "config.json").read_text())["settings"] == settings()


@pytest.mark.parametrize("rule", ["np", "dtp", "decorrelate(sgd)"])
def test_strict_promotion_changes_nothing(rule):
    run = replace(SMALL, rule=rule)
    with jax.numpy_dtype_promotion("strict"):
        strict = numbers(npt.train(run))
    assert strict == numbers(npt.train(run))


def test_a_debugger_can_step_through_training():
    run = replace(PLAIN, dataset="digits(train=4, test=4)", batchsize=4)  # few shapes: each operation compiles
    with jax.disable_jit():
        seen = npt.train(run)
    assert seen.rows[-1]["train_loss"] == pytest.approx(npt.train(run).rows[-1]["train_loss"], rel=1e-3)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (lambda: jax.numpy_rank_promotion("raise"), "jax_numpy_rank_promotion=raise; unset JAX_NUMPY_RANK_PROMOTION"),
        (lambda: jax.transfer_guard("disallow"), "jax_transfer_guard=disallow; unset JAX_TRANSFER_GUARD"),
        (lambda: jax.transfer_guard_host_to_device("disallow_explicit"), "host_to_device=disallow_explicit"),
    ],
    ids=["ranks", "transfers", "explicit transfers"],
)
def test_what_is_not_supported_is_refused_in_one_line(setting, message):
    x = np.ones((4, 5)), np.arange(4) % 2
    with setting():
        for act in (
            lambda: npt.train(SMALL),
            lambda: npt.check(npt.make_model("fc(width=3)", (5,), 2), "np", "mse", x),
            lambda: list(npt.experiments.linear_theory(scale="smoke")),
        ):
            with pytest.raises(UserError, match=message):
                act()


@pytest.mark.filterwarnings("ignore:os.fork", "ignore:This process")
@pytest.mark.parametrize("act", ["train", "check", "experiment", "network", "rule"])
def test_a_forked_process_does_not_wait_for_threads_that_it_does_not_have(act):
    jax.numpy.ones(3).block_until_ready()
    model, batch = npt.make_model("fc(width=3)", (5,), 2), (np.ones((4, 5), "float32"), np.arange(4) % 2)
    acts = {
        "train": lambda: npt.train(SMALL),
        "check": lambda: npt.check(model, "np", "mse", batch),
        "experiment": lambda: list(npt.experiments.linear_theory(scale="smoke")),
        "network": lambda: npt.make_model("fc(width=3)", (5,), 2).init(jax.random.key(0)),
        "rule": lambda: npt.make_rule("np", model, npt.make_loss("mse")).grads(jax.random.key(0), (), {}, batch),
    }
    reading, writing = os.pipe()
    if not (child := os.fork()):
        text = "computed"
        try:
            acts[act]()
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        os.write(writing, text.encode())
        os._exit(0)
    ready, _, _ = select.select([reading], [], [], 60)
    if not ready:
        os.kill(child, 9)
    os.waitpid(child, 0)
    assert ready, "it waits for ever"
    text = os.read(reading, 1000).decode()
    assert text.startswith("UserError: this process was forked from one that uses JAX") and "'spawn'" in text
