"""The trainer: what an epoch does, exactly; what its rows say; what it compiles; and that node perturbation learns."""

import math
from itertools import chain, pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nodepert as npt
from nodepert import registry
from nodepert.core import Model, Rule
from nodepert.data.dataset import Arrays
from nodepert.data.dataset import build as dataset
from nodepert.errors import UserError
from nodepert.models.fc import fc
from nodepert.registry import check
from nodepert.registry.spec import Spec
from nodepert.training import group
from nodepert.training import program as training
from nodepert.training.hyper import Hyper
from nodepert.training.losses import cross_entropy, mse
from nodepert.training.metrics import diverged
from nodepert.training.program import Program, over_batches, standardised, task_data
from nodepert.training.rehearsal import rehearse
from nodepert.training.replicas import fit_all

pytestmark = pytest.mark.usefixtures("quickly_compiled")


def data(train=10, test=7):
    rng = np.random.default_rng(0)
    x = [rng.integers(0, 256, (n, 3, 2, 1), dtype=np.uint8) for n in (train, test)]
    y = [rng.integers(0, 4, n) for n in (train, test)]
    return dataset("random", Arrays(x[0], y[0], x[1], y[1]), classes=4, source="a test")


def hyper(rule="sgd", optimizer="sgd", lr=0.1, **more):
    return Hyper(check("rule", rule), check("optimizer", optimizer), lr, **more)


MODEL = fc((3, 2, 1), 4, width=6, depth=1)


def fit(model, loss, data, hyper, **sizes):
    """(row, state) of a single run, epoch by epoch."""
    return ((epoch.rows[0], epoch.state(0)) for epoch in fit_all(model, loss, data, [hyper], **sizes))


def trained(hyper, batchsize=4, epochs=2, loss=cross_entropy, model=MODEL, on=None):
    """All rows, and the parameters after each."""
    pairs = fit(model, loss, on or data(), hyper, batchsize=batchsize, epochs=epochs)
    rows, params = zip(*[(row, jax.tree.map(np.array, state.params)) for row, state in pairs], strict=True)
    return rows, params


def epoch_of(task):
    """A function that trains a whole epoch."""

    def epoch(state, numbers, arrays):
        carry, order = (state, task.totals()), task.order(state.step, numbers, arrays)
        return task.batches(carry, numbers, arrays, order, 0, task.steps(arrays))

    return epoch


def without_time(rows):
    return [{k: v for k, v in row.items() if k != "epoch_time"} for row in rows]


def test_rows_are_the_losses_and_accuracies_of_the_whole_splits():
    d, (rows, params) = data(), trained(hyper())
    assert [list(row) for row in rows] == [
        ["epoch", "epoch_time", "train_acc", "test_acc", "train_loss", "test_loss"]
    ] * 3
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    assert rows[0]["epoch_time"] == 0
    assert all(row["epoch_time"] > 0 for row in rows[1:])
    for row, p in zip(rows, params, strict=True):
        for split, x, y in (("train", d.train_x, d.train_y), ("test", d.test_x, d.test_y)):
            outputs = MODEL.apply(p, (x.astype(np.float32) - d.mean) / d.std)
            assert row[f"{split}_loss"] == pytest.approx(float(cross_entropy(outputs, jnp.array(y)).mean()), rel=1e-5)
            assert row[f"{split}_acc"] == pytest.approx(100 * float((outputs.argmax(-1) == y).mean()), abs=1e-4)


def test_evaluation_does_not_depend_on_its_batch_size(monkeypatch):
    rows, _ = trained(hyper())
    monkeypatch.setattr(training, "EVALUATION_BATCH", 3)
    again, _ = trained(hyper())
    for a, b in zip(rows, again, strict=True):
        assert a["test_loss"] == pytest.approx(b["test_loss"], rel=1e-6)
        assert a["train_acc"] == pytest.approx(b["train_acc"])


def test_every_example_is_trained_on_once_an_epoch_in_a_new_order_with_a_new_key_each_time(own):
    batches, n = [], 10

    def note(labels, key):
        batches.append((labels.tolist(), tuple(key.tolist())))

    def spy(model, loss):  # learns nothing; labels are the examples' numbers
        def grads(key, state, params, batch):
            jax.debug.callback(note, batch[1], jax.random.key_data(key), ordered=True)
            return jax.tree.map(jnp.zeros_like, params), state, npt.Info(jnp.zeros(len(batch[1])), batch[0])

        return Rule(lambda key, params, x: (), grads)

    registry.register("rule", "spy", spy)
    numbered = data(n)._replace(train_y=np.arange(n, dtype=np.int32), classes=n)
    list(fit(fc((3, 2, 1), n, width=2), cross_entropy, numbered, hyper("spy"), batchsize=4, epochs=2))
    jax.effects_barrier()

    labels = [y for y, _ in batches]
    assert [len(y) for y in labels] == [4, 4, 2] * 2  # the incomplete batch is trained on
    first, second = [list(chain(*epoch)) for epoch in (labels[:3], labels[3:])]
    assert sorted(first) == sorted(second) == list(range(n))
    assert first != second
    assert first != list(range(n))
    assert len({key for _, key in batches}) == 6


