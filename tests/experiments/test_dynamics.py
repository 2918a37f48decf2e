"""crash-dynamics and grad-dynamics: a replay is the run itself, bit for bit; what is measured is what it is called."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nodepert as npt
from nodepert.core import differentiate
from nodepert.diagnostics.verdict import ALL
from nodepert.experiments import build
from nodepert.experiments.experiment import of_part
from nodepert.experiments.shared.crashes import crash_epoch
from nodepert.experiments.shared.dynamics import QUANTITIES, compared, measuring, running
from nodepert.experiments.shared.replaying import course, epochs_of, in_pieces, replay
from nodepert.experiments.shared.tasks import curves, make_hyper, make_task
from nodepert.training.program import standardised

EPOCHS, LR = 6, 1.0


@pytest.fixture(scope="module")
def task():
    return make_task(npt.load_dataset, "digits(train=1400)", "fc(width=20)", batchsize=20)


@pytest.fixture(scope="module")
def start(task):
    return in_pieces(task, EPOCHS)


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def copied(state):
    return jax.tree.map(lambda a: np.array(jax.random.key_data(a) if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key)
                                           else a), state)  # fmt: skip


@pytest.mark.parametrize("rule", ["np", "sgd", "kp"])  # kp has a state
def test_a_replay_batch_by_batch_ends_where_the_run_crashed_bit_for_bit(rule, start):
    run = start(make_hyper(rule, LR))
    taken = course(run, EPOCHS, every=2, drop=0.05 if rule == "np" else 200)  # np: whatever falls a little is a crash
    assert (taken.crash is not None) == (rule == "np")
    begun, kept = taken.checkpoint
    before = copied(kept)
    *_, last = moments = list(replay(run, taken, lambda moment: moment))
    assert len(moments) == (len(taken.accuracies) - 1 - begun) * run.batches > 0
    assert begun % 2 == 0 and [m.batch for m in moments[: run.batches]] == list(range(run.batches))
    end, _ = run.advance(last.state, last.order, last.batch, 1)
    assert same(copied(end), copied(taken.end))
    assert same(copied(kept), before) and int(moments[0].state.step) == begun * run.batches  # the checkpoint stays
    assert run.accuracy(end.params) == taken.accuracies[-1]


def test_the_crash_is_where_replicas_of_the_same_numbers_crash(task, start):
    hypers = [make_hyper("np", LR, seed) for seed in (0, 1)]
    for hyper, rows in zip(hypers, curves(task, hypers, EPOCHS), strict=True):
        accuracies = [row["test_acc"] for row in rows]
        crash = crash_epoch(accuracies, drop=0.5)
        taken = course(start(hyper), EPOCHS, 2, drop=0.5)
        assert taken.crash == crash
        assert taken.accuracies == pytest.approx(accuracies[: None if crash is None else crash + 1], abs=0.6)


def test_a_run_that_crashes_at_a_checkpoint_is_replayed_from_the_one_before(start):
    run = start(make_hyper("np", LR))
    free = course(run, EPOCHS, 1, drop=200)
    assert free.crash is None and free.checkpoint[0] == EPOCHS - 1 and len(free.accuracies) == EPOCHS + 1
    crash = crash_epoch(free.accuracies, drop=0.05)
    assert crash and course(run, EPOCHS, 1, drop=0.05).checkpoint[0] == crash - 1


def test_a_loss_that_is_not_finite_ends_the_run():
    task = make_task(npt.load_dataset, "digits(train=1400)", "fc(width=5)", "linear-mse", 700)
    taken = course(in_pieces(task, 5)(make_hyper("sgd", 1e12)), 5, 2, floor=0)
    assert math.isnan(taken.accuracies[-1]) and taken.crash == len(taken.accuracies) - 1 and taken.checkpoint[0] == 0


def test_batches_must_be_of_one_size(task):
    with pytest.raises(npt.UserError, match="batchsize must divide the 1,400 training examples; got 30"):
        in_pieces(task._replace(batchsize=30), 1)
    with pytest.raises(npt.UserError, match="large must be at most the 1,400"):
        measuring(task, 1401)
    experiment = build("crash-dynamics", "smoke", batchsize=33)
    with pytest.raises(npt.UserError, match="batchsize must divide"):
        list(experiment.rows(experiment.parts[0]))


def test_what_is_measured_is_what_it_is_called(task, start):
    """Of sgd, by plain JAX: with the whole training set the true gradient is that of the run's own loss."""
    run = start(make_hyper("sgd", LR))
    state = run.init()
    order = run.order(state)
    rows = {row["node"]: row for row in measuring(task, 1400)(run, state, order, 3)}
    assert list(rows) == ["fc0", "fc1", "out", ALL] and list(rows[ALL]) == ["node", *QUANTITIES]

    def gradient(indices):
        x, y = standardised(run.data, run.data["train"][0][indices]), run.data["train"][1][indices]
        grads, info = differentiate(task.model, task.loss, state.params, (x, y))
        return grads, info.loss.mean(), x

    batch, _, x = gradient(order[60:80])
    true, loss, _ = gradient(jnp.arange(1400))
    near = lambda value: pytest.approx(float(value), rel=1e-4, abs=1e-5)  # noqa: E731
    for name in ("fc0", "fc1", "out"):
        row, g, t = (
            rows[name],
            *(np.concatenate([np.ravel(v) for v in jax.tree.leaves(p[name])]) for p in (batch, true)),
        )
        assert row["norm"] == row["norm_sgd"] == near(np.linalg.norm(g)) and row["rule_sgd"] == 0
        assert row["norm_true"] == near(np.linalg.norm(t))
        assert row["rule_true"] == row["sgd_true"] == near(np.linalg.norm(g - t))
        assert row["angle"] == near(np.degrees(np.arccos(g @ t / np.linalg.norm(g) / np.linalg.norm(t))))
        both = (g != 0) & (t != 0)
        assert row["symmetry"] == pytest.approx(100 * np.mean(np.sign(g[both]) == np.sign(t[both])), abs=0.1)
        assert row["weight_norm"] == near(np.sqrt(sum(np.square(w).sum() for w in state.params[name].values())))
        assert math.isnan(row["loss"]) and math.isnan(row["decrease"])
    assert rows[ALL]["norm"] == near(np.sqrt(sum(rows[n]["norm"] ** 2 for n in ("fc0", "fc1", "out"))))
    assert rows["fc0"]["activity"] == near(np.sqrt(np.square(x).mean()))
    after, _ = run.advance(state, order, 3, 1)
    x, y = standardised(run.data, run.data["train"][0]), run.data["train"][1]
    then = task.loss(task.model.apply(after.params, x), y).mean()
    assert rows[ALL]["loss"] == near(loss) and rows[ALL]["decrease"] == near(loss - then) != 0


