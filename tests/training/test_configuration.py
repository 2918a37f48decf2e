"""JAX's configuration: the generator is pinned, what changes bits is recorded; ways to debug work, or are refused."""

import json
import os
import select

import jax
import numpy as np
import pytest
from small import RUN

import nodepert as npt
from nodepert.errors import UserError
from nodepert.training.configuration import SETTINGS, settings

SMALL = npt.Run(dataset="digits(train=40, test=20)", network="fc(width=4, depth=1)", epochs=1, batchsize=20)


@pytest.fixture(scope="module", autouse=True)
def compiled_for_one_use(quickly_compiled):
    """Programs of these tests run once."""


def numbers(result):
    return [{name: value for name, value in row.items() if name != "epoch_time"} for row in result.rows]


def test_results_do_not_depend_on_the_default_generator(own):
    def noisy(model, loss):
        """Node perturbation with a key of its own, which is of the default generator."""
        inner = npt.make_rule("np", model, loss)
        return npt.Rule(inner.init, lambda key, *rest: inner.grads(jax.random.fold_in(jax.random.key(3), 1), *rest))

    npt.register("rule", "own-key", noisy)
    run = npt.Run(**{**SMALL.config, "rule": "own-key"})
    model, batch = npt.make_model("fc(depth=0)", (5,), 2), (np.ones((4, 5), "float32"), np.arange(4) % 2)

    def found():
        return numbers(npt.train(run)), npt.check(model, "np", "mse", batch, draws=100, study=False).rows

    here = found()
    with jax.default_prng_impl("rbg"):
        assert found() == here


def other_settings():
    """(name in the record, a context under which it differs)"""
    return [
        ("jax_enable_x64", jax.enable_x64(True)),
        ("jax_default_matmul_precision", jax.default_matmul_precision("bfloat16")),
        ("jax_threefry_partitionable", jax.threefry_partitionable(False)),
    ]


@pytest.mark.parametrize(("name", "context"), other_settings(), ids=lambda v: v if isinstance(v, str) else "")
def test_a_result_of_other_settings_is_not_read_back(name, context, tmp_path):
    with context:
        there = settings()[name]
        done = npt.train(SMALL, name="n", out=tmp_path)
        assert npt.train(SMALL, name="n", out=tmp_path).rows == done.rows  # of the same settings it is
    assert json.loads((done.folder / "config.json").read_text())["settings"][name] == there
    with pytest.raises(UserError, match=f"{name}={there}, and here it is {SETTINGS[name]}.*give another --name"):
        npt.train(SMALL, name="n", out=tmp_path)
    assert len(npt.load_results("n", out=tmp_path)) == 2  # reading is not computing


def test_an_interrupted_run_is_not_resumed_with_other_settings(tmp_path):
    stops = iter([False, True])
    with jax.default_matmul_precision("float32"), pytest.raises(Exception, match="resumes"):
        npt.train(RUN, name="n", out=tmp_path, checkpoint_every=0, stop=lambda: next(stops))
    with pytest.raises(UserError, match=r"jax_default_matmul_precision=float32.*here it is None"):
        npt.train(RUN, name="n", out=tmp_path)
    record = json.loads((tmp_path / "n" / RUN.id / "config.json").read_text())
    assert record["status"] == "interrupted"
    with jax.default_matmul_precision("float32"):
        assert npt.train(RUN, name="n", out=tmp_path).status == "finished"


def test_a_run_without_checkpoint_starts_again_under_any_settings(tmp_path):
    with jax.default_matmul_precision("float32"), pytest.raises(Exception, match="resumes"):
        npt.train(RUN, name="n", out=tmp_path, checkpoint_every=0, stop=lambda: True)
    found = npt.train(RUN, name="n", out=tmp_path)
    default = {"jax_disable_most_optimizations": True}  # of these tests
    assert json.loads((found.folder / "config.json").read_text())["settings"] == default


@pytest.mark.parametrize("rule", ["np", "dtp", "decorrelate(sgd)"])
def test_strict_promotion_changes_nothing(rule):
    run = npt.Run(**{**SMALL.config, "rule": rule})
    with jax.numpy_dtype_promotion("strict"):
        strict = numbers(npt.train(run))
    assert strict == numbers(npt.train(run))


def test_a_debugger_can_step_through_training():
    run = npt.Run(dataset="digits(train=4, test=2)", network="fc(depth=0)", batchsize=4, epochs=1, optimizer="sgd")
    with jax.disable_jit():
        seen = npt.train(run)
    assert seen.rows[-1]["train_loss"] == pytest.approx(npt.train(run).rows[-1]["train_loss"], rel=1e-3)


def test_what_is_not_supported_is_refused_in_one_line():
    x = np.ones((4, 5)), np.arange(4) % 2
    with jax.numpy_rank_promotion("raise"):
        for act in (
            lambda: npt.train(SMALL),
            lambda: npt.check(npt.make_model("fc(width=3)", (5,), 2), "np", "mse", x),
            lambda: list(npt.experiments.linear_theory(scale="smoke")),
        ):
            with pytest.raises(UserError, match="jax_numpy_rank_promotion=raise; unset JAX_NUMPY_RANK_PROMOTION"):
                act()


@pytest.mark.filterwarnings("ignore:os.fork", "ignore:This process")
@pytest.mark.parametrize("act", ["train", "check", "experiment"])
def test_a_forked_process_does_not_wait_for_threads_that_it_does_not_have(act):
    jax.numpy.ones(3).block_until_ready()
    model, batch = npt.make_model("fc(width=3)", (5,), 2), (np.ones((4, 5), "float32"), np.arange(4) % 2)
    acts = {
        "train": lambda: npt.train(SMALL),
        "check": lambda: npt.check(model, "np", "mse", batch),
        "experiment": lambda: list(npt.experiments.linear_theory(scale="smoke")),
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