def test_over_batches_folds_over_everything():
    for n in (1, 4, 5, 8, 11):
        total = over_batches(lambda c, b: c + b.sum(), jnp.float32(0), jnp.arange(1.0, n + 1), min(4, n))
        assert float(total) == n * (n + 1) / 2


def test_an_epoch_of_sgd_is_sgd():
    d = data()
    rows, params = trained(hyper(lr=0.5), batchsize=10, epochs=1)
    x, y = standardised(jax.device_put(task_data(d)), jnp.array(d.train_x)), jnp.array(d.train_y)
    gradient = jax.grad(lambda p: cross_entropy(MODEL.apply(p, x), y).mean())(params[0])
    for p, q, g in zip(*map(jax.tree.leaves, (params[0], params[1], gradient)), strict=True):
        assert np.allclose(q, p - 0.5 * np.asarray(g), rtol=1e-5, atol=1e-6)
    assert rows[1]["train_loss"] < rows[0]["train_loss"]


def test_wd_shrinks_the_weights_whatever_the_learning_rate():
    _, params = trained(hyper(lr=0.0, wd=0.1), batchsize=4, epochs=2)  # three updates an epoch
    w = [p["fc0"]["w"] for p in params]
    for a, b in pairwise(w):
        assert np.allclose(b, 0.9**3 * a, rtol=1e-5)


def test_a_cosine_schedule_ends_at_zero():
    _, params = trained(hyper(optimizer="sgd(schedule=cosine)", lr=0.5), batchsize=10, epochs=6)
    steps = [np.abs(b["out"]["w"] - a["out"]["w"]).max() for a, b in pairwise(params)]
    assert steps[-1] < 0.2 * steps[0]
    _, constant = trained(hyper(lr=0.5), batchsize=10, epochs=1)
    assert np.allclose(constant[1]["out"]["w"], params[1]["out"]["w"])  # and starts at lr


@pytest.mark.parametrize("rule", ["sgd", "np", "np(samples=2, noise=rademacher, difference=central)"])
def test_same_seed_same_bits_and_another_seed_another_run(rule):
    first, _ = trained(hyper(rule, seed=3))
    again, other = (trained(hyper(rule, seed=seed))[0] for seed in (3, 4))
    assert without_time(first) == without_time(again)
    assert without_time(first) != without_time(other)


def test_a_diverging_run_keeps_its_rows_and_says_so():
    rows, _ = trained(hyper(lr=1e25), epochs=5, loss=mse_without_sigmoid)
    assert 2 <= len(rows) < 6
    assert diverged(rows[-1])
    assert not any(diverged(row) for row in rows[:-1])


def mse_without_sigmoid(outputs, targets):
    return jnp.square(outputs - jax.nn.one_hot(targets, 4)).mean(-1)


def test_a_network_that_starts_without_a_finite_loss_is_not_trained():
    rows, _ = trained(hyper(), loss=lambda outputs, targets: outputs.sum(-1) * jnp.nan)
    assert [row["epoch"] for row in rows] == [0]
    assert diverged(rows[0])


def test_a_loss_that_is_not_finite_in_one_batch_only_ends_the_run():
    def explosive(outputs, targets):  # infinite value, harmless derivative, for batches of four examples alone
        return cross_entropy(outputs, targets) + (jnp.inf if len(targets) == 4 else 0)

    rows, _ = trained(hyper(), loss=explosive, epochs=5)
    assert [row["epoch"] for row in rows] == [0, 1]
    assert math.isnan(rows[-1]["train_loss"])
    assert math.isfinite(rows[-1]["test_loss"])


