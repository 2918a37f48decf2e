"""Losses and networks of the user's own that mix examples are found at their first use; no sound one is."""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import nodepert as npt
from nodepert import registry
from nodepert.contract import mixing, tested
from nodepert.core import Model, per_example, plain

pytestmark = pytest.mark.usefixtures("quickly_compiled")

X = jnp.asarray(np.random.default_rng(0).normal(size=(5, 4)), jnp.float32)
VALUES, LABELS = jnp.arange(5.0), jnp.arange(5) % 3
MIXING_LOSSES = {
    "broadcast": (1, VALUES, lambda o, y: jnp.square(o - y).mean(-1)),
    "centred outputs": (3, LABELS, lambda o, y: jnp.square(o - o.mean(0)).mean(-1)),
    "running sum": (1, VALUES, lambda o, y: jnp.cumsum(o[:, 0]) - y),
    "largest target": (1, VALUES, lambda o, y: jnp.square(o[:, 0] - y) / jnp.abs(y).max()),
    "class frequencies": (3, LABELS, lambda o, y: o[:, 0] * (y[:, None] == y).mean(1)),
    "mean added": (3, LABELS, lambda o, y: o[:, 0] + 0.01 * o.mean()),
    "ranks": (3, LABELS, lambda o, y: jnp.argsort(o[:, 0]).astype(float)),
}


def outputs_of(n):
    return jnp.asarray(np.random.default_rng(1).normal(size=(5, n)), jnp.float32)


@pytest.mark.parametrize("name", MIXING_LOSSES)
def test_a_loss_that_mixes_examples_is_an_error_at_its_first_use_and_later(name):
    n, targets, loss = MIXING_LOSSES[name]
    uses = [lambda o: per_example(loss, o, targets), jax.jit(lambda o: per_example(loss, o, targets))]
    for use in uses:
        with pytest.raises(ValueError, match="a loss must be that of each example alone; this one mixes"):
            use(outputs_of(n))


def test_it_is_found_under_every_transformation_and_in_a_step_of_the_users_own():
    _, targets, loss = MIXING_LOSSES["broadcast"]
    model = npt.make_model("fc(width=4)", (4,), 1)
    rule, params = npt.make_rule("np(samples=2)", model, loss), model.init(jax.random.key(0))

    def step(key):
        return rule.grads(key, (), params, (X, targets))[0]

    key = jax.random.key(1)
    for run in (jax.jit(step), jax.vmap(lambda i: step(jax.random.fold_in(key, i))), jax.checkpoint(step)):
        with pytest.raises(ValueError, match="this one mixes"):
            run(jnp.arange(2) if run.__name__ == "<lambda>" else jax.random.clone(key))
    with pytest.raises(ValueError, match="this one mixes"):
        npt.check(model, "np", loss, (X, targets), study=False)


def test_train_refuses_a_loss_that_mixes_before_anything_is_written(own, tmp_path):
    npt.register("loss", "centred", MIXING_LOSSES["centred outputs"][2])
    with pytest.raises(npt.UserError, match=r"this one mixes .*loss centred"):
        npt.train(npt.Run(dataset="digits", network="fc(width=5)", loss="centred"), name="study")
    assert not (tmp_path / "runs").exists()


@dataclass  # it has no hash
class Focal:
    gamma: float = 2.0

    def __call__(self, outputs, targets):
        share = jnp.take_along_axis(jax.nn.softmax(outputs), targets[:, None], 1)[:, 0]
        return -((1 - share) ** self.gamma) * jnp.log(share)


def on_the_host(outputs, targets):
    def loss(o, y):
        return np.square(np.asarray(o) - np.eye(3)[np.asarray(y)]).mean(-1).astype(o.dtype)

    kind = jax.ShapeDtypeStruct(outputs.shape[:1], outputs.dtype)
    return jax.pure_callback(loss, kind, outputs, targets, vmap_method="sequential")


@jax.custom_jvp
def without_derivative(outputs):
    return outputs


@without_derivative.defjvp
def _(primals, tangents):
    raise AssertionError("the loss was differentiated")


def one_hot(targets):
    return jax.nn.one_hot(targets, 3)


