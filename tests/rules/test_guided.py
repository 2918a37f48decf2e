"""Node perturbation on active units, with an evaluated head and a guide: exact second moments, and what would be wrong.

`ORACLE`: with r = delta - d over the n perturbed units, one draw of signs has E||s - delta||^2 = (n - 1)||r||^2; a
Gaussian one (n + 1)||r||^2; K orthogonal ones (n/K - 1)||r||^2.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from estimates import check_expected, drawn

import nodepert as npt
from nodepert import registry
from nodepert.core import Model, backprop, differentiate, plain
from nodepert.models.fc import fc
from nodepert.models.layers import dense
from nodepert.rules import guided
from nodepert.rules.between import active, between
from nodepert.rules.directional import orthogonal
from nodepert.rules.guided import Guided, output_error
from nodepert.rules.guides.guide import Guide
from nodepert.training.losses import cross_entropy, linear_mse, mse

pytestmark = pytest.mark.usefixtures("quickly_compiled", "strict_dtypes")

UNITS, DRAWS = 16, 4000
MODEL = fc((5,), 3, width=UNITS, depth=1)
PARAMS = MODEL.init(jax.random.key(2))
ONE = jnp.asarray(np.random.default_rng(1).normal(size=(1, 5)), jnp.float32), jnp.array([2])
FEW = jnp.asarray(np.random.default_rng(2).normal(size=(6, 5)), jnp.float32), jnp.array([0, 1, 2, 1, 0, 2])


def delta(batch=ONE, model=MODEL, params=PARAMS, loss=mse):
    """The error signals of one example: the gradients of the biases."""
    return {name: np.asarray(g["b"], np.float64) for name, g in gradient(batch, model, params, loss).items()}


def gradient(batch=FEW, model=MODEL, params=PARAMS, loss=mse):
    return jax.jit(lambda: backprop(model, loss).grads(jax.random.key(0), (), params, batch)[0])()


def fixed(signals):
    """A guide that always predicts this, {node: (units,)}."""

    def predicted(state, clean):
        return {
            name: jnp.broadcast_to(jnp.asarray(s, jnp.float32), clean.cut.a[name].shape) for name, s in signals.items()
        }

    return lambda model: Guide(lambda key, clean: (), predicted, lambda state, clean, predicted, residual: state)


@pytest.fixture
def use(own):
    """use(guide): register it as "mine", at a factor of 1."""

    def used(guide):
        npt.register("guide", "mine", guide)
        return Guided((), {"fc0": jnp.ones(2), "out": jnp.ones(2)})

    return used


def excess(rule, state=(), draws=DRAWS):
    """(mean, standard error) of ||s - delta||^2 at fc0, of one example."""
    found = drawn(npt.make_rule(rule, MODEL, mse), PARAMS, ONE, draws, state)["fc0"]["b"]
    squares = np.square(np.asarray(found, np.float64) - delta()["fc0"]).sum(1)
    return squares.mean(), squares.std() / len(squares) ** 0.5


def active_units():
    return int((delta()["fc0"] != 0).sum())


@pytest.mark.parametrize(
    ("noise", "samples", "factor"),
    [
        ("rademacher", 1, UNITS - 1),
        ("gaussian", 1, UNITS + 1),
        ("sphere", 1, UNITS - 1),
        ("orthogonal", 2, UNITS / 2 - 1),
        ("orthogonal", 4, UNITS / 4 - 1),
    ],
)
@pytest.mark.parametrize("share", [0.0, 0.5])  # of delta that the guide predicts
def test_the_variance_is_that_of_the_residual(use, noise, samples, factor, share):
    state = use(fixed({"fc0": share * delta()["fc0"]}))
    rule = f"np(noise={noise}, samples={samples}, difference=jvp, head=evaluated, guide=mine)"
    mean, error = excess(rule, state)
    expected = factor * np.square((1 - share) * delta()["fc0"]).sum()
    assert abs(mean - expected) < 3 * error + 1e-5 * expected
    assert error < 0.03 * expected  # so that another share, or twice the units, would be found


def test_a_guide_that_is_the_error_signal_is_exact_draw_by_draw(use):
    mean, _ = excess("np(difference=jvp, head=evaluated, guide=mine)", use(fixed({"fc0": delta()["fc0"]})), draws=50)
    assert mean < 1e-10 * np.square(delta()["fc0"]).sum()


def test_as_many_orthogonal_draws_as_units_are_exact():
    mean, _ = excess(f"np(noise=orthogonal, samples={UNITS}, difference=jvp, head=evaluated)", init(), draws=20)
    assert mean < 1e-10 * np.square(delta()["fc0"]).sum()


def init(rule="np(head=evaluated)", batch=ONE):
    return npt.make_rule(rule, MODEL, mse).init(jax.random.key(5), PARAMS, batch[0])


def test_noise_on_active_units_counts_only_these():
    m = active_units()
    assert 3 < m < UNITS - 3
    mean, error = excess("np(noise=rademacher, difference=jvp, head=evaluated, active=True)", init())
    square = np.square(delta()["fc0"]).sum()
    assert abs(mean - (m - 1) * square) < 3 * error
    assert abs(mean - m * square) > 3 * error


def test_what_a_guide_predicts_at_an_inactive_unit_is_no_signal(use):
    state = use(fixed({"fc0": np.full(UNITS, 0.1)}))
    assert np.any(delta()["fc0"] == 0)
    found = drawn(npt.make_rule("np(active=True, head=evaluated, guide=mine, difference=jvp)", MODEL, mse), PARAMS, FEW,
                  DRAWS, state, per_pass=1)  # fmt: skip  # XLA of jax 0.10.2 miscompiles a thousand of these at once
    check_expected(found, gradient())


def test_a_gate_that_is_wrong_on_one_unit_loses_its_signal(monkeypatch):
    rule, state = npt.make_rule("np(active=True, head=evaluated, difference=jvp)", MODEL, mse), init(batch=FEW)
    check_expected(drawn(rule, PARAMS, FEW, DRAWS, state), gradient())
    unit = int(np.abs(np.asarray(gradient()["fc0"]["b"])).argmax())

    def wrong(cut):
        gates = active(cut)
        return gates | {"fc0": gates["fc0"].at[:, unit].set(0)}

    monkeypatch.setattr(guided, "active", wrong)
    with pytest.raises(AssertionError):
        check_expected(drawn(rule, PARAMS, FEW, DRAWS, state), gradient())


def test_a_guide_that_has_seen_the_noise_of_the_step_is_biased(own):
    """One that has learned from this step's signal before it predicts: d = slope xi / 8."""
    from nodepert.rules.directional import directional, loss_along
    from nodepert.rules.noise import draw

    def seen(model):
        def signals(key, clean):
            shapes = {"fc0": clean.cut.a["fc0"]}
            xi = draw(key, shapes, "gaussian")
            slope = directional("jvp", loss_along(model, mse, PARAMS, FEW), None, shapes, 0.0)(xi)
            return {"fc0": slope[:, None] * xi["fc0"] / 8}

        return Guide(lambda key, clean: key, signals, lambda key, clean, predicted, residual: key)

    npt.register("guide", "seen", seen)
    rule = npt.make_rule("np(difference=jvp, head=evaluated, guide=seen)", MODEL, mse)

    @jax.jit
    def estimates(keys):
        def one(key):
            state = Guided(jax.random.wrap_key_data(jax.random.key_data(key)), {n: jnp.ones(2) for n in PARAMS})
            return rule.grads(key, state, PARAMS, FEW)[0]

        return jax.lax.map(one, keys, batch_size=500)

    with jax.debug_key_reuse(False):
        found = estimates(jax.random.split(jax.random.key(3), DRAWS))
    with pytest.raises(AssertionError):
        check_expected(found, gradient())


