"""Unmodified flax and Equinox networks: nodes where layers are, exact gradients through them, refusals elsewhere."""

import re
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from estimates import check_expected, drawn
from flax import linen as nn
from flax import nnx
from flax.core import freeze

import nodepert as npt
from nodepert.core import Model, adding, backprop, node_shapes, preactivations, pullback
from nodepert.diagnostics.conformance.common import compiled
from nodepert.errors import UserError
from nodepert.models.adapters.anything import model_of
from nodepert.models.adapters.equinox import from_equinox, layers, with_params
from nodepert.models.adapters.flax import from_flax
from nodepert.training.losses import cross_entropy

pytestmark = pytest.mark.usefixtures("quickly_compiled")

IMAGES = jnp.asarray(np.random.default_rng(1).normal(size=(5, 6, 6, 1)), jnp.float32)
VECTORS, TOKENS = IMAGES[:, 0, :4, 0], IMAGES[:, :3, :4, 0]
Y = jnp.array([0, 2, 1, 1, 0])


class Case(NamedTuple):
    model: Model
    x: jax.Array
    nodes: set[str]
    forward: Callable[[Any], jax.Array]  # params -> outputs, by the framework itself
    gradient: Callable[[Any], Any]  # params -> gradient in the shape of params, by the framework itself


def mean_loss(outputs):
    return cross_entropy(outputs, Y).mean()


# ------------------------------------------------------------------------------------- linen networks


class Compact(nn.Module):
    @nn.compact
    def __call__(self, x, train=True):
        x = nn.relu(nn.Conv(3, (3, 3))(x))
        x = nn.Dropout(0.5, deterministic=not train)(nn.avg_pool(x, (2, 2), (2, 2)))
        return nn.Dense(3)(x.reshape(len(x), -1))


class Block(nn.Module):
    def setup(self):
        self.conv, self.norm = nn.Conv(4, (3, 3)), nn.LayerNorm()

    def __call__(self, x):
        return nn.relu(self.norm(self.conv(x)))


class Scaled(nn.Module):
    """A user's own leaf: it owns a parameter, computes with it in setup, and calls a method of its own."""

    def setup(self):
        self.gain = jnp.exp(self.param("log_gain", nn.initializers.zeros, (16,)))

    def scale(self, x):
        return x * self.gain

    def __call__(self, x):
        return self.scale(x)


class Setup(nn.Module):
    def setup(self):
        self.block, self.inner, self.scaled, self.out = Block(), nn.Dense(16), Scaled(), nn.Dense(3)

    def __call__(self, x):
        h = self.scaled(nn.avg_pool(self.block(x), (3, 3), (3, 3)).reshape(len(x), -1))
        return self.out(self.inner(nn.tanh(self.inner(h))))


def linen(module, x, nodes, **kwargs):
    def forward(params):
        return module.apply({"params": params}, x, **kwargs)

    gradient = jax.grad(lambda p: mean_loss(forward(p)))
    return Case(from_flax(module, x.shape[1:], **kwargs), x, nodes, forward, gradient)


# --------------------------------------------------------------------------------------- nnx networks


