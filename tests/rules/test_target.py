"""Wiring is found as it is; difference target propagation is its formulas, learns its inverses, and learns by them."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import nodepert as npt
from nodepert.core import Model, backprop, plain, pullback
from nodepert.errors import UserError
from nodepert.models.conv import conv
from nodepert.models.fc import chain, fc, linfc
from nodepert.models.layers import conv2d, dense, xavier
from nodepert.models.wiring import wiring
from nodepert.rules.inverses import transposed
from nodepert.rules.target import Inverses, difference_target_propagation
from nodepert.training.losses import cross_entropy, mse

pytestmark = pytest.mark.usefixtures("quickly_compiled")


def key(seed=0):
    return jax.random.key(seed)


def only(name):
    return frozenset([name])


def layers(**shapes):
    """An `init` of dense or convolutional parameters by name."""
    return lambda k: {n: xavier(jax.random.fold_in(k, i), s) for i, (n, s) in enumerate(shapes.items())}


# ------------------------------------------------------------------------------------------ wiring


def test_wiring_of_a_chain():
    model, x = fc((4, 2), 3, width=5, depth=2), jnp.ones((2, 4, 2))
    wires = wiring(model, model.init(key()), x)
    assert wires.order == ("fc0", "fc1", "out")
    assert wires.inputs == {"fc0": only("x"), "fc1": only("fc0"), "out": only("fc1")}
    assert (wires.outputs, wires.bypassing, wires.unused) == (only("out"), (), ())
    shapes = jax.eval_shape(model.init, key())
    assert wiring(model, shapes, jax.ShapeDtypeStruct(x.shape, x.dtype)) == wires
    traced = []
    jax.jit(lambda p, x: traced.append(wiring(model, p, x)))(model.init(key()), x)
    assert traced == [wires]


def test_wiring_of_a_convolutional_network():
    model = conv((6, 6, 1), 3)
    wires = wiring(model, jax.eval_shape(model.init, key()), jnp.ones((2, 6, 6, 1)))
    assert wires.order == ("conv0", "conv1", "conv2", "out")
    assert wires.inputs == {"conv0": only("x"), "conv1": only("conv0"), "conv2": only("conv1"), "out": only("conv2")}


@jax.jit
def exchanged(a, b):
    return jnp.tanh(b), jnp.tanh(a)


def residual(params, x, node=plain):
    z = node("z", dense, params["z"], x)
    y = node("y", dense, params["y"], jax.nn.relu(z))
    left, right = exchanged(y, z)  # one jitted helper, yet two separate ways
    a = node("a", dense, params["a"], left)
    return node("b", dense, params["b"], right + a) + x


def test_wiring_of_a_residual_network_in_the_order_of_calls():
    model = Model(layers(z=(3, 3), y=(3, 3), a=(3, 3), b=(3, 3)), residual)
    wires = wiring(model, model.init(key()), jnp.ones((2, 3)))
    assert wires.order == ("z", "y", "a", "b")
    assert wires.inputs == {"z": only("x"), "y": only("z"), "a": only("z"), "b": frozenset(["y", "a"])}
    assert wires.outputs == frozenset(["b", "x"])
    assert wires.bypassing == wires.unused == ()


def test_wiring_finds_parameters_that_bypass_the_nodes_and_unused_ones():
    def apply(params, x, node=plain):
        w = params["long"] / jnp.linalg.norm(params["long"])  # enters a node by way of something else
        h = node("in", dense, {"w": w, "b": params["in"]["b"]}, x) * params["norm"]["scale"]
        return node("out", dense, params["out"], jnp.zeros_like(h)) + params["shift"]

    params = layers(**{"in": (3, 3), "out": (3, 3)})(key())
    params |= {"long": jnp.ones((3, 3)), "norm": {"scale": jnp.ones(3)}, "shift": jnp.ones(3)}
    wires = wiring(Model(lambda _: params, apply), params, jnp.ones((2, 3)))
    assert wires.bypassing == ("['shift']",)  # what only shapes a dropped value reaches nothing
    assert wires.unused == ("['in']['w']", "['norm']['scale']")
    assert wires.inputs == {"in": only("x"), "out": frozenset()}


def test_wiring_reports_an_invalid_model():
    with pytest.raises(ValueError, match="has no nodes"):
        wiring(Model(lambda _: (), lambda p, x, node=plain: x), (), jnp.ones((2, 3)))


# ------------------------------------------------------------------------------------- the signals


def problem(model, examples=6, inputs=5, classes=4):
    kx, ky, kp = jax.random.split(key(1), 3)
    batch = jax.random.normal(kx, (examples, inputs)), jax.random.randint(ky, (examples,), 0, classes)
    return jax.jit(model.init)(kp), batch


def gradient(rule, params, batch, state=None):
    state = jax.jit(rule.init)(key(3), params, batch[0][:1]) if state is None else state
    return jax.jit(rule.grads)(key(7), state, params, batch)[0]


def close(a, b, tolerance=1e-5):
    scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(b))
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(bool(jnp.allclose(p, q, tolerance, tolerance * scale)) for p, q in pairs)


@pytest.mark.parametrize("depth", [0, 1])
def test_with_one_hidden_layer_it_is_backprop_for_any_step(depth):
    model = chain((5,), 4, 7, depth, jnp.tanh)
    params, batch = problem(model)
    exact, _, expected = jax.jit(backprop(model, cross_entropy).grads)(key(), (), params, batch)

    @jax.jit
    def with_step(step):
        rule = difference_target_propagation(model, cross_entropy, step=step, activation="tanh")
        return rule.grads(key(1), rule.init(key(), params, batch[0]), params, batch)

    for step in (1e-2, 1.0, 30.0):
        grads, _, info = with_step(step)
        assert close(grads, exact)
        assert close(info, expected)


def in_numpy(params, feedback, batch, step, act, slope, inverse_act):
    """Gradients of mse by the formulas, for dense layers and an elementwise `act` between them."""
    x, y = np.asarray(batch[0], np.float64), np.eye(4)[np.asarray(batch[1])]
    layers = [jax.tree.map(lambda p: np.asarray(p, np.float64), params[n]) for n in ("fc0", "fc1", "fc2", "out")]
    z, a = [x], []
    for layer in layers:
        a.append(z[-1] @ layer["w"] + layer["b"])
        z.append(act(a[-1]))
    o = 1 / (1 + np.exp(-a[-1]))
    e = 2 / 4 * (o - y) * o * (1 - o)
    target = {3: z[3] - step * e @ layers[3]["w"].T}
    for n in (2, 1):
        v, c = feedback[f"fc{n}"]
        target[n] = z[n] + inverse_act(target[n + 1] @ v.T + c) - inverse_act(z[n + 1] @ v.T + c)
    signals = [(z[n + 1] - target[n + 1]) / step * slope(a[n]) for n in range(3)] + [e]
    return {
        n: {"w": z[i].T @ s / len(x), "b": s.mean(0)}
        for i, (n, s) in enumerate(zip(("fc0", "fc1", "fc2", "out"), signals, strict=True))
    }


def put(rule, params, x, feedback):
    """The rule's state, with these (v, c) for feedback."""
    state = jax.eval_shape(rule.init, key(), params, x)
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), state.optimizer)
    filled = {n: ({"w": jnp.asarray(v, jnp.float32), "b": params[n]["b"]}, jnp.asarray(c, jnp.float32))
              for n, (v, c) in feedback.items()}  # fmt: skip
    assert jax.tree.structure(state.feedback) == jax.tree.structure(filled)
    return Inverses(filled, zeros)