SOUND_LOSSES = {
    "focal": Focal(),
    "on the host": on_the_host,
    "hinge": lambda o, y: optax.hinge_loss(o, 2 * one_hot(y) - 1).sum(-1),
    "smoothed": lambda o, y: optax.softmax_cross_entropy(o, optax.smooth_labels(one_hot(y), 0.1)),
    "huber": jax.jit(lambda o, y: optax.huber_loss(o, one_hot(y)).mean(-1)),
    "kl": lambda o, y: optax.kl_divergence(jax.nn.log_softmax(o), one_hot(y)),
    "errors": lambda o, y: (o.argmax(-1) != y).astype(jnp.float32),
    "low precision": lambda o, y: jnp.square((o - one_hot(y)).astype(jnp.bfloat16)).mean(-1),
    "each alone": jax.vmap(lambda o, y: -jax.nn.log_softmax(o)[y]),
    "not a number": lambda o, y: jnp.sqrt(-o).mean(-1),
    "no derivative": lambda o, y: without_derivative(o)[:, 0],
    "weights of this batch": lambda o, y: o[:, 0] * jnp.arange(5.0),
    "fixed noise": lambda o, y: (o + jax.random.normal(jax.random.key(0), o.shape)).mean(-1),
} | {name: registry.resolve("loss", name) for name in registry.names("loss")}


@pytest.mark.parametrize("name", SOUND_LOSSES)
def test_no_sound_loss_is_refused(name):
    for outputs in (outputs_of(3), outputs_of(3).astype(jnp.bfloat16)):
        assert per_example(SOUND_LOSSES[name], outputs, LABELS).shape == (5,)


def test_no_loss_is_refused_in_64_bits():
    with jax.enable_x64(True) if hasattr(jax, "enable_x64") else jax.experimental.enable_x64():
        for name in ("hinge", "low precision", "cross-entropy"):
            outputs = jnp.ones((5, 3), jnp.float64)
            assert per_example(SOUND_LOSSES[name], outputs, LABELS).shape == (5,)


def test_a_function_is_tested_once_per_shape_and_forgotten_with_it(monkeypatch):
    runs = []
    monkeypatch.setattr(mixing, "dependence", lambda *a, **k: runs.append(1) and "")
    loss = Focal()
    for n in (3, 3, 4):
        per_example(loss, outputs_of(n), LABELS)
    jax.eval_shape(partial(per_example, loss), outputs_of(3), LABELS)
    per_example(npt.make_loss("mse"), outputs_of(3), LABELS)  # has tests of its own
    key = (id(loss),)
    assert len(runs) == 2 and key in tested._tested
    del loss
    assert key not in tested._tested


class Weighted:
    def loss(self, outputs, targets):
        return jnp.square(outputs[:, 0] - targets)

    def mixing(self, outputs, targets):
        return jnp.square(outputs[:, 0] - targets) / jnp.abs(targets).max()


class Slotted:
    __slots__ = ()

    def __call__(self, outputs, targets):
        return jnp.square(outputs[:, 0] - targets)

    loss = __call__


class Pair(NamedTuple):
    gamma: float

    def loss(self, outputs, targets):
        return self.gamma * outputs[:, 0]


NEW_EACH_TIME = ["method", "partial", "no weak reference", "method of no weak reference", "method of a tuple"]


@pytest.mark.parametrize("name", NEW_EACH_TIME)
def test_a_function_without_an_identity_of_its_own_is_tested_once(name, monkeypatch):
    owner, slotted, pair, gamma = Weighted(), Slotted(), Pair(2.0), 2.0

    def scaled(outputs, targets, *, scale):
        return scale * outputs[:, 0]

    use = {
        "partial": lambda: partial(scaled, scale=gamma),
        "method": lambda: owner.loss,
        "no weak reference": lambda: slotted,
        "method of no weak reference": lambda: slotted.loss,
        "method of a tuple": lambda: pair.loss,
    }[name]
    runs, dependence = [], mixing.dependence
    monkeypatch.setattr(mixing, "dependence", lambda *a, **k: runs.append(1) or dependence(*a, **k))
    for _ in range(3):
        per_example(use(), outputs_of(1), VALUES)
    assert len(runs) == 1


def test_methods_and_arguments_are_told_apart_and_few_are_held():
    owner = Weighted()
    per_example(owner.loss, outputs_of(1), VALUES)
    with pytest.raises(ValueError, match="this one mixes"):
        per_example(owner.mixing, outputs_of(1), VALUES)
    scaled = partial(lambda scale, o, y: o[:, 0] - scale * o.mean(), 0.0)
    assert per_example(scaled, outputs_of(1), VALUES).shape == (5,)
    with pytest.raises(ValueError, match="this one mixes"):
        per_example(partial(scaled.func, 1.0), outputs_of(1), VALUES)
    before = len(tested._tested)
    for _ in range(3 * tested.HELD):
        tested.cases(Slotted())
    assert len(tested._tested) <= before + tested.HELD


BY_SIZE = {
    "divided": lambda o, y: jnp.square(o[:, 0] - y) / len(o),
    "times the size": lambda o, y: jnp.square(o[:, 0] - y) * o.shape[0],
    "divided by all numbers": lambda o, y: jnp.square(o[:, 0] - y) / o.size,
    "size less one": lambda o, y: jnp.square(o[:, 0] - y) / max(len(y) - 1, 1) ** 0.5,
}