@pytest.mark.parametrize("loss", [mse, cross_entropy, linear_mse])
def test_the_output_error_is_the_derivative_of_the_loss(loss):
    outputs = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32)
    targets = jnp.array([0, 2, 1, 1])
    exact = jax.grad(lambda o: loss(o, targets).sum())(outputs)
    found = output_error(loss, outputs, targets)
    assert np.allclose(found, exact, atol=1e-5 if loss is linear_mse else 1e-4)
    assert not np.allclose(found, 1.01 * exact, atol=1e-4)


def normalised(h):
    return (h - h.mean(-1, keepdims=True)) / (1e-3 + h.std(-1, keepdims=True))


def pooled(h):
    return h.reshape(len(h), -1, 2).max(-1)


@pytest.mark.parametrize(
    ("between_them", "expected"),
    [
        (jax.nn.relu, lambda a: a > 0),
        (jnp.tanh, np.ones_like),
        (normalised, np.ones_like),
        (jnp.abs, np.ones_like),
        (pooled, lambda a: a == np.repeat(np.asarray(pooled(a)), 2, -1)),
    ],
)
def test_a_unit_is_active_where_it_can_change_what_follows(between_them, expected):
    def apply(params, x, node=plain):
        return node("out", dense, params["out"], between_them(node("fc0", dense, params["fc0"], x)))

    width = 4 if between_them is pooled else 8
    params = {"fc0": PARAMS["fc0"] | {}, "out": {"w": jnp.ones((width, 3)), "b": jnp.zeros(3)}}
    params["fc0"] = jax.tree.map(lambda p: p[..., :8], params["fc0"])
    cut = between(Model(lambda key: params, apply), params, FEW[0])
    gates = active(cut)
    assert np.array_equal(gates["fc0"] != 0, expected(cut.a["fc0"])) and gates["out"].all()
    assert cut.last == ("out",) and set(cut.h) == {"out"}