def test_signals_are_those_of_the_formulas():
    model, rng = chain((5,), 4, 7, 3, jnp.tanh), np.random.default_rng(0)
    params, batch = problem(model)
    feedback = {n: (rng.normal(size=(7, 7)), rng.normal(size=7)) for n in ("fc1", "fc2")}

    @jax.jit
    def with_step(step):
        rule = difference_target_propagation(model, mse, step=step, activation="tanh")
        return rule.grads(key(7), put(rule, params, batch[0], feedback), params, batch)[0]

    for step, tolerance in ((0.1, 1e-3), (3.0, 1e-4), (100.0, 1e-4)):  # it ends in a difference, in float32
        grads = with_step(step)
        expected = in_numpy(params, feedback, batch, step, np.tanh, lambda a: 1 - np.tanh(a) ** 2, np.tanh)
        assert close(grads, expected, tolerance)
        assert not close(grads["fc0"], jax.tree.map(lambda g: 1.02 * g, expected["fc0"]), tolerance)


def test_true_inverses_of_linear_stages_give_gauss_newton_targets():
    """Backpropagation with W^-1 in place of W^T below the last hidden layer; no derivative of a lower node enters."""
    model = linfc((5,), 4, width=5, depth=3)
    params, batch = problem(model)
    params = jax.tree.map(lambda p: p + 0.1, params)
    w = {n: np.asarray(params[n]["w"], np.float64) for n in params}
    feedback = {n: (np.linalg.inv(w[n]).T, -np.asarray(params[n]["b"]) @ np.linalg.inv(w[n])) for n in ("fc1", "fc2")}
    rule = difference_target_propagation(model, mse, step=2.0)
    grads = gradient(rule, params, batch, put(rule, params, batch[0], feedback))

    o = jax.nn.sigmoid(model.apply(params, batch[0]))
    e = np.asarray(2 / 4 * (o - jax.nn.one_hot(batch[1], 4)) * o * (1 - o), np.float64)
    signals = {"out": e, "fc2": e @ w["out"].T}
    signals["fc1"] = signals["fc2"] @ np.linalg.inv(w["fc2"])
    signals["fc0"] = signals["fc1"] @ np.linalg.inv(w["fc1"])
    signals = {n: jnp.asarray(s / len(e), jnp.float32) for n, s in signals.items()}
    assert close(grads, pullback(model, params, batch[0], signals), 1e-3)


