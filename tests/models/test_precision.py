"""precision(network): low precision inside, float32 outside; check says where finite differences fail."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nodepert as npt
from nodepert.core import node_shapes
from nodepert.studies.run import Run

pytestmark = pytest.mark.usefixtures("quickly_compiled")
BATCH = np.random.default_rng(0).normal(size=(50, 8, 8, 1)).astype("float32"), np.arange(50) % 10


@pytest.mark.parametrize("inner", ["fc(width=30)", "conv"])
def test_products_are_in_low_precision_and_everything_else_in_float32(inner):
    low, full = (npt.make_model(spec, (8, 8, 1), 10) for spec in (f"precision({inner})", inner))
    params, loss = low.init(jax.random.key(0)), npt.make_loss("cross-entropy")
    text = str(jax.make_jaxpr(low.apply)(params, BATCH[0]))
    products = re.findall(r":(\w+)\[[\d,]+\] = (?:dot_general|conv_general_dilated|nodepert_same_convolution)", text)
    assert products and set(products) == {"bf16"}
    assert {s.dtype for s in node_shapes(low, params, jnp.asarray(BATCH[0])).values()} == {np.dtype("float32")}
    found, exact = (jax.jit(npt.backprop(m, loss).grads)(jax.random.key(1), (), params, BATCH) for m in (low, full))
    assert found[2].outputs.dtype == jnp.float32
    assert not np.array_equal(found[2].outputs, exact[2].outputs)
    assert np.allclose(found[2].outputs, exact[2].outputs, rtol=0.02, atol=0.02)
    for a, b in zip(*(jax.tree.leaves(f[0]) for f in (found, exact)), strict=True):
        assert a.dtype == jnp.float32
        assert np.linalg.norm(a - b) < 0.15 * np.linalg.norm(b)  # of sums that cancel, and of relus that flip


def test_in_float32_it_changes_nothing():
    wrapped, bare = (npt.make_model(s, (8, 8, 1), 10) for s in ("precision(conv, dtype=float32)", "conv"))
    params = bare.init(jax.random.key(0))
    assert np.array_equal(jax.jit(wrapped.apply)(params, BATCH[0]), jax.jit(bare.apply)(params, BATCH[0]))


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["wp(rank=1)", "np(replay=True)"])
def test_rules_that_inspect_operators_work(rule):
    run = Run(dataset="digits(train=100, test=50)", network="precision(conv)", rule=rule, epochs=1)
    assert npt.train(run).status == "finished"


def test_check_says_that_finite_differences_fail_at_the_default_sigma_and_finds_what_works():
    model = npt.make_model("precision(fc(width=30))", (8, 8, 1), 10)
    found = npt.check(model, "np", "cross-entropy", BATCH, draws=200)
    assert "WARNING" in str(found)
    own = next(row for row in found.steps if row["own"])
    best = max(found.steps, key=lambda row: row["correlation"])
    assert own["correlation"] < 0.9 and best["correlation"] > own["correlation"] and best["sigma"] >= 1e-2
    assert "WARNING" not in str(npt.check(npt.make_model("fc(width=30)", (8, 8, 1), 10), "np", "cross-entropy", BATCH,
                                          draws=200))  # fmt: skip


def test_it_has_the_default_loss_of_its_network_and_trains():
    assert Run(network="precision(linfc)").loss == "linear-mse"
    run = Run(dataset="digits", network="precision(fc(width=40))", rule="np(difference=jvp)", lr=3e-3, epochs=8)
    assert npt.train(run).test_acc > 30
