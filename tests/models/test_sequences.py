"""Networks in time: their equations, and the mean of perturbation's estimates on them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from estimates import check_expected, drawn, rms_z

import nodepert as npt
from nodepert.core import Model, backprop, differentiate, node_shapes, plain
from nodepert.models.spiking import spike

pytestmark = pytest.mark.usefixtures("quickly_compiled")

EXAMPLES, CLASSES = 2, 3
NETWORKS = {"rnn": "rnn(width=4, readout=every)", "gru": "gru(width=3, readout=every)",
            "transformer": "transformer(width=4, heads=2, depth=1, readout=every)"}  # fmt: skip
LOSS = npt.make_loss("cross-entropy")


def setting(name, steps):
    model, random = npt.make_model(NETWORKS[name], (steps, 2), CLASSES), np.random.default_rng(steps)
    x = jnp.asarray(random.normal(size=(EXAMPLES, steps, 2)), jnp.float32)
    y = jnp.asarray(random.integers(0, CLASSES, size=(EXAMPLES, steps)), jnp.int32)
    return model, jax.jit(model.init)(jax.random.key(1)), (x, y)


def estimates(rule, model, params, batch, draws, loss=LOSS):
    rule, rows = npt.make_rule(rule, model, loss), batch[1].size
    state = rule.init(jax.random.key(1), params, batch[0])
    return drawn(rule, params, batch, draws, state, per_pass=min(1000, 16_384 // rows))  # as in conformance/mean.py


def exact(model, params, batch):
    return jax.jit(lambda: differentiate(model, LOSS, params, batch)[0])()


@pytest.mark.parametrize(("name", "steps"), [("rnn", 3), ("gru", 1), ("transformer", 3)])
@pytest.mark.parametrize("rule", ["np(noise=rademacher, credit=future)", "np(noise=rademacher, credit=trial)"])
def test_np_is_unbiased_in_time(name, steps, rule):
    model, params, batch = setting(name, steps)
    check_expected(estimates(rule, model, params, batch, 8000), exact(model, params, batch))


DRAWS = {1: 20_000, 3: 20_000, 20: 60_000}  # by the number of steps
Z = 1.3  # limit of the rms z-score: 1 but for chance, of 25 numbers or more
EXACT = "difference=jvp, noise=rademacher"  # signs are few: the rounding of finite differences would be a bias
RULES = [f"np({EXACT}, credit=future)", f"np({EXACT}, credit=trial)", f"inp({EXACT}, credit=future)",
         f"inp({EXACT}, credit=trial)", f"wp({EXACT})"]  # fmt: skip
MUTANTS = {"own": (f"np({EXACT}, credit=own)", LOSS),
           "shifted": (RULES[0], lambda outputs, y: jnp.roll(LOSS(outputs, y), -1, 1)),  # lacks the loss of the step
           "flipped": (RULES[0], lambda outputs, y: -LOSS(outputs, y))}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("steps", DRAWS)
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("rule", RULES)
def test_z_scores_in_time(name, steps, rule):
    model, params, batch = setting(name, steps)
    found, expected = estimates(rule, model, params, batch, DRAWS[steps]), exact(model, params, batch)
    check_expected(found, expected)
    assert rms_z(found, expected) < Z


@pytest.mark.slow
@pytest.mark.parametrize(("mutant", "steps"), [(m, t) for m in MUTANTS for t in DRAWS if t > 1 or m == "flipped"])
@pytest.mark.parametrize("name", NETWORKS)
def test_mutants_have_larger_z_scores(name, steps, mutant):
    model, params, batch = setting(name, steps)
    assert rms_z(estimates(MUTANTS[mutant][0], model, params, batch, DRAWS[steps], MUTANTS[mutant][1]),
                 exact(model, params, batch)) > Z  # fmt: skip


@pytest.mark.parametrize("name", ["rnn", "transformer"])
def test_own_is_biased_in_time(name):
    model, params, batch = setting(name, 3)
    assert rms_z(estimates("np(noise=rademacher, credit=own)", model, params, batch, 8000),
                 exact(model, params, batch)) > 2  # fmt: skip


def test_check_tells_the_credits_apart():
    model, params, batch = setting("rnn", 3)

    def found(credit):
        rule = f"np(difference=jvp, noise=rademacher, credit={credit})"
        return npt.check(model, rule, LOSS, batch, params=params, draws=2000, study=False)

    future, trial, own = map(found, ("future", "trial", "own"))
    assert [r.verdict for r in (future, trial, own)] == ["unbiased", "unbiased", "biased"]
    assert future.rows[-1]["variance"] < trial.rows[-1]["variance"]
    assert "credit=own): biased (at cell)" in str(own)
    assert all("WARNING" not in str(r) for r in (future, trial, own))


def test_one_step_of_rnn_is_fc_with_a_state_of_zeros():
    model = npt.make_model("rnn(width=5)", (1, 4), 3)
    params = model.init(jax.random.key(0))
    flat = npt.make_model("fc(width=5, depth=1, activation=tanh)", (4,), 3)
    x, y = jnp.asarray(np.random.default_rng(0).normal(size=(6, 4)), jnp.float32), jnp.arange(6) % 3
    same = {"fc0": {"w": params["cell"]["w"][:4], "b": params["cell"]["b"]}, "out": params["out"]}
    np.testing.assert_allclose(model.apply(params, x[:, None]), flat.apply(same, x), atol=1e-6)
    found = differentiate(model, LOSS, params, (x[:, None], y))[0]
    expected = differentiate(flat, LOSS, same, (x, y))[0]
    np.testing.assert_allclose(found["cell"]["w"][:4], expected["fc0"]["w"], atol=1e-6)


def test_the_last_readout_is_that_of_the_last_step():
    every, last = (npt.make_model(f"gru(width=5, readout={r})", (4, 2), 3) for r in ("every", "last"))
    params, x = every.init(jax.random.key(0)), jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 2)), jnp.float32)
    np.testing.assert_allclose(every.apply(params, x)[:, -1], last.apply(params, x), atol=1e-6)


@pytest.mark.parametrize("network", ["rnn(readout=every)", "gru(readout=every)", "transformer(readout=every)"])
def test_no_step_depends_on_a_later_one(network):
    model = npt.make_model(network, (5, 2), 3)
    params, x = model.init(jax.random.key(0)), jnp.asarray(np.random.default_rng(0).normal(size=(1, 5, 2)), jnp.float32)
    by_input = jax.jacobian(lambda x: model.apply(params, x)[0].sum(-1))(x)[:, 0].any(-1)  # (T, T)
    assert np.array_equal(by_input, np.tril(np.ones((5, 5), bool)))


@pytest.mark.parametrize("network", ["rnn(tokens=True, readout=every)", "transformer(tokens=True, readout=every)"])
def test_tokens_are_one_hot_vectors(network):
    model = npt.make_model(network, (5,), 7)
    x = jnp.asarray([[0, 1, 6, 3, 3]], jnp.float32)
    assert model.apply(model.init(jax.random.key(0)), x).shape == (1, 5, 7)
    with pytest.raises(npt.UserError, match=r"tokens=True takes inputs \(T,\)"):
        npt.make_model(network, (5, 2), 7)


@pytest.mark.parametrize(
    "network", ["rnn(leak=0)", "rnn(width=0)", "lif(decay=1)", "lif(steps=0)", "transformer(width=6, heads=4)"]
)
def test_invalid_sizes(network):
    with pytest.raises(ValueError, match=r"leak|width|decay|steps"):
        npt.make_model(network, (5, 2), 7)


def test_neurons_integrate_fire_and_are_reset():
    model = npt.make_model("lif(width=1, steps=4, decay=0.5)", (1,), 1)
    params = {"lif0": {"w": jnp.ones((1, 1)), "b": jnp.zeros(1)}, "out": {"w": jnp.ones((1, 1)), "b": jnp.zeros(1)}}
    # v = 0.7, 1.05 (spike), 0.7, 1.05 (spike)
    assert float(model.apply(params, jnp.asarray([[0.7]]))[0, 0]) == 0.5


def test_a_spike_has_no_derivative_unless_there_is_a_surrogate():
    x, y = jnp.asarray(np.random.default_rng(0).normal(size=(4, 6)), jnp.float32), jnp.arange(4) % 3
    norms = {}
    for surrogate in ("none", "fast-sigmoid"):
        model = npt.make_model(f"lif(width=8, surrogate={surrogate})", (6,), 3)
        params = jax.tree.map(lambda a: 2 * a, model.init(jax.random.key(0)))
        grads = backprop(model, LOSS).grads(jax.random.key(0), (), params, (x, y))[0]
        norms[surrogate] = float(jnp.abs(grads["lif0"]["w"]).max())
        assert jnp.abs(grads["out"]["w"]).max() > 0
    assert norms["none"] == 0 < norms["fast-sigmoid"]
    assert node_shapes(model, params, x)["lif0"].shape == (4, 10, 8)


@pytest.mark.parametrize("difference", ["forward", "central"])
def test_a_finite_difference_at_a_step_is_the_slope_of_the_smoothed_loss(difference):
    """E of the estimate is d/da E 1(a + sigma xi > 0) = N(a/sigma)/sigma; with jvp 0."""
    a, sigma = 0.3, 0.5

    def apply(params, x, node=plain):
        return spike("none", node("a", lambda p, h: h + p, params["a"], x))

    model, params = Model(lambda key: None, apply), {"a": jnp.full((1,), a)}
    batch = jnp.zeros((1, 1)), jnp.zeros((1, 1))
    rule = npt.make_rule(f"np(sigma={sigma}, difference={difference})", model, lambda o, y: o.sum(-1))
    found = np.asarray(drawn(rule, params, batch, 40_000)["a"])[:, 0]
    expected = np.exp(-((a / sigma) ** 2) / 2) / np.sqrt(2 * np.pi) / sigma
    assert abs(found.mean() - expected) < 4 * found.std() / len(found) ** 0.5 < 0.05 * expected
    exact = npt.make_rule("np(difference=jvp)", model, lambda o, y: o.sum(-1))
    assert not np.asarray(drawn(exact, params, batch, 10)["a"]).any()