def test_a_convolution_is_inverted_by_its_own_transpose():
    """Where feedback is the forward weights and all is linear the inverse is backpropagation's transpose."""

    def apply(params, x, node=plain):
        for name, op in (("first", conv2d()), ("conv", conv2d(2))):
            x = node(name, op, params[name], x)
        return node("a", dense, params["a"], x.reshape(len(x), -1))

    model = Model(layers(first=(3, 3, 2, 3), conv=(3, 3, 3, 4), a=(16, 4)), apply)
    x = jax.random.normal(key(1), (3, 4, 4, 2))
    params, batch = model.init(key()), (x, jnp.array([0, 3, 1]))
    rule = difference_target_propagation(model, cross_entropy, step=1.0, scale=1.0)
    state = rule.init(key(), params, x[:1])
    _, c = state.feedback["conv"]
    assert list(state.feedback) == ["conv"]
    exact = jax.jit(backprop(model, cross_entropy).grads)(key(), (), params, batch)[0]
    grads = jax.jit(lambda state: rule.grads(key(2), state, params, batch)[0])
    assert close(grads(Inverses({"conv": (params["conv"], c)}, state.optimizer)), exact, 1e-4)
    random = grads(state)  # of the last two nodes the signals are exact whatever the feedback
    assert close([random["conv"], random["a"]], [exact["conv"], exact["a"]])
    assert not close(random["first"], exact["first"], 0.1)


@pytest.mark.parametrize("op", [dense, conv2d(2)], ids=["dense", "conv"])
def test_the_transpose_and_its_derivatives(op):
    shape = {"dense": ((3, 4), (4, 5), (3, 5)), "conv": ((3, 4, 4, 2), (3, 3, 2, 3), (3, 2, 2, 3))}
    like, weights, above = shape["dense" if op is dense else "conv"]
    V, a = {"w": jax.random.normal(key(1), weights), "b": jnp.ones(weights[-1])}, jax.random.normal(key(2), above)
    goal = jax.random.normal(key(3), like)

    def plainly(V, a):
        return jnp.square(jax.vjp(lambda h: op(V, h), jnp.zeros(like))[1](a)[0] - goal).sum()

    def written(V, a):
        return jnp.square(transposed(op, V, jnp.zeros(like), a) - goal).sum()

    expected, found = (jax.jit(jax.value_and_grad(f, (0, 1)))(V, a) for f in (plainly, written))
    assert close(found, expected)
    assert not found[1][0]["b"].any()


