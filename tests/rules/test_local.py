"""Local losses: against greedy losses written by hand, by the mean of the estimates, and by what a step computes."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from estimates import check_expected, drawn, rms_z

import nodepert as npt
from nodepert.core import Model, plain
from nodepert.diagnostics.conformance.common import compiled
from nodepert.models.heads import headed, predicting
from nodepert.models.layers import conv2d, dense, xavier
from nodepert.rules.local import ending_at, loss_of_parts
from nodepert.training.losses import cross_entropy

pytestmark = pytest.mark.usefixtures("quickly_compiled")
KEY, CLASSES, EXAMPLES = jax.random.key, 3, 3
Y = jnp.arange(EXAMPLES) % CLASSES


def convolutional(params, x, node=plain):  # smooth: finite differences across the kink of a ReLU are biased
    h = jnp.tanh(node("conv0", conv2d(2), params["conv0"], x))
    h = jnp.tanh(node("conv1", conv2d(), params["conv1"], h))
    return node("out", dense, params["out"], h.reshape(len(x), -1))


def conv():
    shapes = {"conv0": (3, 3, 2, 4), "conv1": (3, 3, 4, 3), "out": (12, CLASSES)}
    keys = dict(zip(shapes, jax.random.split(KEY(5), 3), strict=True))
    return Model(lambda key: {n: xavier(k, shapes[n]) for n, k in keys.items()}, convolutional)


FC = "heads(fc(width=6, activation=tanh))"


@cache
def task(network):
    """Model, params, batch."""
    kind, _, predict = network.partition(" ")
    shape = (4, 4, 2) if kind == "conv" else (5,)
    model = headed(conv(), shape, CLASSES, predict) if kind == "conv" else npt.make_model(FC, shape, CLASSES)
    x = jax.random.normal(KEY(1), (EXAMPLES, *shape))
    return model, compiled(model.init)(KEY(0)), (x, Y)


@cache
def grads(rule, network, key=2):
    model, params, batch = task(network)
    rule = npt.make_rule(rule, model, cross_entropy)
    step = compiled(lambda p, b: rule.grads(KEY(key), rule.init(KEY(3), p, b[0]), p, b))
    return step(params, batch)[0]


def draws(rule, network, count=4000):
    model, params, batch = task(network)
    rule = npt.make_rule(rule, model, cross_entropy)
    return drawn(rule, params, batch, count, rule.init(KEY(1), params, batch[0]))


def same(a, b, rtol=1e-5):
    return all(np.allclose(x, y, rtol, 1e-6) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True))


# ----------------------------------------------------------------------------------- the gradient of local losses


def greedy(params, x, y, predict):
    """The local losses of the convolutional network, added: nothing passes the bound between two blocks."""
    own, head, stop = params["network"], params["heads"], jax.lax.stop_gradient

    def loss(h, name):
        o = dense(head[name], h.mean((1, 2)) if predict == "pooled" and h.ndim == 4 else h)
        parts = o.reshape(len(x), -1, CLASSES)
        return jnp.stack([cross_entropy(parts[:, s], y) for s in range(parts.shape[1])]).mean(0)

    first = jnp.tanh(conv2d(2)(own["conv0"], x))
    second = jnp.tanh(conv2d()(own["conv1"], stop(first)))
    flat = second.reshape(len(x), -1)
    local = loss(first, "head0") + loss(flat, "head1") + cross_entropy(dense(own["out"], stop(flat)), y)
    return local.mean()


@pytest.mark.parametrize("predict", ["pooled", "parts"])
def test_backprop_with_local_losses_is_the_gradient_of_greedy_losses(predict):
    _, params, (x, y) = task(f"conv {predict}")
    expected = jax.jit(jax.grad(greedy), static_argnums=3)(params, x, y, predict)
    assert same(grads("local(sgd)", f"conv {predict}"), expected)


def test_replicas_of_a_prediction_have_its_gradient():
    assert same(grads("local(sgd)", "conv replicated"), grads("local(sgd)", "conv pooled"))


def test_groups_have_weights_of_their_own():
    w, h = jax.random.normal(KEY(1), (2, 5, 3)), jax.random.normal(KEY(2), (4, 7, 2, 5))
    params, own = {"w": w, "b": jnp.ones(3)}, jnp.einsum("bpgn,gnk->bpgk", h, w)
    assert np.allclose(predicting("parts")(params, h), own + 1, atol=1e-5)
    prediction = own.mean(1).sum(1) + 1
    assert np.allclose(predicting("pooled")(params, h), prediction, atol=1e-5)
    found, derivative = jax.jvp(lambda h: predicting("replicated")(params, h), (h,), (h,))
    assert np.allclose(found, jnp.broadcast_to(prediction[:, None, None], own.shape), atol=1e-5)
    assert np.allclose(derivative, own * 2, atol=1e-5)  # of the part itself: 1/7 of the mean, times 14 replicas


def test_what_is_reported_is_the_loss_of_the_outputs():
    model, params, (x, y) = task("fc")
    rule = npt.make_rule("local(np)", model, cross_entropy)
    _, _, info = compiled(lambda: rule.grads(KEY(2), rule.init(KEY(3), params, x), params, (x, y)))()
    outputs = model.apply(params, x)
    assert np.allclose(info.outputs, outputs, atol=1e-5)
    assert np.allclose(info.loss, cross_entropy(outputs, y), atol=1e-5)


def test_targets_are_repeated_or_given_for_each_part():
    o = jax.random.normal(KEY(0), (2, 4, 3))
    labels, each = jnp.asarray([0, 2]), jnp.asarray([[0, 1, 2, 0], [2, 2, 1, 1]])
    alone = jnp.stack([cross_entropy(o[:, s], labels) for s in range(4)], 1)
    assert np.allclose(loss_of_parts(cross_entropy, o, labels), alone / 4)
    assert np.allclose(loss_of_parts(cross_entropy, o, jax.nn.one_hot(labels, 3)), alone / 4, atol=1e-6)
    assert np.allclose(loss_of_parts(cross_entropy, o, each), cross_entropy(o, each))
    assert np.allclose(loss_of_parts(cross_entropy, o[:, 0], labels), alone[:, 0])
    with pytest.raises(ValueError, match="one number per example"):
        loss_of_parts(lambda o, y: cross_entropy(o, y).mean(), o, labels)


# ----------------------------------------------------------------------------------- estimates of it

UNBIASED = [
    ("fc", "np(credit=own)"),
    ("fc", "np(credit=trial, noise=rademacher)"),
    ("fc", "inp"),
    ("fc", "wp(sharing=example)"),
    ("conv parts", "np(credit=own, noise=rademacher)"),
    ("conv parts", "np(credit=trial, samples=8)"),
    (
        "conv parts",
        "np(credit=own, head=evaluated, guide=chain(rate=1e-3), samples=2, noise=orthogonal, difference=jvp)",
    ),
    ("conv replicated", "np(credit=own, difference=jvp)"),
]


@pytest.mark.parametrize(("network", "rule"), UNBIASED)
def test_unbiased_for_the_local_losses(network, rule):
    check_expected(draws(f"local({rule})", network), grads("local(sgd)", network))


def test_a_signal_that_passes_from_block_to_block_is_found():
    model, params, batch = task("fc")
    names = ["head0", "head1", "out"]
    outputs = {"out": model} | {name: ending_at(model, name) for name in names[:2]}  # without `restricted`
    rules = [npt.make_rule("np(noise=rademacher)", outputs[name], cross_entropy) for name in names]
    leaking = jax.tree.map(lambda *g: sum(g), *(drawn(r, params, batch, 4000, key=i) for i, r in enumerate(rules)))
    assert rms_z(leaking, grads("local(sgd)", "fc")) > 4


def interacting(mix):
    """One block: units of each part, mixed over parts, a head for each part."""

    def apply(params, x, node=plain):
        h = mix(jnp.tanh(node("in", lambda p, h: h + p, params["in"], x)))
        node("head0", predicting("parts"), params["head0"], h)
        return node("out", dense, params["out"], h.mean(1))

    params = {"in": jnp.zeros((4, 5)), "head0": xavier(KEY(1), (5, CLASSES)), "out": xavier(KEY(2), (5, CLASSES))}
    return Model(lambda key: params, apply), params, (jax.random.normal(KEY(3), (EXAMPLES, 4, 5)), Y)


def estimates(rule, mix):
    model, params, batch = interacting(mix)
    rule = npt.make_rule(rule, model, cross_entropy)
    return drawn(rule, params, batch, 4000, rule.init(KEY(0), params, batch[0]))


def test_own_credit_is_found_wrong_where_parts_interact_within_a_block():
    def mixed(h):
        return jnp.cumsum(h, 1)

    exact = jax.tree.map(lambda g: g[0], estimates("local(sgd)", mixed))
    check_expected(estimates("local(np(credit=trial))", mixed), exact)
    assert rms_z(estimates("local(np(credit=own))", mixed), exact) > 4


def test_own_credit_has_the_variance_of_a_part_instead_of_all():
    """For n units in each of S independent parts and signs as noise: n - 1 instead of S n - 1 times the signal."""
    found = {c: estimates(f"local(np(credit={c}, difference=jvp, noise=rademacher, head=evaluated))", lambda h: h)
             for c in ("own", "trial")}  # fmt: skip
    own, trial = (np.var(np.asarray(found[c]["in"], np.float64), 0).sum() for c in ("own", "trial"))
    assert trial / own == pytest.approx((4 * 5 - 1) / (5 - 1), rel=0.1)


# ----------------------------------------------------------------------------------- what a step computes


def products(f, *arguments):
    """Matrix products in the optimised program."""
    program = jax.jit(f).lower(*arguments).compile()
    return program.as_text().count(" dot(")


@pytest.mark.parametrize("depth", [1, 3])
def test_a_step_costs_one_clean_and_one_noisy_pass_whatever_the_number_of_blocks(depth, optimised):
    model = npt.make_model(f"heads(fc(width=6, depth={depth}))", (5,), CLASSES)
    params, x = model.init(KEY(0)), jnp.ones((EXAMPLES, 5))
    rule = npt.make_rule("local(np)", model, cross_entropy)
    nodes = 2 * depth + 1
    found = products(lambda key, p, x: rule.grads(key, ((),) * (depth + 1), p, (x, Y)), KEY(1), params, x)
    assert (
        found == 2 * nodes + depth
    )  # clean pass and weight gradients; of the noisy pass the heads, the rest is shared


def test_heads_cost_a_prediction_nothing(optimised):
    plain_, with_heads = (npt.make_model(n, (5,), CLASSES) for n in ("fc(width=6)", "heads(fc(width=6))"))
    found = [products(m.apply, m.init(KEY(0)), jnp.ones((2, 5))) for m in (plain_, with_heads)]
    assert found[0] == found[1] == 3


# ----------------------------------------------------------------------------------- specs and errors


@pytest.mark.parametrize("rule", ["local(np); out=exact", "local(fa)", "local(dfa)", "local(kp)"])
def test_it_wraps_rules_and_is_part_of_maps(rule):
    exact, found = grads("local(sgd)", "fc"), grads(rule, "fc")
    assert same(found["network"]["out"], exact["network"]["out"], 1e-4)
    assert all(jnp.abs(leaf).max() > 0 for leaf in jax.tree.leaves(found))


def test_on_decorrelated_activity_it_starts_as_without():
    model, params, (x, y) = task("fc")
    rule = npt.make_rule("decorrelate(local(np(difference=jvp)))", model, cross_entropy)
    params = {"weights": params, "decorrelation": compiled(rule.model(x).init)(KEY(0))["decorrelation"]}
    found = compiled(lambda: rule.grads(KEY(2), rule.init(KEY(3), params, x), params, (x, y))[0])()
    assert same(found["weights"], grads("local(np(difference=jvp))", "fc"), 1e-4) and len(found["decorrelation"]) == 5


def test_a_network_without_heads_is_refused():
    model = npt.make_model("fc(width=6)", (5,), CLASSES)
    rule = npt.make_rule("local(np)", model, cross_entropy)
    with pytest.raises(npt.UserError, match=r"local losses need heads, and this network has none: .*heads\(fc\)"):
        rule.init(KEY(0), model.init(KEY(0)), jnp.ones((1, 5)))
    with pytest.raises(npt.UserError, match="must wrap local, as in decorrelate"):
        npt.make_rule("local(decorrelate(np))", model, cross_entropy)
    with pytest.raises(npt.UserError, match="cannot wrap a map"):
        npt.make_rule("local('np; out=exact')", model, cross_entropy)
    with pytest.raises(npt.UserError, match="heads need a network with at least two nodes"):
        npt.make_model("heads(fc(depth=0))", (5,), CLASSES)
