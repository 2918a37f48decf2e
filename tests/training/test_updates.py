"""Metrics of updates, in all and at single nodes, against what they are defined as."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nodepert as npt
from nodepert.studies.setup import prepare
from nodepert.training.measures import dot, norm, signal_and_noise, signal_to_noise
from nodepert.training.metrics import SAMPLED, columns_of, measured, metric_of
from nodepert.training.program import Program, task_data
from nodepert.training.updates import Sums, Update

pytestmark = pytest.mark.usefixtures("quickly_compiled")
RUN = npt.Run(dataset="digits(train=120,test=20)", network="fc(width=8)", rule="np", optimizer="sgd", lr=0.1,
              epochs=1, batchsize=120)  # fmt: skip
NAMES = ("grad_norm", "update_norm", "weight_norm", "alignment", "signal_to_noise")
NODES = ("fc0", "fc1", "out")


@pytest.fixture(scope="module")
def group():
    return prepare([RUN])[0]


def flat(tree):
    return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(tree)])


def test_an_epoch_of_one_update_has_the_numbers_of_that_update(group):
    """What the definitions give of the one gradient, by hand; and at each node those of its part."""
    requested = [*NAMES, *(f"{name}/*" for name in NAMES)]
    row = npt.train(RUN, metrics=requested).rows[1]
    task, data, hyper = Program(group.model, group.loss, 120, 1), jax.device_put(task_data(group.data)), group.hypers[0]
    state = task.init(hyper, data)
    order = task.order(state.step, hyper, data)
    estimate, _, _ = task.grads(state, hyper, data, order)
    exact, _, _ = npt.backprop(group.model, group.loss).grads(None, (), state.params, task.batch(data, order))
    for node in ("", *NODES):
        g, e, w = (flat(tree[node] if node else tree) for tree in (estimate, exact, state.params))
        at = f"/{node}" if node else ""
        assert row[f"grad_norm{at}"] == pytest.approx(float(jnp.linalg.norm(g)), rel=1e-3)
        assert row[f"update_norm{at}"] == pytest.approx(0.1 * float(jnp.linalg.norm(g)), rel=1e-3)
        assert row[f"weight_norm{at}"] == pytest.approx(float(jnp.linalg.norm(w)), rel=1e-4)
        cosine = float(g @ e / jnp.linalg.norm(g) / jnp.linalg.norm(e))
        assert row[f"alignment{at}"] == pytest.approx(cosine, abs=2e-3)
        assert 0 <= row[f"signal_to_noise{at}"] < 5


def test_the_exact_gradient_is_aligned_and_without_noise_on_the_same_examples():
    rows = npt.train(npt.Run(**{**RUN.config, "rule": "sgd"}), metrics=["alignment", "signal_to_noise"]).rows
    assert np.isnan(rows[0]["alignment"]) and rows[1]["alignment"] == pytest.approx(1, abs=1e-5)
    assert rows[1]["signal_to_noise"] > 1e3


def test_the_signal_to_noise_ratio_is_that_of_a_known_estimate():
    """Estimates m + s xi in 50 dimensions: ||m|| / (s sqrt(50)), from pairs."""
    m, s = 0.3 * jnp.ones(50), 0.5
    draws = m + s * jax.random.normal(jax.random.key(0), (400, 2, 50))

    def pair(draws):
        g, again = draws
        return signal_and_noise(Update(g, g, g, None, lambda: g, lambda: again))  # pyright: ignore

    found = float(signal_to_noise(jax.vmap(pair)(draws).mean(0), None))
    assert found == pytest.approx(float(jnp.linalg.norm(m)) / (s * 50**0.5), rel=0.1)


def test_an_expensive_metric_is_measured_in_some_updates_and_averaged_over_these():
    metric = metric_of("grad_norm")
    metrics = {"cheap": metric, "expensive": metric._replace(cost="something")}
    sums = Sums(metrics, steps=2 * SAMPLED + 1)
    total = sums.filled(0)
    for i in range(sums.steps):
        g = jnp.array([float(i)])
        total = sums.add(total, lambda g=g: Update(g, g, g, None, lambda: g, lambda: g), lambda _: lambda t: t, i)  # pyright: ignore
    means = sums.means(total)
    assert sums.stride == 2 and float(means["cheap"]) == SAMPLED == float(means["expensive"])
    assert float(total["expensive"]) == sum(range(0, sums.steps, 2))


def test_metrics_do_not_depend_on_how_an_epoch_is_divided(group):
    task = Program(group.model, group.loss, 25, 1, metrics=group.metrics([*NAMES, "alignment/out"]))
    data, hyper = jax.device_put(task_data(group.data)), group.hypers[0]
    state = task.init(hyper, data)
    order, spans = task.order(state.step, hyper, data), ([0, 5], [0, 2, 5])
    batches, found = jax.jit(task.batches), []
    for span in spans:
        carry = state, task.totals()
        for first, last in pairwise(span):
            carry = batches(carry, hyper, data, order, first, last)
        found.append(carry)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), *found))


def test_what_a_rule_adds_to_the_network_is_left_out():
    """The gradients of decorrelation matrices are no gradients of the loss."""
    run = npt.Run(**{**RUN.config, "rule": "decorrelate(sgd)"})
    row = npt.train(run, metrics=["alignment", "alignment/*"]).rows[1]
    assert [row[name] for name in ("alignment", *(f"alignment/{n}" for n in NODES))] == pytest.approx([1] * 4, abs=1e-5)


def test_other_metrics_do_not_change_a_run():
    plain, more = npt.train(RUN), npt.train(RUN, metrics=NAMES)
    assert plain.rows[-1]["test_loss"] == pytest.approx(more.rows[-1]["test_loss"], rel=1e-5)


def test_products_of_low_precision_are_computed_in_float32():
    tree = {"w": jnp.full(1000, 1e-3, jnp.float16)}
    assert float(dot(tree, tree)) == pytest.approx(1e-3, rel=1e-2) and norm(tree).dtype == jnp.float32


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("alignment/fc7", r"matches no node; the nodes are: fc0, fc1, out"),
        ("test_acc/fc0", r"test_acc is not measured per node; these are: grad_norm"),
        ("alignmnt/fc0", r"unknown metric 'alignmnt' \(did you mean 'alignment'\?\)"),
    ],
)
def test_a_node_that_is_not_there_is_one_line_and_nothing_is_written(name, message, tmp_path):
    with pytest.raises(npt.UserError, match=message):
        npt.train(RUN, metrics=[name], name="n", out=tmp_path)
    assert not any(tmp_path.iterdir())


def test_columns_of_nodes_stand_behind_their_metric():
    columns = ["grad_norm/out", "later", "alignment/fc0", "grad_norm", "test_loss"]
    assert columns_of([dict.fromkeys(columns, 0.0)]) == [
        "test_loss", "grad_norm/out", "grad_norm", "alignment/fc0", "later",
    ]  # fmt: skip
    assert metric_of("alignment/fc0").chart == "alignment/fc0" and metric_of("alignment/fc0").better == "higher"
    assert list(measured(["grad_norm", "grad_norm/f*"], nodes=NODES))[-3:] == [
        "grad_norm", "grad_norm/fc0", "grad_norm/fc1",
    ]  # fmt: skip