@pytest.mark.parametrize("name", BY_SIZE)
def test_a_loss_that_changes_with_the_size_of_the_batch_has_a_text_of_its_own(name):
    with pytest.raises(ValueError, match="divided by the batch size; return each example's own loss"):
        per_example(BY_SIZE[name], outputs_of(1), VALUES)


# ------------------------------------------------------------------------------ targets of several arrays


def weighted(outputs, targets):
    return targets["w"][targets["y"]] * npt.make_loss("cross-entropy")(outputs, targets["y"])


def costs(outputs, targets):
    return (targets["cost"][targets["y"]] * jax.nn.softmax(outputs)).sum(-1)


def tempered(outputs, targets):
    y, temperature = targets
    return npt.make_loss("cross-entropy")(outputs / temperature, y)


SHARED = {
    "class weights": (3, weighted, {"y": LABELS, "w": jnp.array([1.0, 2, 3])}),
    "as many classes as examples": (5, weighted, {"y": LABELS, "w": jnp.arange(5.0)}),
    "costs": (5, costs, {"y": LABELS, "cost": 1 - jnp.eye(5)}),
    "a scalar": (3, tempered, (LABELS, jnp.float32(2))),
    "a number": (3, tempered, (LABELS, 2.0)),
    "a text": (3, lambda o, t: jnp.square(o[:, 0] - t["y"]), {"y": VALUES, "unit": "mm"}),
    "example weights": (3, lambda o, t: t["w"] * jnp.square(o[:, 0] - t["y"]), {"y": VALUES, "w": VALUES + 1}),
}


@pytest.mark.parametrize("name", SHARED)
def test_what_is_the_same_for_all_examples_is_left_as_given(name):
    n, loss, targets = SHARED[name]
    assert per_example(loss, outputs_of(n), targets).shape == (5,)
    if name != "a text":
        assert jax.jit(partial(per_example, loss))(outputs_of(n), targets).shape == (5,)

    def centred(outputs, targets):
        return loss(outputs - outputs.mean(0), targets)

    with pytest.raises(ValueError, match="this one mixes"):
        per_example(centred, outputs_of(n), targets)


def test_one_example_has_targets_too():
    losses = per_example(tempered, outputs_of(3)[:1], (LABELS[:1], jnp.array([2.0])))
    assert losses.shape == (1,)


class Meta:  # no hash
    __hash__ = None  # pyright: ignore[reportAssignmentType]


@jax.tree_util.register_pytree_node_class
class Tagged:
    def __init__(self, y, meta):
        self.y, self.meta = y, meta

    def tree_flatten(self):
        return (self.y,), self.meta

    @classmethod
    def tree_unflatten(cls, meta, leaves):
        return cls(*leaves, meta)


def test_a_structure_without_a_hash_is_no_error():
    assert per_example(lambda o, t: jnp.square(o[:, 0] - t.y), outputs_of(1), Tagged(VALUES, Meta())).shape == (5,)


# ------------------------------------------------------------------- what fails on stand-in values


def test_a_failed_test_is_not_a_passed_one():
    scale = [jnp.float32(1)]

    def loss(outputs, targets):
        return scale[0] * (outputs[:, 0] - outputs[:, 0].mean() - targets)

    def traced(value):
        scale[0] = value
        return per_example(loss, outputs_of(1), VALUES)

    jax.jit(traced)(2.0)  # it reads a traced number, which has no value yet
    scale[0] = jnp.float32(1)
    with pytest.raises(ValueError, match="this one mixes"):
        per_example(loss, outputs_of(1), VALUES)


@pytest.mark.parametrize("guard", [lambda: jax.transfer_guard("disallow"), lambda: jax.debug_nans(True)])
def test_a_guard_of_the_users_own_computation_does_not_hide_mixing(guard):
    outputs, values = outputs_of(1), jnp.abs(VALUES) + 1

    def loss(o, y):
        return jnp.sqrt(o[:, 0] - 0.5) * 0 + o[:, 0] - y * o.mean()

    with guard(), pytest.raises(ValueError, match="this one mixes"):
        jax.eval_shape(lambda o, y: per_example(loss, o, y), outputs, values)