# ------------------------------------------------------------------------------------ the inverses


def test_inverses_learn_to_reconstruct_noisy_activity():
    model = chain((5,), 4, 12, 3, jnp.tanh)
    params, batch = problem(model, examples=200)
    rule = difference_target_propagation(model, mse, inverse_lr=1e-2, noise=0.2, activation="tanh")

    def reconstruction(feedback):
        rng = np.random.default_rng(0)
        h = np.tanh(np.asarray(dense(params["fc0"], batch[0])))
        error = {}
        for name in ("fc1", "fc2"):
            h = h + 0.2 * rng.normal(size=h.shape)
            above, (v, c) = np.tanh(np.asarray(dense(params[name], h))), feedback[name]
            error[name] = np.square(np.tanh(above @ np.asarray(v["w"]).T + np.asarray(c)) - h).sum(1).mean()
            h = np.tanh(np.asarray(dense(params[name], h)))
        return error

    def step(state, k):
        return rule.grads(k, state, params, batch)[1], None

    start = jax.jit(rule.init)(key(), params, batch[0][:1])
    end, _ = jax.jit(lambda s: jax.lax.scan(step, s, jax.random.split(key(5), 400)))(start)
    before, after = reconstruction(start.feedback), reconstruction(end.feedback)
    assert all(after[name] < 0.3 * before[name] for name in before), (before, after)


def test_seed_and_scale_determine_the_initial_feedback():
    model = fc((5,), 4, width=50, depth=3)
    params, (x, _) = problem(model)

    def first(**given):
        rule = difference_target_propagation(model, mse, **given)
        own, c = rule.init(key(), params, x).feedback["fc2"]
        assert not c.any()
        return np.asarray(own["w"])

    half, other = first(scale=0.5), first(scale=0.5, seed=1)
    assert half.std() == pytest.approx(0.5 * float(params["fc2"]["w"].std()), rel=0.05)
    assert abs(np.corrcoef(half.ravel(), other.ravel())[0, 1]) < 0.1


# ------------------------------------------------------------------------------------------ errors


def test_a_network_that_is_not_a_chain_is_an_error_naming_the_node():
    model = Model(layers(z=(3, 3), y=(3, 3), a=(3, 3), b=(3, 3)), residual)
    rule, x = difference_target_propagation(model, mse), jnp.ones((2, 3))
    for f in (rule.init, jax.jit(rule.init)):
        with pytest.raises(UserError, match=r"dtp needs a chain of nodes.*; a must be fed by y, but is fed by z"):
            f(key(), model.init(key()), x)

    def shortcut(params, x, node=plain):
        h = node("one", dense, params["one"], x)
        return node("two", dense, params["two"], h) + h

    model = Model(layers(one=(3, 3), two=(3, 3)), shortcut)
    with pytest.raises(UserError, match="the outputs must be fed by two, but is fed by one, two"):
        difference_target_propagation(model, mse).init(key(), model.init(key()), x)


@pytest.mark.parametrize("pooled", [0, 1])
def test_pooling_is_an_error_except_after_the_first_node(pooled):
    def apply(params, x, node=plain):
        for i in range(2):
            x = jax.nn.relu(node(f"conv{i}", conv2d(), params[f"conv{i}"], x))
            x = x.reshape(len(x), -1, 4, x.shape[-1]).mean(2) if i == pooled else x
            x = x.reshape(len(x), -1, 2, x.shape[-1])
        return node("out", dense, params["out"], x.reshape(len(x), -1))

    model = Model(layers(conv0=(1, 1, 2, 3), conv1=(1, 1, 3, 3), out=(12, 2)), apply)
    rule, x = difference_target_propagation(model, mse), jnp.ones((2, 4, 4, 2))
    if pooled == 0:
        jax.eval_shape(rule.init, key(), model.init(key()), x)
    else:
        with pytest.raises(UserError, match="between nodes conv1 and out, where 48 units become 12;"):
            rule.init(key(), model.init(key()), x)


