"""Feedback rules in their exact limits, and against formulas written out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nodepert as npt
from nodepert.core import backprop, preactivations
from nodepert.diagnostics.conformance.common import compiled
from nodepert.training.losses import cross_entropy, mse

pytestmark = pytest.mark.usefixtures("quickly_compiled", "strict_dtypes")

KEY = jax.random.key
NETWORKS = {"fc(width=9, depth=3)": (7,), "conv": (8, 8, 3), "gru(width=6)": (5, 3)}


def task(network, loss=mse):
    shape = NETWORKS[network]
    model = npt.make_model(network, shape, 4)
    batch = jax.random.normal(KEY(1), (5, *shape)), jnp.arange(5) % 4
    return model, compiled(model.init)(KEY(0)), batch, loss


def grads(rule, state, params, batch, key=2):
    return compiled(lambda s, p, b: rule.grads(KEY(key), s, p, b)[0])(state, params, batch)


def same(a, b, rtol=1e-6):
    return all(
        np.allclose(x, y, rtol=rtol, atol=rtol * float(jnp.abs(y).max()))
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


@pytest.mark.parametrize("network", NETWORKS)
def test_with_feedback_weights_equal_to_the_weights_fa_and_kp_are_backpropagation(network):
    model, params, batch, loss = task(network)
    exact = grads(backprop(model, loss), (), params, batch)
    fa = grads(npt.make_rule("fa", model, loss), params, params, batch)
    kp = grads(npt.make_rule("kp", model, loss), jax.tree.map(jnp.zeros_like, params), params, batch)
    assert same(fa, exact) and same(kp, exact)
    rule = npt.make_rule("fa", model, loss)
    other = grads(rule, compiled(rule.init)(KEY(3), params, batch[0]), params, batch)
    assert same(other["out"], exact["out"])  # nothing has travelled back yet
    assert not same(other, exact, rtol=0.1)


def test_dfa_in_time_sends_each_step_its_own_error():
    model, loss = npt.make_model("rnn(width=6, readout=every)", (5, 3), 2), npt.make_loss("linear-mse")
    params, x, y = model.init(KEY(0)), jax.random.normal(KEY(1), (4, 5, 3)), jax.random.normal(KEY(2), (4, 5, 2))
    rule = npt.make_rule("dfa(error=linear)", model, loss)
    feedback = rule.init(KEY(3), params, x)
    h = np.tanh(preactivations(model, params, x)["cell"])
    z = np.concatenate([x, np.pad(h, ((0, 0), (1, 0), (0, 0)))[:, :-1]], -1)
    signals = (model.apply(params, x) - y) @ feedback["cell"] / 4  # e_t B: nothing passes between steps
    expected = {"w": np.einsum("bti,btj->ij", z, signals), "b": signals.sum((0, 1))}
    assert same(grads(rule, feedback, params, (x, y))["cell"], expected, 1e-5)


def by_hand(params, feedback, x, y):
    """Gradients of a fully connected ReLU network under squared error, errors sent back by `feedback`."""
    names = list(params)
    z, a = {names[0]: np.asarray(x, np.float64)}, {}
    for name, after in zip(names, [*names[1:], None], strict=True):
        a[name] = z[name] @ np.asarray(params[name]["w"], np.float64) + np.asarray(params[name]["b"])
        if after:
            z[after] = np.maximum(a[name], 0)
    grads, delta = {}, 2 * (a[names[-1]] - np.asarray(y)) / y.shape[1] / len(x)
    for name, below in zip(names[::-1], [*names[-2::-1], None], strict=True):
        grads[name] = {"w": z[name].T @ delta, "b": delta.sum(0)}
        if below:
            delta = (delta @ np.asarray(feedback[name]["w"], np.float64).T) * (a[below] > 0)
    return grads


def test_fa_and_usf_are_their_formulas():
    model, params, (x, _), _ = task("fc(width=9, depth=3)")
    y, loss = jax.random.normal(KEY(5), (5, 4)), npt.make_loss("linear-mse")
    rule = npt.make_rule("fa(scale=2.0, seed=3)", model, loss)
    feedback = rule.init(KEY(6), params, x)
    assert same(rule.grads(KEY(2), feedback, params, (x, y))[0], by_hand(params, feedback, x, y), 1e-5)
    signs = jax.tree.map(lambda w: 0.1 * np.sign(w), params)
    usf = npt.make_rule("usf(scale=0.1)", model, loss).grads(KEY(2), (), params, (x, y))[0]
    assert same(usf, by_hand(params, signs, x, y), 1e-5)


def test_feedback_weights_have_the_spread_of_the_weights_times_scale_and_depend_on_the_seed():
    model = npt.make_model("fc(width=200)", (100,), 10)
    params, x = model.init(KEY(0)), jnp.zeros((1, 100))
    feedback = npt.make_rule("fa(scale=3.0)", model, mse).init(KEY(1), params, x)
    assert float(feedback["fc1"]["w"].std()) == pytest.approx(3 * float(params["fc1"]["w"].std()), rel=0.03)
    assert float(jnp.abs(feedback["fc1"]["b"]).max()) == 0
    other = npt.make_rule("fa(scale=3.0, seed=1)", model, mse).init(KEY(1), params, x)
    assert not same(feedback, other, 0.1)
    direct = npt.make_rule("dfa", model, mse).init(KEY(1), params, x)
    assert {name: b.shape for name, b in direct.items()} == {"fc0": (10, 200), "fc1": (10, 200), "out": (10, 10)}
    assert float(direct["fc0"].std()) == pytest.approx((2 / 210) ** 0.5, rel=0.05)


def test_kolen_pollack_is_two_weights_with_equal_increments_and_decay():
    """Simulated as in the paper, with a B of its own, against the rule, which keeps B - W; and B meets W."""
    model, params, (x, _), _ = task("fc(width=9, depth=3)")
    y, loss, lr, decay = jax.random.normal(KEY(5), (5, 4)), npt.make_loss("linear-mse"), 0.1, 0.02
    rule = npt.make_rule(f"kp(decay={decay})", model, loss)
    difference = rule.init(KEY(6), params, x)
    w, b = params, jax.tree.map(jnp.add, params, difference)
    step = jax.jit(rule.grads)
    for i in range(150):
        g, difference, _ = step(KEY(7 + i), difference, params, (x, y))
        params = jax.tree.map(lambda p, d: (1 - decay) * p - lr * d, params, g)  # as the trainer's wd
        increment = jax.tree.map(lambda d: lr * jnp.asarray(d, jnp.float32), by_hand(w, b, x, y))
        w = jax.tree.map(lambda v, d: (1 - decay) * v - d, w, increment)
        b = jax.tree.map(lambda v, d: (1 - decay) * v - d, b, increment)
        if i == 20:
            assert same(params, w, 1e-4)
            assert same(jax.tree.map(jnp.add, params, difference), b, 1e-4)
            exact, _, _ = backprop(model, loss).grads(KEY(0), (), params, (x, y))
            assert not same(g, exact, 0.1)
    exact, _, _ = backprop(model, loss).grads(KEY(0), (), params, (x, y))
    assert same(step(KEY(0), difference, params, (x, y))[0], exact, 0.1)


@pytest.mark.parametrize(("loss", "error"), [("linear-mse", "loss"), ("cross-entropy", "loss"),
                                             ("cross-entropy", "softmax")])  # fmt: skip
def test_one_layer_of_dfa_is_backpropagation(loss, error):
    model, batch = npt.make_model("fc(depth=0)", (7,), 4), (jax.random.normal(KEY(1), (5, 7)), jnp.arange(5) % 4)
    params, loss = model.init(KEY(0)), npt.make_loss(loss)
    rule = npt.make_rule(f"dfa(error={error})", model, loss)
    g = grads(rule, rule.init(KEY(3), params, batch[0]), params, batch)
    assert same(g, grads(backprop(model, loss), (), params, batch))


@pytest.mark.parametrize("network", NETWORKS)
def test_dfa_sends_the_output_error_to_every_node(network):
    model, params, (x, y), loss = task(network, cross_entropy)
    rule = npt.make_rule("dfa", model, loss)
    feedback = rule.init(KEY(3), params, x)
    g, _, info = compiled(lambda f, p, b: rule.grads(KEY(2), f, p, b))(feedback, params, (x, y))
    e = (jax.nn.softmax(info.outputs) - jax.nn.one_hot(y, 4)) / len(x)
    exact = grads(backprop(model, loss), (), params, (x, y))
    assert same(g["out"], exact["out"], 1e-5)
    first = next(iter(params))
    signal = jnp.tensordot(e, feedback[first], 1)
    assert same(g[first]["b"], signal.reshape(-1, signal.shape[-1]).sum(0), 1e-4)


def test_dfa_sends_no_error_to_inactive_units():
    model, params, (x, y), loss = task("fc(width=9, depth=3)", cross_entropy)
    feedback, found = None, {}
    for spec in ("dfa", "dfa(active=True)"):
        rule = npt.make_rule(spec, model, loss)
        feedback = rule.init(KEY(3), params, x) if feedback is None else feedback
        found[spec] = compiled(lambda f, p, r=rule: r.grads(KEY(2), f, p, (x[:1], y[:1]))[0])(feedback, params)
    on = preactivations(model, params, x[:1])["fc0"][0] > 0
    every, gated = (found[spec]["fc0"]["b"] for spec in found)
    assert 0 < on.sum() < on.size and np.array_equal(gated, np.where(on, every, 0))


@pytest.mark.parametrize("rule", ["fa", "dfa", "usf", "kp"])
def test_they_learn(rule):
    run = npt.Run(
        dataset="digits(train=600)",
        network="fc(width=50)",
        loss="cross-entropy",
        rule=rule,
        optimizer="sgd",
        lr=0.1,
        epochs=10,
        batchsize=20,
    )
    with jax.numpy_dtype_promotion("standard"):
        assert npt.train(run).test_acc > 85


@pytest.mark.parametrize("spec", ["fa(scale=0)", "usf(scale=-1.0)", "kp(decay=1.0)", "kp(scale=inf)", "dfa(error=mse)"])
def test_wrong_arguments_are_refused(spec):
    model, *_, loss = task("fc(width=9, depth=3)")
    with pytest.raises(npt.UserError):
        npt.make_rule(spec, model, loss)
