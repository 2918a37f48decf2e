"""The core on all networks: the pullback is the gradient, nodes are guarded, examples never mix."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from small import SMALL_NETWORKS

from nodepert import registry
from nodepert.core import Model, adding, backprop, node_shapes, per_example, plain, preactivations, pullback
from nodepert.diagnostics.conformance.common import compiled
from nodepert.models.layers import dense
from nodepert.rules.node import node_perturbation
from nodepert.training.losses import cross_entropy, linear_mse, mse

pytestmark = pytest.mark.usefixtures("quickly_compiled", "strict_dtypes")

NETWORKS = registry.names("network")
QUICK = [name for name in NETWORKS if name != "conv-large"]  # check_model has the same tests of every network


@cache
def task(network, examples=3, shape=(8, 8, 3), classes=4):
    model = registry.make("network", SMALL_NETWORKS.get(network, network), shape, classes)
    random = np.random.default_rng(1)
    x, y = random.normal(size=(examples, *shape)), random.integers(classes, size=examples)
    return model, compiled(model.init)(jax.random.key(1)), jnp.asarray(x, "float32"), jnp.asarray(y, "int32")


def exact_errors(model, params, x, y, loss):
    """dL/da of the batch-mean loss for every node, by differentiating with respect to an added perturbation."""
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), node_shapes(model, params, x))
    return jax.grad(lambda eps: per_example(loss, model.apply(params, x, adding(eps)), y).mean())(zeros)


def close(a, b, rtol=1e-5):
    scale = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(b))
    return all(np.allclose(p, q, rtol, rtol * scale) for p, q in zip(*map(jax.tree.leaves, (a, b)), strict=True))


@pytest.mark.parametrize("network", QUICK)
def test_pullback_of_exact_errors_is_the_gradient(network):
    model, params, x, y = task(network)

    @compiled
    def run(params, x):
        signals = exact_errors(model, params, x, y, cross_entropy)
        wrong = {name: s * (1.01 if name == "out" else 1) for name, s in signals.items()}
        gradient = jax.grad(lambda p: cross_entropy(model.apply(p, x), y).mean())(params)
        return gradient, *(pullback(model, params, x, s) for s in (signals, wrong))

    gradient, found, wrong = run(params, x)
    assert close(found, gradient) and not close(wrong, gradient)


@pytest.mark.parametrize("network", QUICK)
def test_backprop_is_the_gradient_and_reaches_every_parameter(network):
    model, params, x, y = task(network)

    @compiled
    def run(params, x):
        gradient = jax.grad(lambda p: mse(model.apply(p, x), y).mean())(params)
        found, _, info = backprop(model, mse).grads(jax.random.key(0), (), params, (x, y))
        return gradient, found, info, mse(model.apply(params, x), y)

    gradient, grads, info, losses = run(params, x)
    assert close(grads, gradient)
    grads = {name: g for name, g in grads.items() if "head" not in name}  # which only local losses train
    assert network == "lif" or all(leaf.any() for leaf in jax.tree.leaves(grads))  # a spike has no derivative
    assert np.allclose(info.loss, losses)
    assert info.outputs.shape == (3, 4)


@pytest.mark.parametrize("network", QUICK)
def test_examples_do_not_mix(network):
    model, params, x, _ = task(network, examples=4)
    together, alone = compiled(lambda p, x: (model.apply(p, x), [model.apply(p, x[b : b + 1]) for b in range(4)]))(
        params, x
    )
    assert np.allclose(together, np.concatenate(alone), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("network", NETWORKS)
def test_every_registered_network_takes_any_shape_and_class_count(network):
    for shape, classes in [((28, 28, 1), 10), ((7, 5, 2), 200)]:
        model = registry.make("network", SMALL_NETWORKS.get(network, network), shape, classes)
        outputs = jax.eval_shape(lambda m=model, s=shape: m.apply(m.init(jax.random.key(0)), jnp.zeros((2, *s))))
        assert (outputs.shape[0], outputs.shape[-1]) == (2, classes)


def test_networks_are_those_of_the_ancestor():
    def kernels(spec, shape):
        model = registry.make("network", spec, shape, 10)
        params = jax.eval_shape(lambda: model.init(jax.random.key(0)))
        return [params[name]["w"].shape for name in sorted(params)]  # conv0, ..., out

    assert kernels("fc", (28, 28, 1)) == [(784, 500), (500, 500), (500, 10)]
    assert kernels("conv", (32, 32, 3)) == [(3, 3, 3, 32), (3, 3, 32, 32), (3, 3, 32, 32), (16 * 16 * 32, 10)]
    large = [(5, 5, 3, 96), (3, 3, 96, 96), (5, 5, 96, 192), (3, 3, 192, 192), (3, 3, 192, 192), (1, 1, 192, 192)]
    assert kernels("conv-large", (32, 32, 3)) == [*large, (1, 1, 192, 10), (8 * 8 * 10, 10)]


def test_weights_start_xavier_normal_and_biases_at_zero():
    params = registry.make("network", "conv-large", (32, 32, 3), 10).init(jax.random.key(0))
    w = params["conv2"]["w"]
    assert float(w.std()) == pytest.approx((2 / (25 * (96 + 192))) ** 0.5, rel=0.01)
    assert float(jnp.mean(w**4) / w.var() ** 2) == pytest.approx(3, rel=0.02)  # normal, not uniform
    assert all(not p["b"].any() for p in params.values())


# ------------------------------------------------------------------------------------------ guards


def wrapped(how):
    """A two-node model that calls its second node under a transformation."""

    def apply(params, x, node=plain):
        h = node("first", dense, params["first"], x)
        return how(lambda h: node("second", dense, params["second"], h))(h)

    return Model(lambda key: {n: {"w": jnp.eye(2), "b": jnp.zeros(2)} for n in ("first", "second")}, apply)


def scanned(f):
    return lambda h: jax.lax.scan(lambda c, _: (f(c), None), h, None, length=2)[0]


@pytest.mark.parametrize("how", [jax.jit, jax.checkpoint, scanned, jax.vmap], ids=["jit", "checkpoint", "scan", "vmap"])
def test_a_node_under_a_transformation_is_an_error_and_not_a_wrong_gradient(how):
    model, x, y = wrapped(how), jnp.ones((3, 2)), jnp.zeros((3, 2))
    rule = node_perturbation(model, linear_mse)
    for grads in (rule.grads, jax.jit(rule.grads)):
        with pytest.raises(ValueError, match="node 'second' is called under"):
            grads(jax.random.key(0), (), model.init(jax.random.key(0)), (x, y))


def test_the_whole_model_may_be_transformed_from_outside():
    model, x, y = wrapped(lambda f: f), jnp.ones((3, 2)), jnp.zeros((3, 2))
    rule, params = node_perturbation(model, linear_mse), model.init(jax.random.key(0))
    alone, _, _ = rule.grads(jax.random.key(5), (), params, (x, y))
    many, _, _ = jax.jit(jax.vmap(rule.grads, (0, None, None, None)))(
        jnp.stack([jax.random.key(4), jax.random.key(5)]), (), params, (x, y)
    )
    assert close(jax.tree.map(lambda g: g[1], many), alone)


def test_two_nodes_of_one_name_are_an_error_that_names_them():
    def apply(params, x, node=plain):
        return node("twin", dense, params, node("twin", dense, params, x))

    model = Model(lambda key: {"w": jnp.eye(2), "b": jnp.zeros(2)}, apply)
    with pytest.raises(ValueError, match="two nodes are named 'twin'"):
        preactivations(model, model.init(jax.random.key(0)), jnp.ones((1, 2)))


@pytest.mark.parametrize("rule", [backprop, node_perturbation])
def test_a_scalar_loss_is_an_error_that_says_how_to_mend_it(rule):
    model, params, x, y = task("fc")
    with pytest.raises(ValueError, match=r"one number per example, shape \(3,\).*returned shape \(\)"):
        rule(model, lambda outputs, y: mse(outputs, y).mean()).grads(jax.random.key(0), (), params, (x, y))


def test_a_model_without_nodes_or_with_examples_elsewhere_than_first_is_an_error():
    params, x, y = {"w": jnp.eye(2), "b": jnp.zeros(2)}, jnp.ones((3, 2)), jnp.zeros((3, 2))

    def through(apply):
        rule = node_perturbation(Model(lambda key: params, apply), linear_mse)
        return rule.grads(jax.random.key(0), (), params, (x, y))

    with pytest.raises(ValueError, match="has no nodes"):
        through(lambda p, x, node=plain: dense(p, x))
    with pytest.raises(ValueError, match=r"node 'time' has shape \(2, 3\); its first axis must be the 3 examples"):
        through(lambda p, x, node=plain: node("time", lambda p, h: (h @ p["w"]).T, p, x).T)


# ------------------------------------------------------------------------------------------ losses


DIFFERENTIABLE = [name for name in registry.names("loss") if name != "zero-one"]


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_losses_are_right_for_many_draws_of_a_batch(name):
    """More than 32,768 rows under vmap: there jax 0.10 compiles the textbook cross-entropy wrongly on CPU."""
    loss = registry.resolve("loss", name)
    outputs = jnp.asarray(np.random.default_rng(0).normal(size=(500, 100, 10)), "float32")
    y = jnp.arange(100) % 10
    for targets in (y, jax.nn.one_hot(y, 10)):
        run = jax.jit(jax.vmap(lambda o, t=targets: (loss(o, t), jax.jvp(lambda o: loss(o, t), (o,), (o,))[1])))
        together = run(outputs)
        parts = [run(part) for part in jnp.split(outputs, 5)]  # 10,000 rows each
        assert close(together, jax.tree.map(lambda *p: np.concatenate(p), *parts))


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_estimates_are_right_for_many_draws_of_a_batch(name):
    """The same where the loss is fused with what is made of it."""
    model, params, x, _ = task("fc(width=5, depth=2)", 8, (6,), 3)
    rule, batch = (
        registry.make("rule", "np(difference=jvp)", model, registry.resolve("loss", name)),
        (x, jnp.arange(8) % 3),
    )
    run = jax.jit(jax.vmap(lambda key: rule.grads(key, (), params, batch)[0]))
    keys = jax.random.split(jax.random.key(2), 20_000)
    parts = [run(part) for part in jnp.split(jax.random.clone(keys), 20)]
    assert close(run(keys), jax.tree.map(lambda *p: np.concatenate(p), *parts))


def test_losses_are_their_formulas():
    outputs = jnp.array([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]])
    y, one_hot = jnp.array([2, 1]), jnp.array([[0.0, 0, 1], [0, 1, 0]])
    sigmoid = 1 / (1 + jnp.exp(-outputs))
    assert close(mse(outputs, y), ((sigmoid - one_hot) ** 2).sum(1) / 3)
    assert close(linear_mse(outputs, y), ((outputs - one_hot) ** 2).sum(1) / 3)
    exponentials = jnp.exp(outputs)
    softmax = exponentials / exponentials.sum(1)[:, None]
    assert close(cross_entropy(outputs, y), -jnp.log(jnp.array([softmax[0, 2], softmax[1, 1]])))
    for loss in (mse, linear_mse, cross_entropy):
        assert close(loss(outputs, one_hot), loss(outputs, y))  # values or classes
        check_grads(lambda o, loss=loss: loss(o, y), (outputs,), order=1, modes=["rev"])


def test_the_loss_is_computed_in_float32_whatever_the_model_computes_in():
    outputs = jnp.array([[1.0, 1.0 + 2**-7]], jnp.bfloat16)
    losses = per_example(cross_entropy, outputs, jnp.array([0]))
    assert losses.dtype == jnp.float32
    assert float(losses[0]) == pytest.approx(float(jnp.log(1 + jnp.exp(2**-7))), rel=1e-6)