@pytest.mark.parametrize("wrong", [{"step": 0.0}, {"inverse_lr": -1.0}, {"noise": float("inf")}, {"scale": 0}])
def test_arguments_out_of_range_are_errors(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be positive and finite"):
        difference_target_propagation(fc((5,), 4), mse, **wrong)


# ---------------------------------------------------------------------------------------- learning


def trained(model, seed, below, step, inverse_lr):
    """Test accuracy, last parameters and rule state after 20 epochs of digits with Adam; `below`: 0 fixes all but out.

    All arguments but the model are traced.
    """
    x, y, test = digits()
    rule = difference_target_propagation(model, cross_entropy, step=step, inverse_lr=inverse_lr)
    optimizer = optax.adam(optax.cosine_decay_schedule(1e-3, 20 * 14))
    weights, start, noise = jax.random.split(key(seed), 3)

    def batch(carry, i):
        params, opt, state = carry
        grads, state, _ = rule.grads(jax.random.fold_in(noise, i), state, params, (x[i % 14], y[i % 14]))
        grads = jax.tree.map(lambda g: below * g, grads) | {"out": grads["out"]}
        updates, opt = optimizer.update(grads, opt)
        return (optax.apply_updates(params, updates), opt, state), None

    params = model.init(weights)
    carry = params, optimizer.init(params), rule.init(start, params, x[0, :1])
    (params, _, state), _ = jax.lax.scan(batch, carry, jnp.arange(20 * 14))
    return (model.apply(params, test[0]).argmax(-1) == test[1]).mean(), params, state


def digits():
    """14 batches of 100 (x, y), and the test split."""
    d = npt.load_dataset("digits")
    x, test = ((jnp.asarray(a, jnp.float32) - d.mean) / d.std for a in (d.train_x, d.test_x))
    return x[:1400].reshape(14, 100, 8, 8, 1), jnp.asarray(d.train_y)[:1400].reshape(14, 100), (test, d.test_y)


@pytest.mark.slow
def test_it_learns_better_than_the_last_layer_alone_because_its_signals_align_with_the_error():
    model = fc((8, 8, 1), 10, width=64, depth=3)
    replicas = jax.jit(jax.vmap(partial(trained, model), (0, 0, None, None)))
    accuracy, params, state = replicas(jnp.array([0, 1, 0, 1]), jnp.array([1.0, 1, 0, 0]), 0.1, 1e-3)
    assert accuracy[:2].min() > 0.94
    assert accuracy[:2].min() > accuracy[2:].max() + 0.2

    params, state = jax.tree.map(lambda a: a[0], (params, state))
    x, y, _ = digits()
    grads = gradient(difference_target_propagation(model, cross_entropy), params, (x[0], y[0]), state)
    exact = backprop(model, cross_entropy).grads(key(), (), params, (x[0], y[0]))[0]
    for name in ("fc0", "fc1"):
        g, e = grads[name]["w"], exact[name]["w"]
        assert (g * e).sum() / jnp.linalg.norm(g) / jnp.linalg.norm(e) > 0.3


def test_state_keeps_its_structure():
    model = fc((5,), 4, width=6, depth=3)
    params, batch = problem(model)
    for activation in ("tanh", "relu", "linear"):
        rule = difference_target_propagation(model, mse, activation=activation)
        state = rule.init(key(), params, batch[0][:1])
        _, after, _ = jax.eval_shape(rule.grads, key(), state, params, batch)
        assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)
        assert jax.tree.map(jnp.result_type, after) == jax.tree.map(jnp.result_type, state)