def test_the_output_error_alone_passes_back_through_nothing():
    def apply(params, x, node=plain):
        h = jnp.tile(node("fc0", dense, params["fc0"], x), 2)
        return node("out", dense, params["out"], pooled(h))

    cut, error = between(Model(MODEL.init, apply), PARAMS, FEW[0]), jnp.ones((6, 3))
    operations = {str(e.primitive) for e in jax.make_jaxpr(lambda error: cut.back({}, error))(error).eqns}
    assert operations == {"broadcast_in_dim"}  # zeros
    assert np.array_equal(cut.back({}, error)["out"], error) and not cut.back({}, error)["fc0"].any()


def test_a_node_that_reaches_the_outputs_past_the_others_has_that_part_exactly():
    def apply(params, x, node=plain):
        h = jnp.tanh(node("fc0", dense, params["fc0"], x))
        return node("out", dense, params["out"], h) + h[:, :3]

    model = Model(MODEL.init, apply)
    assert between(model, PARAMS, FEW[0]).last == ("out",)
    for form in ("guide=none", "guide=chain", "guide=feedback, active=True"):
        rule = npt.make_rule(f"np(difference=jvp, head=evaluated, {form})", model, mse)
        draws = drawn(rule, PARAMS, FEW, DRAWS, rule.init(jax.random.key(1), PARAMS, FEW[0]))
        check_expected(draws, gradient(model=model))
        assert np.allclose(draws["out"]["w"][0], gradient(model=model)["out"]["w"], atol=1e-5)


@pytest.mark.parametrize(("guide", "least"), [("feedback", 0.95), ("chain(rate=1e-2)", 0.95)])
def test_learned_feedback_into_the_last_hidden_layer_comes_to_be_the_weights(guide, least):
    rule = npt.make_rule(f"np(head=evaluated, active=True, noise=orthogonal, samples=4, guide={guide})", MODEL, mse)

    @jax.jit
    def learn(key):
        def step(state, i):
            x = jax.random.normal(jax.random.fold_in(key, i), (20, 5))
            y = jax.random.randint(jax.random.fold_in(key, -i - 1), (20,), 0, 3)
            return rule.grads(jax.random.fold_in(key, i + 10_000), state, PARAMS, (x, y))[1], ()

        return jax.lax.scan(step, rule.init(key, PARAMS, FEW[0]), jnp.arange(1500))[0]

    state = learn(jax.random.key(0))
    found = state.guide["out"].T if guide == "feedback" else state.guide[0]["out"]["w"]
    cosine = np.vdot(found, PARAMS["out"]["w"]) / np.linalg.norm(found) / np.linalg.norm(PARAMS["out"]["w"])
    assert cosine > least
    assert 0.9 < float(guided.shrinkage(state.moments["fc0"])) <= 1