def test_what_has_one_batch_size_only_is_tested_at_that_size():
    def fixed(mix):
        return lambda o, y: (o.reshape(5, 1) - mix * o.mean(0)).sum(-1) * jnp.arange(5.0) - y

    assert per_example(fixed(0), outputs_of(1), VALUES).shape == (5,)
    with pytest.raises(ValueError, match="this one mixes"):
        per_example(fixed(1), outputs_of(1), VALUES)
    mixing.check_network(through(lambda x: x.reshape(5, 4)), X)
    with pytest.raises(ValueError, match="this network mixes"):
        mixing.check_network(through(lambda x: x.reshape(5, 4) - x.mean(0)), X)


# ----------------------------------------------------------------------------------------------- networks


def through(how, zero=False):
    """A network that is sound but for `how`, of its inputs; with weights of zero nothing of it reaches the outputs."""
    base = npt.make_model("fc(width=4)", (4,), 3)

    def init(key):
        return jax.tree.map(jnp.zeros_like, base.init(key)) if zero else base.init(key)

    return Model(init, lambda params, x, node=plain: base.apply(params, how(x), node))


MIXING_NETWORKS = {
    "centred": lambda x: x - x.mean(0),
    "running sum": lambda x: jnp.cumsum(x, 0),
    "shifted": lambda x: jnp.roll(x, 1, 0),
    "largest": lambda x: x / jnp.abs(x).max(),
    "attention": lambda x: jax.nn.softmax(x @ x.T) @ x,
}


@pytest.mark.parametrize("how", MIXING_NETWORKS)
def test_a_network_that_mixes_examples_is_an_error_at_its_first_use(how, own):
    model = through(MIXING_NETWORKS[how], zero=how == "centred")
    rule = npt.make_rule("np", model, npt.make_loss("mse"))
    for grads in (rule.grads, jax.jit(rule.grads)):
        with pytest.raises(ValueError, match="this network mixes the examples of a batch"):
            grads(jax.random.key(0), (), model.init(jax.random.key(1)), (X, LABELS))


def test_check_and_train_refuse_it(own):
    model = through(MIXING_NETWORKS["centred"])
    with pytest.raises(ValueError, match="this network mixes"):
        npt.check(model, "sgd", "mse", (X, LABELS), study=False)
    npt.register("network", "mixing", lambda shape, classes: model)
    x, y = np.asarray(X), np.asarray(LABELS)
    npt.register("dataset", "five", lambda data_dir: npt.make_dataset(x, y, x, y))
    with pytest.raises(npt.UserError, match=r"this network mixes .*\(network precision\(mixing\)"):
        npt.train(npt.Run(dataset="five", network="precision(mixing)", batchsize=5))


@pytest.mark.parametrize("zero", [False, True])
def test_no_sound_network_is_refused(zero):
    for how in (
        lambda x: x / jnp.linalg.norm(x, axis=-1, keepdims=True),
        lambda x: jax.nn.softmax(x).astype("bfloat16"),
    ):
        model = through(lambda x, how=how: how(x).astype(x.dtype), zero)
        mixing.check_network(model, X)


@pytest.mark.parametrize("inputs", [{"x": X, "length": jnp.arange(5)}, (X, jnp.float32(2)), [X, "text"]])
def test_inputs_may_be_several_arrays(inputs):
    base = npt.make_model("fc(width=4)", (4,), 3)

    def model(how):
        return Model(base.init, lambda p, x, node=plain: base.apply(p, how(jax.tree.leaves(x)), node))

    def array(leaves):
        return next(a for a in leaves if jnp.shape(a)[1:] == (4,))

    def grads(model):
        rule = npt.make_rule("sgd", model, npt.make_loss("mse"))
        return rule.grads(jax.random.key(0), (), base.init(jax.random.key(1)), (inputs, LABELS))

    if "text" in inputs:
        mixing.check_network(model(array), inputs)
    else:
        assert grads(model(array))[2].loss.shape == (5,)
        with pytest.raises(ValueError, match="this network mixes"):
            grads(model(lambda leaves: array(leaves) - array(leaves).mean(0)))


@pytest.mark.parametrize("rule", ["np", "np(samples=2, replay=True)", "inp", "anp", "wp", "fa", "dfa", "dtp"])
def test_rules_count_the_examples_of_inputs_of_several_arrays(rule):
    base = npt.make_model("fc(width=4)", (4,), 3)
    params, loss = base.init(jax.random.key(1)), npt.make_loss("mse")
    several = Model(base.init, lambda p, x, node=plain: base.apply(p, x["a"], node))

    def grads(model, x):
        made = npt.make_rule(rule, model, loss)

        def step(x):
            return made.grads(jax.random.key(2), made.init(jax.random.key(3), params, x), params, (x, LABELS))[0]

        return jax.jit(step)(x)

    one, many = grads(base, X), grads(several, {"a": X, "b": jnp.ones(5), "c": 2 * X})
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool(jnp.allclose(a, b, rtol=1e-4)), one, many)))