@pytest.mark.parametrize("batchsize", [3, 5])  # with a smaller last batch, and without
def test_an_epoch_in_parts_has_the_bits_of_the_whole_and_reports_the_batches_done(monkeypatch, batchsize):
    rows, params = trained(hyper("np"), batchsize)
    ticks, seen = iter(range(10**6)), []
    monkeypatch.setattr(group.time, "perf_counter", lambda: next(ticks))  # so slow that each part is one batch
    epochs = fit_all(MODEL, cross_entropy, data(), [hyper("np")], batchsize=batchsize, epochs=2,
                     on_batches=lambda *report: seen.append(report))  # fmt: skip
    again = [(epoch.rows[0], epoch.state(0).params) for epoch in epochs]
    assert without_time(row for row, _ in again) == without_time(rows)
    for (_, some), whole in zip(again, params, strict=True):
        assert all(map(np.array_equal, jax.tree.leaves(some), jax.tree.leaves(whole)))
    steps = -(-10 // batchsize)
    assert [(at, done, of) for at, done, of, _ in seen] == [([0], i, steps) for i in range(1, steps)] * 2
    assert all(seconds > 0 for *_, seconds in seen)


# ------------------------------------------------------------------------------------- compilation


def test_new_numbers_do_not_compile_again():
    task, arrays = Program(MODEL, mse, batchsize=4, epochs=2), jax.device_put(task_data(data()))
    init, epoch = jax.jit(task.init), jax.jit(epoch_of(task))
    for rule, lr, seed in [("np(sigma=1e-3)", 0.1, 0), ("np(sigma=1e-2)", 0.3, 5)]:
        numbers = jax.tree.map(jnp.asarray, hyper(rule, "adam(b1=0.8)", lr, seed=seed))
        state = init(numbers, arrays)
        for _ in range(2):
            state, totals = epoch(state, numbers, arrays)
        assert bool(totals["finite"])
    assert init._cache_size() == epoch._cache_size() == 1


def test_runs_can_be_vmapped_over_every_number_and_equal_the_solo_runs():
    task, arrays = Program(MODEL, mse, batchsize=4, epochs=1), jax.device_put(task_data(data()))
    runs = [hyper("np(sigma=1e-3)", lr=0.1, seed=0), hyper("np(sigma=1e-2)", lr=0.4, wd=0.01, seed=7)]
    stacked = jax.tree.map(lambda *leaves: jnp.asarray(leaves), *runs)

    def one(numbers):
        return epoch_of(task)(task.init(numbers, arrays), numbers, arrays)[0].params

    together = jax.jit(jax.vmap(one))(stacked)
    for i, run in enumerate(runs):
        alone = jax.jit(one)(jax.tree.map(jnp.asarray, run))
        for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
            assert np.allclose(a[i], b, rtol=1e-5, atol=1e-5)


def test_a_spec_within_a_spec_has_its_numbers_as_leaves_too():
    spec = Spec("outer", (), (("rule", Spec("np", (), (("sigma", 0.5), ("samples", 2)))), ("a", 1.5)))
    assert jax.tree.leaves(spec) == [0.5, 1.5]
    assert jax.tree.map(lambda v: v, spec) == spec


def test_pixels_stay_bytes_on_the_device():
    arrays = jax.device_put(task_data(data()))
    assert arrays["train"][0].dtype == arrays["test"][0].dtype == jnp.uint8


# ------------------------------------------------------------------------------------ bad arguments


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batchsize": 0}, "batchsize must be at least 1; got 0"),
        ({"epochs": -1}, "epochs must not be negative"),
        ({"lr": -0.1}, "lr .* must be finite and not negative"),
        ({"lr": math.nan}, "lr .* must be finite and not negative"),
        ({"wd": 1.0}, "wd .* below 1"),
        ({"seed": -1}, "seed must be"),
    ],
    ids=str,
)
def test_a_run_with_a_number_out_of_range_cannot_be_made(change, message):
    with pytest.raises(UserError, match=message):
        npt.Run(**change)


def test_a_batch_larger_than_the_training_set_is_an_error_before_anything_is_computed():
    with pytest.raises(UserError, match="at most the 10 training examples"):
        fit_all(MODEL, mse, data(), [hyper()], batchsize=11, epochs=1)  # no row is asked for


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        (hyper("np(sigma=0)"), "sigma must be positive"),
        (hyper(optimizer="adam(b1=2)"), "b1 must be at least 0 and below 1"),
    ],
    ids=["sigma", "b1"],
)
def test_a_rehearsal_finds_arguments_out_of_range_without_computing_anything(numbers, message):
    with pytest.raises(UserError, match=message):
        rehearse(MODEL, mse, [hyper(), numbers], (3, 2, 1))


def test_a_rehearsal_finds_two_nodes_of_one_name_under_any_rule():
    def apply(params, x, node=None):
        node = node or npt.plain
        h = x.reshape(len(x), -1)
        return node("twin", lambda p, h: h @ p, params["b"], node("twin", lambda p, h: h @ p, params["a"], h))

    model = Model(lambda key: {"a": jnp.ones((6, 4)), "b": jnp.ones((4, 4))}, apply)
    with pytest.raises(ValueError, match="two nodes are named 'twin'"):
        rehearse(model, mse, [hyper("sgd")], (3, 2, 1))


# ---------------------------------------------------------------------------------------- learning


def test_node_perturbation_learns():
    run = npt.Run(dataset="mnist5k", network="fc(width=100)", rule="np(samples=4)", lr=1e-3, epochs=12)
    result = npt.train(run)
    assert result.status == "finished"
    assert result.test_acc > 75
