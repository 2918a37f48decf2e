"""Combinators: maps from nodes to rules, decorrelation, weight normalisation; against their parents and formulas."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import nodepert as npt
from nodepert.core import backprop
from nodepert.diagnostics.conformance.common import compiled
from nodepert.models.layers import conv2d, windows
from nodepert.rules.combine import restricted
from nodepert.training.losses import cross_entropy

pytestmark = pytest.mark.usefixtures("quickly_compiled")
KEY = jax.random.key
NETWORKS = {"fc(width=9, depth=3)": (7,), "conv": (6, 7, 2)}


@cache
def task(network):
    shape = NETWORKS[network]
    model = npt.make_model(network, shape, 4)
    return model, compiled(model.init)(KEY(0)), (jax.random.normal(KEY(1), (5, *shape)), jnp.arange(5) % 4)


def grads(spec, model, params, batch, key=2):
    rule = npt.make_rule(spec, model, cross_entropy)

    @compiled
    def run(params, batch):
        return rule.grads(KEY(key), rule.init(KEY(3), params, batch[0]), params, batch)[0]

    return run(params, batch)


@cache
def grads_of_task(spec, network):
    return grads(spec, *task(network))


def same(a, b, rtol=1e-5):
    return all(
        np.allclose(x, y, rtol=rtol, atol=rtol * float(np.abs(y).max()))
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


# ------------------------------------------------------------------ maps


def test_np_below_an_exact_output():
    model, params, batch = task("fc(width=9, depth=3)")
    g, exact = grads("np; out=exact", model, params, batch), grads_of_task("sgd", "fc(width=9, depth=3)")
    assert same(g["out"], exact["out"], 1e-6)
    below = npt.make_rule("np", restricted(model, ["fc0", "fc1", "fc2"]), cross_entropy)
    alone = compiled(lambda p, b: below.grads(jax.random.fold_in(KEY(2), 0), (), p, b)[0])(params, batch)
    assert same([g[n] for n in ("fc0", "fc1", "fc2")], [alone[n] for n in ("fc0", "fc1", "fc2")], 1e-6)
    assert all(float(jnp.abs(leaf).max()) == 0 for leaf in jax.tree.leaves(alone["out"]))


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("rule", ["sgd", "np", "inp", "wp", "fa", "kp", "usf", "dfa"])
def test_a_rule_for_all_nodes_is_that_rule_and_exact_for_all_is_backpropagation(network, rule):
    model, params, batch = task(network)
    first = next(iter(params))
    exact = grads_of_task("sgd", network)
    assert same(grads_of_task(f"exact; {first}=sgd", network), exact)
    mixed = grads(f"{rule}; {first}=exact", model, params, batch)
    assert same(mixed[first], exact[first])
    assert jax.tree.structure(mixed) == jax.tree.structure(params)
    assert all(float(jnp.abs(leaf).max()) > 0 for leaf in jax.tree.leaves(mixed))


def test_patterns_and_the_last_one_that_matches():
    model, params, batch = task("fc(width=9, depth=3)")
    exact = grads_of_task("sgd", "fc(width=9, depth=3)")
    g = grads("np; fc*=dfa; fc1=exact", model, params, batch)
    assert same(g["fc1"], exact["fc1"]) and not same(g["fc0"], exact["fc0"], 0.1)
    assert same(grads("fc?=exact; out=exact", model, params, batch), exact)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("np; ou=exact", r"no node is named 'ou'; the nodes are: fc0, fc1, fc2, out"),
        ("fc*=dfa", r"no rule for the node out; start with a rule for all"),
        ("np; out=nonsense", r"unknown rule 'nonsense'"),
        ("np; out=np(sigm=1)", r"has no argument 'sigm'"),
        ("np; exact", r"a map is 'rule; node=rule; \.\.\.'"),
        ("np; out=exact; out=np", r"a pattern of nodes is given twice"),
        ("np; out=decorrelate(np)", r"must wrap the map"),
        ("np;", r"cannot read"),
    ],
)
def test_wrong_maps_are_refused(spec, message):
    model, params, batch = task("fc(width=9, depth=3)")
    with pytest.raises(npt.UserError, match=message):
        grads(spec, model, params, batch)


def test_a_map_has_one_canonical_form():
    from nodepert.registry import check, full

    assert str(check("rule", " np( samples=2 );out = bp")) == "np(samples=2); out=sgd"
    assert str(check("rule", "decorrelate( 'np; out=exact', rate=1e-2)")) == "decorrelate('np; out=exact', rate=0.01)"
    written = str(full("rule", "decorrelate('np; out=exact')"))
    assert str(full("rule", written)) == written and "sigma=0.001" in written


# ------------------------------------------------------------------ decorrelation


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("rule", ["sgd", "np", "wp", "wp(rank=1)", "fa", "anp", "np; out=exact"])
def test_without_decorrelation_it_equals_its_parent(network, rule):
    model, params, batch = task(network)
    adapted = npt.make_rule(f"decorrelate('{rule}')", model, cross_entropy)
    whole = compiled(adapted.model(batch[0]).init)(KEY(0))
    assert same(whole["weights"], params)
    assert all(np.array_equal(r, np.eye(len(r))) for r in whole["decorrelation"].values())

    @compiled
    def run(whole, batch):
        g, _, info = adapted.grads(KEY(2), adapted.init(KEY(3), whole, batch[0]), whole, batch)
        return g, info, adapted.model(batch[0]).apply(whole, batch[0])

    g, info, outputs = run(whole, batch)
    assert same(g["weights"], grads_of_task(rule, network), 1e-4 if "np" in rule or "wp" in rule else 1e-5)
    assert same(outputs, info.outputs)


def test_decorrelated_backpropagation_is_the_gradient_of_its_network():
    model, _, batch = task("conv")
    rule = npt.make_rule("decorrelate(sgd)", model, cross_entropy)
    network = rule.model(batch[0])
    whole, random = compiled(network.init)(KEY(0)), np.random.default_rng(9)
    whole["decorrelation"] = {
        n: r + 0.02 * random.normal(size=r.shape).astype("float32") for n, r in whole["decorrelation"].items()
    }
    rules = backprop(network, cross_entropy), rule
    exact, found = compiled(lambda p, b: [r.grads(KEY(2), (), p, b)[0]["weights"] for r in rules])(whole, batch)
    assert same(found, exact)


def test_the_step_of_r_is_that_of_the_paper_and_reduces_correlation():
    model = npt.make_model("fc(depth=0)", (6,), 3)
    random = np.random.default_rng(4)
    mix = random.normal(size=(6, 6)) / 2
    x, y = jnp.asarray(random.normal(size=(400, 6)) @ mix, "float32"), jnp.arange(400) % 3
    rule = npt.make_rule("decorrelate(sgd, rate=0.05)", model, cross_entropy)
    params, opt = rule.model(x).init(KEY(0)), rule.optimizer(optax.adam(1e-3))
    state = opt.init(params)

    @compiled
    def step(params, state, i):
        g, _, _ = rule.grads(jax.random.fold_in(KEY(1), i), (), params, (x, y))
        updates, state = opt.update(g, state, params)
        return optax.apply_updates(params, updates), state

    def correlation(r):
        z = np.asarray(x @ r.T, np.float64)
        return z.T @ z / len(z)

    r = np.asarray(params["decorrelation"]["out"], np.float64)
    first = correlation(r)
    for i in range(300):
        params, state = step(params, state, i)
        if i < 3:
            c = correlation(r)
            r = r - 0.05 * (c - np.diag(np.diag(c))) @ r
            assert np.allclose(params["decorrelation"]["out"], r, atol=1e-5)
    last = correlation(params["decorrelation"]["out"])
    off = lambda c: np.abs(c - np.diag(np.diag(c))).max() / np.diag(c).mean()  # noqa: E731
    assert off(last) < 0.02 * off(first)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [(3, 3), (5, 2), (1, 1)])
def test_patches_are_those_of_the_convolution(stride, kernel):
    random = np.random.default_rng(1)
    h, w = (jnp.asarray(random.normal(size=shape), "float32") for shape in ((2, 7, 6, 3), (*kernel, 3, 4)))

    def both(h, w):
        return windows(h, w.shape[:-1], stride) @ w.reshape(-1, 4), conv2d(stride)({"w": w, "b": jnp.zeros(4)}, h)

    assert same(*compiled(both)(h, w), 1e-4)


def test_what_decorrelate_does_not_support_is_an_error():
    model, params, batch = task("fc(width=9, depth=3)")
    with pytest.raises(npt.UserError, match=r"params = rule\.model\(x\)\.init\(key\)"):
        grads("decorrelate(np)", model, params, batch)
    with pytest.raises(npt.UserError, match="cannot wrap it"):
        npt.make_rule("decorrelate(decorrelate(np))", model, cross_entropy)
    with pytest.raises(npt.UserError, match="wraps another rule, as in decorrelate"):
        npt.make_rule("decorrelate", model, cross_entropy)
    unknown = npt.Model(model.init, lambda p, x, node=npt.plain: node("a", lambda p, h: h, p, x).sum((1, 2)))
    with pytest.raises(npt.UserError, match=r"node 'a' has another operator, on an input of shape \(2, 3, 4, 5\)"):
        npt.make_rule("decorrelate(np)", unknown, cross_entropy).model(jnp.zeros((2, 3, 4, 5))).init(KEY(0))


def test_users_own_dense_operator_is_decorrelated_too():
    model = npt.Model(
        lambda key: {"a": jnp.ones((7, 4))}, lambda p, x, node=npt.plain: node("a", lambda w, h: h @ w, p["a"], x)
    )
    rule = npt.make_rule("decorrelate(np)", model, cross_entropy)
    batch = task("fc(width=9, depth=3)")[2]
    g, _, _ = rule.grads(KEY(1), (), rule.model(batch[0]).init(KEY(0)), batch)
    assert g["decorrelation"]["a"].shape == (7, 7)


# ------------------------------------------------------------------ weight normalisation


@pytest.mark.parametrize("inner", ["sgd", "adam(b1=0.5)"])
def test_every_unit_keeps_the_size_of_its_incoming_weights(inner):
    from nodepert.registry import make

    _, params, _ = task("conv")
    opt = make("optimizer", f"normalise({inner})", 0.1, 10)
    ones = jax.tree.map(np.ones_like, params)
    plain = make("optimizer", inner, 0.1, 10)

    @compiled
    def stepped(params):
        return [optax.apply_updates(params, o.update(ones, o.init(params), params)[0]) for o in (opt, plain)]

    new, moved = stepped(params)
    for name, p in params.items():
        s = np.sqrt(np.square(p["w"]).mean())
        w = np.asarray(new[name]["w"], np.float64)
        assert np.allclose(np.sqrt(np.square(w).mean((*range(w.ndim - 1),))), s, rtol=1e-5)
    assert same(new["out"]["b"], moved["out"]["b"])
    ratio = np.asarray(new["out"]["w"] / moved["out"]["w"], np.float64)
    assert np.allclose(ratio, ratio[:1], rtol=1e-4)  # the direction is the optimizer's


def test_it_trains_and_the_spec_is_read():
    run = npt.Run(dataset="digits", network="fc(width=30)", rule="np; out=exact", optimizer="normalise(adam)", epochs=3)
    assert npt.train(run).status == "finished"
    with pytest.raises(npt.UserError, match="wraps another optimizer"):
        npt.train(npt.Run(dataset="digits", optimizer="normalise"))