def test_feedback_weights_that_get_the_same_updates_decay_to_the_weights_and_then_predict_the_error_signals():
    rule = npt.make_rule("np(head=evaluated, difference=jvp, guide=kp(decay=0.1))", MODEL, mse)
    state = rule.init(jax.random.key(1), PARAMS, FEW[0])
    apart, others = state.guide["out"]["w"], jax.tree.map(lambda p: 2 * p, PARAMS)
    for i in range(2):
        state = rule.grads(jax.random.key(i), state, others if i else PARAMS, FEW)[1]
    assert np.allclose(state.guide["out"]["w"], 0.9**2 * apart) and np.abs(apart).max() > 0.1
    ready = Guided(jax.tree.map(jnp.zeros_like, state.guide), {n: jnp.ones(2) for n in state.moments})
    draw = rule.grads(jax.random.key(7), ready, PARAMS, FEW)[0]  # one draw, and no variance
    assert all(np.allclose(a, b, atol=1e-3) for a, b in zip(*map(jax.tree.leaves, (draw, gradient())), strict=True))
    other = rule.grads(jax.random.key(7), state, PARAMS, FEW)[0]
    assert not np.allclose(other["fc0"]["w"], gradient()["fc0"]["w"], atol=1e-2)


def test_orthogonal_draws_are_orthogonal_over_all_nodes_and_of_full_length():
    shapes = {"a": jax.ShapeDtypeStruct((3, 6), "float32"), "b": jax.ShapeDtypeStruct((3, 2, 5), "float32")}
    rows = orthogonal(jax.random.key(0), shapes, 8)
    draws = [jnp.concatenate([v.reshape(3, -1) for v in rows(k).values()], 1) for k in range(8)]
    products = np.einsum("kbi,jbi->bkj", draws, draws)
    assert np.array_equal(products, np.broadcast_to(16 * np.eye(8), (3, 8, 8)))
    assert len({np.asarray(d).tobytes() for d in np.stack(draws).swapaxes(0, 1)}) == 3  # other signs per example


def test_no_derivative_of_the_loss_is_taken():
    @jax.custom_jvp
    def opaque(outputs):
        return outputs

    @opaque.defjvp
    def _(primals, tangents):
        raise RuntimeError("the loss was differentiated")

    def loss(outputs, targets):
        return mse(opaque(outputs), targets)

    for guide in registry.names("guide"):
        rule = npt.make_rule(f"np(active=True, head=evaluated, guide={guide})", MODEL, loss)
        grads, state, _ = rule.grads(jax.random.key(1), rule.init(jax.random.key(0), PARAMS, FEW[0]), PARAMS, FEW)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((grads, state)))
    with pytest.raises(RuntimeError, match="differentiated"):
        differentiate(MODEL, loss, PARAMS, FEW)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("np(noise=orthogonal, samples=3)", "needs a power of 2 as samples; got 3"),
        ("np(guide=feedback)", "a guide needs head=evaluated"),
        ("np(active=True, replay=True)", "need a clean pass"),
        ("np(noise=orthogonal, baseline=running)", "need a clean pass"),
        ("np(head=evaluated, guide=chains)", "unknown guide 'chains' .did you mean 'chain'"),
        ("np(head=evaluated, guide=feedback(rate=0))", "rate must be positive"),
    ],
)
def test_options_that_exclude_each_other_are_one_line(spec, message):
    with pytest.raises(npt.UserError, match=message):
        npt.make_rule(spec, MODEL, mse)


def test_runs_without_the_new_options_have_the_identity_that_they_had():
    assert npt.Run(dataset="mnist5k", rule="np(samples=4)", lr=1e-3).id == "5b0c995b590e"
    assert npt.Run(rule="np(active=False, guide=none)").id == npt.Run(rule="np").id
    assert npt.Run(rule="np(active=True)").id != npt.Run(rule="np").id
    guided = npt.Run(rule="np(head=evaluated, guide=feedback)")
    assert guided.rule == "np(head=evaluated, guide=feedback)" and "feedback(rate=0.05)" in guided.config["rule"]