class NnxMlp(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.List([nnx.Linear(4, 4, rngs=rngs), nnx.Linear(4, 4, rngs=rngs)])
        self.tail = nnx.Sequential(nnx.LayerNorm(4, rngs=rngs), nnx.tanh, nnx.Linear(4, 3, rngs=rngs))
        self.again = self.hidden[1]  # one module in two places

    def __call__(self, x):
        assert all(isinstance(layer, nnx.Linear) and layer.out_features == 4 for layer in self.hidden)
        for layer in self.hidden:
            x = nnx.relu(layer(x))
        return self.tail(self.again(x))


class NnxBlock(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(1, 3, (3, 3), rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x, train):
        return self.drop(nnx.relu(self.conv(x)), deterministic=not train)


class NnxCnn(nnx.Module):
    def __init__(self, *, rngs):
        self.blocks = nnx.Dict(first=NnxBlock(rngs))
        self.out = nnx.Linear(27, 3, rngs=rngs)

    def __call__(self, x, train=True):
        x = nnx.avg_pool(self.blocks["first"](x, train), (2, 2), (2, 2))
        return self.out(x.reshape(len(x), -1))


def of_nnx(module, x, nodes, **kwargs):
    def network(params):
        copy = nnx.clone(module) if isinstance(module, nnx.Module) else module(rngs=nnx.Rngs(5))
        nnx.update(copy, params)
        return copy

    def gradient(params):
        return nnx.to_pure_dict(nnx.state(nnx.grad(lambda m: mean_loss(m(x, **kwargs)))(network(params))))

    return Case(from_flax(module, x, **kwargs), x, nodes, lambda p: network(p)(x, **kwargs), gradient)


# ----------------------------------------------------------------------------------- equinox networks


class EqxCnn(eqx.Module):
    conv: eqx.nn.Conv2d
    act: eqx.nn.PReLU
    drop: eqx.nn.Dropout
    out: eqx.nn.Linear

    def __init__(self, key):
        k1, k2 = jax.random.split(key)
        self.conv, self.act = eqx.nn.Conv2d(1, 3, 3, padding=1, key=k1), eqx.nn.PReLU()
        self.drop, self.out = eqx.nn.Dropout(0.5), eqx.nn.Linear(108, 3, key=k2)

    def __call__(self, x):  # (H, W, C), one example
        assert isinstance(self.conv, eqx.nn.Conv2d) and self.conv.out_channels == 3
        h = self.act(self.conv(jnp.moveaxis(x, -1, 0), key=None))
        return self.out(jnp.ravel(self.drop(h)))


class Attending(eqx.Module):
    """Layers under vmaps of the network's own, one of them on what is the same for all examples."""

    place: eqx.nn.Embedding
    attention: eqx.nn.MultiheadAttention
    mlp: eqx.nn.MLP

    def __init__(self, key):
        k1, k2, k3 = jax.random.split(key, 3)
        self.place = eqx.nn.Embedding(3, 4, key=k1)
        self.attention = eqx.nn.MultiheadAttention(2, 4, key=k2)
        self.mlp = eqx.nn.MLP(4, 3, 4, 2, activation=eqx.nn.PReLU(), key=k3)  # one slope per unit

    def __call__(self, x):
        h = x + jax.vmap(self.place)(jnp.arange(3))
        h = h + self.attention(h, h, h)
        return eqx.filter_vmap(self.mlp)(h).sum(0)


def of_eqx(factory, x, nodes, instance=True):
    module = eqx.nn.inference_mode(factory(jax.random.key(4)))

    def gradient(params):
        grads = eqx.filter_grad(lambda m: mean_loss(jax.vmap(m)(x)))(with_params(module, params))
        return {name: layer for name, layer in layers(eqx, grads)[0] if name}

    model = from_equinox(module if instance else factory)
    return Case(model, x, nodes, lambda p: jax.vmap(with_params(module, p))(x), gradient)


ATTENTION = {f"attention.{p}_proj" for p in ("query", "key", "value", "output")}
CASES: dict[str, Callable[[], Case]] = {
    "linen-compact": lambda: linen(Compact(), IMAGES, {"Conv_0", "Dense_0"}, train=False),
    "linen-setup": lambda: linen(Setup(), IMAGES, {"block/conv", "block/norm", "scaled", "inner", "inner:1", "out"}),
    "nnx-mlp": lambda: of_nnx(
        NnxMlp(nnx.Rngs(0)), VECTORS, {"hidden.0", "again", "again:1", "tail.layers.0", "tail.layers.2"}),
    "nnx-cnn": lambda: of_nnx(NnxCnn, IMAGES, {"blocks.first.conv", "out"}, train=False),
    "eqx-mlp": lambda: of_eqx(
        lambda key: eqx.nn.MLP(4, 3, 4, 2, key=key), VECTORS, {"layers.0", "layers.1", "layers.2"}),
    "eqx-cnn": lambda: of_eqx(
        lambda key: eqx.nn.inference_mode(EqxCnn(key)), IMAGES, {"conv", "act", "out"}, instance=False),
    "eqx-attending": lambda: of_eqx(
        Attending, TOKENS, {"place", *ATTENTION, "mlp.layers.0", "mlp.layers.1", "mlp.layers.2", "mlp.activation",
                            "mlp.activation:1"}),
}  # fmt: skip


@pytest.fixture(scope="module")
def case():
    made: dict[str, tuple[Case, Any]] = {}

    def get(name):
        if name not in made:
            made[name] = (case := CASES[name]()), compiled(case.model.init)(jax.random.key(1, impl="rbg"))
        return made[name]

    return get


def close(a, b, rtol=1e-6):
    scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(b))
    return all(bool(jnp.allclose(p, q, rtol, rtol * scale)) for p, q in zip(*map(jax.tree.leaves, (a, b)), strict=True))


@pytest.mark.parametrize("name", CASES)
def test_the_outputs_are_unchanged_and_the_layers_are_nodes(case, name):
    (model, x, nodes, forward, gradient), params = case(name)
    shapes = node_shapes(model, params, x)
    assert set(shapes) == nodes
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

    @compiled
    def run(params):
        errors = jax.grad(lambda eps: mean_loss(model.apply(params, x, adding(eps))))(zeros)
        grads, _, _ = backprop(model, cross_entropy).grads(jax.random.key(0), (), params, (x, Y))
        return model.apply(params, x), forward(params), grads, pullback(model, params, x, errors), gradient(params)

    outputs, wanted_outputs, by_backprop, by_pullback, wanted = run(params)
    assert close(outputs, wanted_outputs)
    assert jax.tree.structure(wanted) == jax.tree.structure(params)
    assert close(by_backprop, wanted)
    assert close(by_pullback, wanted)


@pytest.mark.parametrize("name", ["linen-setup", "nnx-mlp", "nnx-cnn", "eqx-attending"])
def test_whole_models_may_be_transformed(case, name):
    (model, x, _, _, _), params = case(name)

    @compiled
    def run(params, x):  # arguments: XLA before jaxlib 0.9 folds constant weights wrongly on CPU
        def noisy(eps):
            return model.apply(params, x, adding(eps))

        one = jax.tree.map(lambda a: 0.1 * a, preactivations(model, params, x))
        out, slope = jax.jvp(noisy, (one,), (one,))
        two = jax.vmap(noisy)(jax.tree.map(lambda a: jnp.stack([a, -a]), one))  # two draws
        alone = jnp.concatenate([model.apply(params, x[b : b + 1]) for b in range(2)])
        return (out, slope, model.apply(params, x)[:2]), (two[0], jax.linearize(noisy, one)[1](one), alone)

    wanted, got = run(params, x)
    assert close(got, wanted, 1e-5)


def test_methods_of_a_layer_are_nodes_and_inputs_may_be_integers():
    class Linen(nn.Module):
        @nn.compact
        def __call__(self, x):
            embed = nn.Embed(3, 4)
            return embed.attend(embed(x))

    class Nnx(nnx.Module):
        def __init__(self, rngs):
            self.embed = nnx.Embed(3, 4, rngs=rngs)

        def __call__(self, x):
            return self.embed.attend(self.embed(x))

    for module in (Linen(), Nnx(nnx.Rngs(0))):
        model = from_flax(module, Y)
        params = model.init(jax.random.key(0))
        embedding = next(iter(jax.tree.leaves(params)))
        layer = next(iter(params))  # "Embed_0" or "embed"
        assert set(node_shapes(model, params, Y)) == {layer, f"{layer}.attend"}
        assert close(model.apply(params, Y), embedding[Y] @ embedding.T)


def test_init_draws_new_weights_for_a_function_and_returns_those_of_an_instance(case):
    for name in ("nnx-cnn", "eqx-cnn"):
        init = case(name)[0].model.init
        many = compiled(jax.vmap(init))(jax.random.split(jax.random.key(3, impl="rbg")))
        assert all(bool((leaf[0] != leaf[1]).any()) for leaf in jax.tree.leaves(many) if leaf.std() > 0)
        assert jax.tree.map(lambda p: p[1].shape, many) == jax.tree.map(jnp.shape, case(name)[1])
    for name in ("nnx-mlp", "eqx-mlp"):
        init = case(name)[0].model.init
        first, second = jax.tree.leaves(init(jax.random.key(0))), jax.tree.leaves(init(jax.random.key(1)))
        assert all(bool((a == b).all()) and a is not b for a, b in zip(first, second, strict=True))


TRAINED = [(name, spec) for name in CASES if name != "eqx-attending" for spec in ("sgd", "np(samples=3)")]
TRAINED += [(name, "np(samples=3, difference=jvp)") for name in ("linen-compact", "nnx-mlp", "eqx-cnn")]


@pytest.mark.parametrize(("name", "spec"), TRAINED)
def test_rules_train_them(case, name, spec):
    (model, x, _, _, _), params = case(name)
    rule, optimizer = npt.make_rule(spec, model, cross_entropy), optax.adam(2e-2)

    @compiled
    def train(params):
        def step(carry, key):
            params, state, memory = carry
            grads, state, info = rule.grads(key, state, params, (x, Y))
            updates, memory = optimizer.update(grads, memory, params)
            return (optax.apply_updates(params, updates), state, memory), info.loss.mean()

        start = params, rule.init(jax.random.key(8), params, x), optimizer.init(params)
        return jax.lax.scan(step, start, jax.random.split(jax.random.key(2), 100))[1]

    losses = train(params)
    assert losses[-10:].mean() < 0.9 * losses[0]


@pytest.mark.parametrize("name", ["linen-compact", "nnx-mlp", "eqx-attending"])
def test_node_perturbation_is_unbiased_through_an_adapter(case, name, draws=4000):
    """A scale error of 30% is found."""
    (model, x, _, _, gradient), params = case(name)
    rule = npt.make_rule("np(difference=jvp)", model, cross_entropy)
    found, exact = drawn(rule, params, (x, Y), draws, per_pass=None), compiled(gradient)(params)
    check_expected(found, exact)
    with pytest.raises(AssertionError, match="is a factor or a sign wrong"):
        check_expected(jax.tree.map(lambda g: 1.3 * g, found), exact)


# ------------------------------------------------------------------------------------------- trained


VERDICTS = {"np": "unbiased", "fa": "biased", "dfa": "biased", "sgd": "exact"}


@pytest.mark.parametrize(
    ("name", "rules"),
    [("linen-compact", VERDICTS), pytest.param("nnx-mlp", ["fa", "sgd"], marks=pytest.mark.slow),
     ("eqx-mlp", ["dfa", "sgd"]), pytest.param("eqx-cnn", ["np", "fa"], marks=pytest.mark.slow)],
)  # fmt: skip
def test_rules_are_checked_on_them(case, name, rules):
    it, _ = case(name)
    for rule, verdict in ((rule, VERDICTS[rule]) for rule in rules):
        found = npt.check(it.model, rule, "cross-entropy", (it.x, Y), draws=2000 if rule == "np" else 300)
        assert (found.verdict, found.agrees) == (verdict, True), f"{rule}: {found.rows}"
        assert {row["node"] for row in found.rows[:-1]} == it.nodes


def test_a_model_gives_back_its_own_kind_of_object(case):
    for name in ("linen-setup", "nnx-mlp", "eqx-mlp"):
        (model, x, _, _, _), params = case(name)
        made = model.module(params)
        kind = name.partition("-")[0]
        outputs = Setup().apply(made, x) if kind == "linen" else made(x) if kind == "nnx" else jax.vmap(made)(x)
        assert close(outputs, model.apply(params, x))
        assert isinstance(made, {"linen": dict, "nnx": nnx.Module, "eqx": eqx.Module}[kind])
        again = from_flax(made, x) if kind == "nnx" else None  # its parameters are copies
        assert again is None or close(again.init(jax.random.key(0)), params)


def test_whatever_a_user_calls_a_network_is_a_model():
    fc = npt.make_model("fc(width=3)", (4,), 3)
    mlp = eqx.nn.MLP(4, 3, width_size=8, depth=1, key=jax.random.key(0))
    assert model_of(fc, (4,), 3) is fc and model_of(lambda shape, classes: fc, (4,), 3) is fc
    dense = nn.Dense(3)
    for network in (dense, lambda shape, classes: dense, nnx.Linear(4, 3, rngs=nnx.Rngs(0)), mlp):
        model = model_of(network, (4,), 3)
        assert model.apply(model.init(jax.random.key(0)), VECTORS).shape == (5, 3)
    with pytest.raises(UserError, match=r"a network is a Model, a Flax or Equinox module, or a factory.*; got int"):
        model_of(3, (4,), 3)


def test_trained_parameters_are_put_back_into_the_module(case):
    (model, x, _, _, _), params = case("nnx-mlp")
    module, halved = NnxMlp(nnx.Rngs(1)), jax.tree.map(lambda p: p / 2, params)
    nnx.update(module, halved)
    assert close(module(x), model.apply(halved, x))
    (model, x, _, _, _), params = case("eqx-mlp")
    module, halved = eqx.nn.MLP(4, 3, 4, 2, key=jax.random.key(2)), jax.tree.map(lambda p: p / 2, params)
    assert close(jax.vmap(with_params(module, halved))(x), model.apply(halved, x))


# ------------------------------------------------------------------------------------------ refusals


class LinenCalls(nn.Module):
    """A network that does something that an adapter must refuse, as given by `how`."""

    how: Callable

    @nn.compact
    def __call__(self, x):
        return self.how(self, x)


class NnxCalls(nnx.Module):
    def __init__(self, how, **parts):
        self.how = how
        for name, part in parts.items():
            setattr(self, name, part)

    def __call__(self, x):
        return self.how(self, x)


class EqxCalls(eqx.Module):
    how: Callable = eqx.field(static=True)
    parts: dict

    def __call__(self, x):
        return self.how(x, **self.parts)


def refused_linen(how):
    from_flax(LinenCalls(how), (4,))


def refused_nnx(how, **parts):
    from_flax(NnxCalls(how, **parts), (4,))


def refused_eqx(how, **parts):
    model = from_equinox(EqxCalls(how, parts))
    jax.eval_shape(model.apply, model.init(jax.random.key(0)), VECTORS)


def own_param(module, x):
    return nn.Dense(4)(x) * module.param("gain", nn.initializers.ones, (4,))


def tied(module, x):
    embed = nn.Embed(4, 4)
    return embed(jnp.zeros(len(x), int)) + x @ embed.embedding


def linear(inputs=4):
    return eqx.nn.Linear(inputs, 4, key=jax.random.key(0))


def centred(h):
    return h - h.mean(0)


MIXES = "this network mixes the examples of a batch: .*LayerNorm and GroupNorm normalise each example"
R, KEY = nnx.Rngs, lambda: jax.random.key(0)
REFUSALS = {
    "linen batch norm": (lambda: refused_linen(lambda m, x: nn.BatchNorm(use_running_average=False)(x)),
                         "'BatchNorm_0' mixes the examples of a batch"),
    "linen dropout": (lambda: from_flax(Compact(), (6, 6, 1)), "'Dropout_0' draws random numbers.*train=False"),
    "linen parameter beside modules": (lambda: refused_linen(own_param), "parameter 'gain' is used outside a layer"),
    "linen parameter read elsewhere": (lambda: refused_linen(tied), "parameter .*Embed_0.*embedding.* outside a la"),
    "linen spectral norm": (lambda: refused_linen(lambda m, x: nn.SpectralNorm(nn.Dense(4))(x, update_stats=False)),
                            "must be called with one array"),
    "linen cache": (lambda: refused_linen(lambda m, x: nn.Dense(3)(x + m.variable("cache", "a", jnp.zeros, 4).value)),
                    "'this module' has state in the collection 'cache'"),
    "linen jit": (lambda: refused_linen(lambda m, x: nn.jit(nn.Dense)(4)(x)), "is called under jit"),
    "linen remat": (lambda: refused_linen(lambda m, x: nn.remat(nn.Dense)(4)(x)), "is called under jit"),
    "linen borrowed": (lambda: refused_linen(lambda m, x: nn.WeightNorm(nn.Dense(4))(x)),
                       "uses parameters of another module"),
    "linen batch axis": (lambda: refused_linen(lambda m, x: nn.Dense(4)(x.T.reshape(2, -1).T)),
                         "input of layer 'Dense_0' has shape .* must be the 2 examples"),
    "linen position": (lambda: refused_linen(lambda m, x: x + nn.Dense(4)(jnp.ones((2, 4)))[:1]),
                       r"input of layer 'Dense_0' has shape \(2, 4\)"),
    "linen two inputs": (lambda: refused_linen(lambda m, x: nn.Dense(4)(inputs=x)), "called with one array"),
    "linen no example": (lambda: from_flax(nn.Dense(3)), "from_flax needs an example.*28, 28, 1"),
    "linen class": (lambda: from_flax(Compact, (4,)), "an instance of the linen module"),
    "linen without layers": (lambda: refused_linen(lambda m, x: x), "has no nodes"),
    "linen outputs": (lambda: refused_linen(lambda m, x: (nn.Dense(4)(x), x)), "network returns tuple"),
    "nnx batch norm": (lambda: refused_nnx(lambda m, x: m.norm(x), norm=nnx.BatchNorm(4, rngs=R(0))),
                       "'norm' mixes the examples"),
    "nnx dropout": (lambda: refused_nnx(lambda m, x: m.lin(m.drop(x)), lin=nnx.Linear(4, 4, rngs=R(0)),
                                        drop=nnx.Dropout(0.5, rngs=R(0))),
                    r"'drop.rngs.count' draws random numbers.*module.eval\(\)"),
    "nnx parameter beside modules": (lambda: refused_nnx(lambda m, x: m.lin(x), lin=nnx.Linear(4, 4, rngs=R(0)),
                                                         gain=nnx.Param(jnp.ones(4))), "parameter 'gain' is used"),
    "nnx parameter read elsewhere": (lambda: refused_nnx(lambda m, x: m.lin(x) @ m.lin.kernel[...],
                                                         lin=nnx.Linear(4, 4, rngs=R(0))), "parameter 'lin.kernel' is"),
    "nnx counter": (lambda: refused_nnx(count, lin=nnx.Linear(4, 4, rngs=R(0)), calls=nnx.Variable(jnp.array(0))),
                    "'calls' is state that a call changes"),
    "nnx jit": (lambda: refused_nnx(lambda m, x: jax.jit(lambda x: m.lin(x))(x), lin=nnx.Linear(4, 4, rngs=R(0))),
                "'lin' is called under jit"),
    "nnx other function": (lambda: from_flax(lambda rngs: 3), "must return an nnx module; it returned int"),
    "neither": (lambda: from_flax(3), "a linen module, an nnx module or a function"),
    "eqx batch norm": (lambda: refused_eqx(lambda x, norm: norm(x), norm=eqx.nn.BatchNorm(4, "batch", mode="batch")),
                       r"'parts.norm' \(BatchNorm\) mixes the examples"),
    "eqx spectral norm": (lambda: refused_eqx(lambda x, norm: norm(x), norm=eqx.nn.SpectralNorm(
                              linear(), "weight", key=jax.random.key(0))), "'parts.norm' .* has state"),
    "linen mixing": (lambda: refused_linen(lambda m, x: nn.Dense(4)(centred(nn.Dense(4)(x)))), MIXES),
    "linen mixing outputs": (lambda: refused_linen(lambda m, x: nn.softmax(nn.Dense(4)(x), 0)), MIXES),
    "nnx mixing": (lambda: refused_nnx(lambda m, x: m.lin(centred(x)), lin=nnx.Linear(4, 4, rngs=R(0))), MIXES),
    "nnx batch norm without parameters": (
        lambda: refused_nnx(lambda m, x: m.lin(m.norm(x)), lin=nnx.Linear(4, 4, rngs=R(0)), norm=nnx.BatchNorm(
            4, use_scale=False, use_bias=False, rngs=R(0))), "'norm' mixes the examples"),
    "nnx without example": (
        lambda: jax.eval_shape(from_flax(NnxCalls(lambda m, x: m.norm(x), norm=nnx.BatchNorm(4, rngs=R(0)))).apply,
                               {"norm": {"scale": jnp.ones(4), "bias": jnp.ones(4)}}, VECTORS),
        "'norm' mixes the examples.*use_running_average=True"),
    "eqx dropout": (lambda: refused_eqx(lambda x, drop: drop(x), drop=eqx.nn.Dropout(0.5)),
                    r"'parts.drop' \(Dropout\) draws random numbers .*inference_mode\(module\)"),
    "eqx axis name": (lambda: refused_eqx(lambda x, lin: lin(x) - jax.lax.pmean(x, "batch"), lin=linear()),
                      "this module mixes the examples of a batch.*unbound axis name: batch"),
    "eqx dropout in attention": (lambda: refused_eqx(lambda x, a: x, a=eqx.nn.MultiheadAttention(
        2, 4, dropout_p=0.1, key=KEY())), "'parts.a.dropout' .* draws random numbers"),
    "eqx shared": (lambda: refused_eqx(lambda x, pair: pair()(x), pair=eqx.nn.Shared(
                       (linear(), linear()), lambda p: p[0].weight, lambda p: p[1].weight)), "shares arrays"),
    "eqx parameter beside modules": (lambda: refused_eqx(lambda x, mix: x, mix=EqxCalls(abs, {
                                         "a": linear(), "gain": jnp.ones(4)})), "parameter 'parts.mix.parts.gain' is"),
    "eqx parameter read elsewhere": (lambda: refused_eqx(lambda x, lin: lin(x) @ lin.weight, lin=linear()),
                                     "parameter 'parts.lin.weight' is used"),
    "eqx jit": (lambda: refused_eqx(lambda x, lin: eqx.filter_jit(lin)(x), lin=linear()), "parts.lin' is called under"),
    "eqx remat": (lambda: refused_eqx(lambda x, lin: jax.checkpoint(lin)(x), lin=linear()), "'parts.lin' is called un"),
    "eqx jvp": (lambda: refused_eqx(lambda x, lin: jax.jvp(lin, (x,), (x,))[1], lin=linear()), "parts.lin' is called "),
    "eqx scan": (lambda: refused_eqx(lambda x, mlp: mlp(x), mlp=eqx.nn.MLP(4, 3, 4, 3, scan=True, key=KEY())),
                 "'parts.mlp.layers.1' is called under jit, scan"),
    "eqx two inputs": (lambda: refused_eqx(lambda x, cell: cell(x, x), cell=eqx.nn.GRUCell(4, 4, key=KEY())),
                       "several arrays of activity"),
    "eqx outputs": (lambda: refused_eqx(lambda x, lin: (lin(x), x), lin=linear()), "network returns tuple"),
    "eqx neither": (lambda: from_equinox(3), "takes an equinox.Module or a function"),
    "eqx other function": (lambda: from_equinox(lambda key: 3), "must return an equinox.Module; it returned int"),
}  # fmt: skip


def count(module, x):
    module.calls[...] += 1
    return module.lin(x)


@pytest.mark.parametrize("what", REFUSALS)
def test_what_would_give_wrong_credit_is_refused(what):
    attempt, message = REFUSALS[what]
    with pytest.raises(UserError, match=message):
        attempt()


# --------------------------------------------------------------------- what looks like mixing, and is not


def averaged_linen(m, x):
    return nn.Dense(3)(nn.relu(nn.BatchNorm(use_running_average=True)(nn.Dense(4)(x))))


def averaged_nnx(**how):
    parts = {"lin": nnx.Linear(4, 4, rngs=R(0)), "norm": nnx.BatchNorm(4, rngs=R(1), **how)}
    module = NnxCalls(lambda m, x: m.lin(nnx.relu(m.norm(m.lin(x)))), **parts)
    module.norm.mean[...], module.norm.var[...] = jnp.full(4, 0.3), jnp.full(4, 4.0)
    return module


def test_batch_norm_on_its_running_averages_is_a_layer_like_others():
    linen_module = LinenCalls(averaged_linen)
    variables = linen_module.init(KEY(), VECTORS)
    variables = {**variables, "batch_stats": jax.tree.map(lambda a: a + 2.0, variables["batch_stats"])}  # as trained
    model = from_flax(linen_module.bind(variables), VECTORS)
    params = model.init(jax.random.key(5))
    assert close(model.apply(params, VECTORS), linen_module.apply(variables, VECTORS))
    assert set(preactivations(model, params, VECTORS)) == {"Dense_0", "BatchNorm_0", "Dense_1"}
    new = from_flax(linen_module, (4,))  # with the averages of init
    assert close(new.apply(params, VECTORS), linen_module.apply(linen_module.init(KEY(), VECTORS) | {"params": params},
                                                                VECTORS))  # fmt: skip
    evaluated = averaged_nnx()
    evaluated.eval()
    for how in (None, {}, {"use_scale": False, "use_bias": False}):
        module = evaluated if how is None else averaged_nnx(use_running_average=True, **how)
        model = from_flax(module)
        params = model.init(KEY())
        assert close(model.apply(params, VECTORS), module(VECTORS))
        grads, _, _ = backprop(model, cross_entropy).grads(KEY(), (), params, (VECTORS, Y))
        assert all(leaf.any() for leaf in jax.tree.leaves(grads))


def test_a_linen_module_must_be_bound_to_all_that_it_uses():
    module = LinenCalls(averaged_linen)
    variables = module.init(KEY(), VECTORS)
    params, averages = variables["params"], variables["batch_stats"]
    other = {**params, "Dense_0": {"kernel": jnp.ones((4, 5)), "bias": jnp.ones(5)}}
    for lacking, message in (
        ({"params": params}, "'BatchNorm_0/mean' of the collection 'batch_stats' is absent; it must have shape (4,)"),
        ({"batch_stats": averages}, "of the collection 'params' is absent"),
        ({**variables, "batch_stats": {"BatchNorm_0": {"mean": jnp.zeros(4)}}}, "'BatchNorm_0/var' of the collection"),
        ({**variables, "params": other}, "of shape (5,); it must have shape (3,). Bind all variables"),
    ):
        with pytest.raises(UserError, match=re.escape(message)):
            from_flax(module.bind(lacking), VECTORS)
    from_flax(module.bind(freeze(variables)), VECTORS)


def test_a_mean_over_the_first_axis_of_an_equinox_network_is_one_over_features():
    model = from_equinox(EqxCalls(lambda x, lin: lin(centred(x)), {"lin": linear()}))
    rule = npt.make_rule("sgd", model, cross_entropy)
    rule.grads(KEY(), (), model.init(KEY()), (VECTORS, Y))


def test_dropout_that_is_off_is_no_layer_of_an_equinox_network():
    for off in (eqx.nn.inference_mode(eqx.nn.Dropout(0.5)), eqx.nn.Dropout(0.0)):
        refused_eqx(lambda x, lin, drop: drop(lin(x)), lin=linear(), drop=off)


@pytest.mark.parametrize(("library", "adapt"), [("flax", lambda: from_flax(Compact(), (6, 6, 1))),
                                                ("equinox", lambda: from_equinox(linear()))])  # fmt: skip
def test_a_missing_library_is_named(library, adapt, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(UserError, match=rf"from_{library} needs {library}: pip install 'nodepert\[{library}\]'"):
        adapt()