def test_the_rule_s_gradient_is_the_one_of_the_run(task, start):
    """W - lr g of the measured norm is the step that the run takes."""
    run = start(make_hyper("np", LR))
    state = run.init()
    order = run.order(state)
    row = measuring(task, 100)(run, state, order, 0)[-1]
    after, _ = run.advance(state, order, 0, 1)
    moved = jax.tree.map(lambda a, b: (a - b) / LR, state.params, after.params)
    norm = np.sqrt(sum(float(np.square(d).sum()) for d in jax.tree.leaves(moved)))
    assert row["norm"] == pytest.approx(norm, rel=1e-3) and row["norm"] > row["norm_sgd"] and row["angle"] > 45


def test_angles_and_signs_of_planted_gradients():
    true = jnp.array([1.0, 1.0, -1.0, 0.0])
    found = compared(jnp.array([-2.0, -2.0, 2.0, 7.0]), true, true)
    assert found["symmetry"] == 0 and found["symmetry_sgd"] == 100 and 90 < found["angle"] < 180
    found = compared(jnp.array([1.0, -1.0, 0.0, 5.0]), jnp.array([3.0, 0.0, 0.0, 0.0]), true)
    assert found["angle"] == pytest.approx(90) and found["symmetry"] == 50 and found["symmetry_sgd"] == 100
    tiny = compared(1e-30 * true, true, true)
    assert tiny["symmetry"] == 100  # a product of the two would be 0


def test_the_running_mean_is_over_what_came_before():
    assert running([1, 2, 3, 7], 2) == [1, 1.5, 2.5, 5] and running([4, 5], 1) == [4, 5] and running([], 3) == []


def test_rows_of_a_crash_are_its_updates_in_order():
    experiment = build("crash-dynamics", "smoke", seeds=1)
    rows = list(of_part(experiment, experiment.parts[0]))
    assert [r["update"] for r in rows if r["node"] == "out"] == list(range(len(rows) // 5))
    assert {r["epoch"] for r in rows} == {5, 6} and len(rows) == 2 * 70 * 5  # no crash, or at epoch 6: from 4 on
    said = experiment.findings(rows)
    assert said[0].holds == math.isfinite(rows[0]["crash"])


def test_rows_along_training_are_of_the_run_itself():
    experiment = build("grad-dynamics", "smoke", seeds=1, epochs=2)
    rows = list(of_part(experiment, experiment.parts[0]))
    assert [(r["epoch"], r["node"]) for r in rows] == [
        (epoch, node) for epoch in range(3) for node in ("fc0", "fc1", "fc2", "out", ALL)
    ]
    task = make_task(npt.load_dataset, "digits(train=1400)", "fc(width=30, depth=3)", batchsize=20)
    states = epochs_of(in_pieces(task, 2)(make_hyper("np", 0.05)), 2, lambda state: state.params["out"])
    for row, (accuracy, out) in zip([r for r in rows if r["node"] == "out"], states, strict=True):
        weights = np.concatenate([np.ravel(v) for v in jax.tree.leaves(out)])
        assert row["weight_norm"] == pytest.approx(np.linalg.norm(weights), rel=1e-5) and row["test_acc"] == accuracy


@pytest.mark.parametrize("name", ["crash-dynamics", "grad-dynamics"])
@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"lr": 0.0}, "lr must be positive"),
        ({"large": 0}, "large must be at least 1"),
        ({"seeds": 0}, "seeds must be at least 1"),
        ({"rule": "decorrelate(np)"}, "adds parameters to the network"),
        ({"rule": "nonsense"}, "unknown rule"),
    ],
)
def test_values_that_cannot_be_are_refused(name, given, words):
    with pytest.raises(npt.UserError, match=words):
        build(name, "smoke", **given)
