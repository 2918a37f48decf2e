"""A loss in parts: which of them answer for the noise of a node, by the mean of the estimates and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from estimates import check_expected, drawn, rms_z

import nodepert as npt
from nodepert.core import Model, differentiate, in_parts, per_example, plain
from nodepert.models.layers import dense
from nodepert.rules.guided import output_error

pytestmark = pytest.mark.usefixtures("quickly_compiled")

T, UNITS, OUT, EXAMPLES = 3, 4, 2, 3
RANDOM = np.random.default_rng(0)
X = jnp.asarray(RANDOM.normal(size=(EXAMPLES, T, 5)), jnp.float32)
Y = jnp.asarray(RANDOM.normal(size=(EXAMPLES, T, OUT)), jnp.float32)
PARAMS = {
    "in": {"w": jnp.asarray(RANDOM.normal(size=(5, UNITS)), jnp.float32) / 2, "b": jnp.zeros(UNITS)},
    "out": {"w": jnp.asarray(RANDOM.normal(size=(UNITS, OUT)), jnp.float32) / 2, "b": jnp.zeros(OUT)},
}


def network(mix):
    """Two nodes, (B, T, units), with what `mix` does over time in between."""

    def apply(params, x, node=plain):
        h = mix(jnp.tanh(node("in", dense, params["in"], x)))
        return node("out", dense, params["out"], h)

    return Model(lambda key: PARAMS, apply)


CAUSAL = network(lambda h: jnp.cumsum(h, 1))
BACKWARDS = network(lambda h: jnp.cumsum(h[:, ::-1], 1)[:, ::-1])
APART = network(lambda h: h)


def squares(outputs, targets):
    return jnp.square(outputs - targets).sum(-1) / 2  # (B, T)


def exact(model, loss=squares):
    return jax.jit(lambda: differentiate(model, loss, PARAMS, (X, Y))[0])()


def draws(rule, model, count=6000):
    rule = npt.make_rule(rule, model, squares)
    return drawn(rule, PARAMS, (X, Y), count, rule.init(jax.random.key(1), PARAMS, X))


def variance(found):
    return sum(np.var(np.asarray(g, np.float64), 0).sum() for g in jax.tree.leaves(found))


def test_the_loss_of_an_example_is_the_sum_of_its_parts():
    parts = in_parts(squares, Y + 1, Y)
    assert parts.shape == (EXAMPLES, T) and np.allclose(per_example(squares, Y + 1, Y), parts.sum(1))


@pytest.mark.parametrize("loss", [lambda o, y: jnp.square(o - y), lambda o, y: jnp.square(o - y).sum((0, 2))])
def test_a_loss_of_another_shape_is_refused(loss):
    with pytest.raises(ValueError, match=r"or per output, shape \(3, 3\)|mixes the examples"):
        in_parts(loss, jnp.zeros((EXAMPLES, T, OUT)), jnp.ones((EXAMPLES, T, OUT)))


def test_a_loss_that_forgets_its_mean_over_outputs_is_refused():
    with pytest.raises(ValueError, match=r"one number per example, shape \(3,\); this one returned shape \(3, 2\)"):
        in_parts(lambda o, y: jnp.square(o - y), jnp.zeros((3, 2)), jnp.zeros((3, 2)))


UNBIASED = [
    "np(noise=rademacher, credit=trial)",
    "np(noise=rademacher, credit=future)",
    "np(noise=rademacher, credit=future, replay=True)",
    "np(difference=jvp, credit=future, sharing=batch)",
    "np(credit=future, presynaptic=noisy, difference=central)",
    "np(credit=future, head=evaluated, guide=chain(rate=1e-3), samples=4, noise=orthogonal)",
    "np(credit=trial, head=evaluated, guide=feedback)",
    "inp(credit=future)",
    "inp(credit=trial, difference=jvp)",
]


@pytest.mark.parametrize("rule", UNBIASED)
def test_unbiased_in_a_causal_network(rule):
    check_expected(draws(rule, CAUSAL), exact(CAUSAL))


@pytest.mark.parametrize("model", [CAUSAL, BACKWARDS], ids=["causal", "backwards"])
def test_own_lacks_what_a_step_does_to_others(model):
    def own_part(params):  # the gradient of sum_t L_t where step t acts on L_t alone
        def apply(params, x, node=plain):
            a = node("in", dense, params["in"], x)
            h = jnp.tanh(a)
            mixed = (jnp.cumsum(h, 1) if model is CAUSAL else jnp.cumsum(h[:, ::-1], 1)[:, ::-1]) - h
            return node("out", dense, params["out"], h + jax.lax.stop_gradient(mixed))

        return differentiate(Model(model.init, apply), squares, params, (X, Y))[0]

    found, expected = draws("np(noise=rademacher, credit=own)", model), jax.jit(own_part)(PARAMS)
    check_expected(found, expected)
    assert rms_z(found, exact(model)) > 4


def test_future_is_wrong_where_a_later_step_acts_on_an_earlier_one():
    assert rms_z(draws("np(noise=rademacher, credit=future)", BACKWARDS), exact(BACKWARDS)) > 4
    check_expected(draws("np(noise=rademacher, credit=trial)", BACKWARDS), exact(BACKWARDS))


def test_own_is_exact_where_parts_do_not_interact_and_has_the_least_variance():
    found = {c: draws(f"np(difference=jvp, noise=rademacher, credit={c})", APART) for c in ("own", "future", "trial")}
    for each in found.values():
        check_expected(each, exact(APART))
    assert variance(found["own"]) < 0.6 * variance(found["future"]) < 0.9 * variance(found["trial"])


@pytest.mark.parametrize("gamma", [0.0, 0.7])
def test_future_discounts_later_steps(gamma):
    change, noise = jnp.asarray([[1.0, 10.0, 100.0]]), jnp.zeros((1, 3, 4))
    found = npt.rules.credit.future(gamma=gamma)(change, noise)
    assert np.allclose(found, [[1 + gamma * 10 + gamma**2 * 100, 10 + gamma * 100, 100]])
    # a node that is not in time
    assert np.allclose(npt.rules.credit.future(gamma=gamma)(change, jnp.zeros((1, 4))), [111])


def test_one_linear_unit_in_time_has_the_closed_form_of_each_credit():
    """a_t = w a_{t-1} + x_t with L_t = a_t^2/2, unrolled: dL_t'/da_t = w^(t'-t) a_t'."""
    w, steps = 0.8, 4
    x = jnp.asarray(RANDOM.normal(size=(1, steps, 1)), jnp.float32)
    lower = jnp.asarray(np.tril(w ** np.subtract.outer(np.arange(steps), np.arange(steps)).clip(0)), jnp.float32)

    def apply(params, x, node=plain):  # noise on the input of step t enters a_t, and decays by w
        u = node("u", lambda p, h: h + p, params["u"], x)
        return jnp.einsum("ts,bsn->btn", lower, u)

    params = {"u": jnp.zeros((steps, 1))}  # its gradient is the signal of every step
    model = Model(lambda key: params, apply)
    a = np.asarray(lower) @ np.asarray(x)[0, :, 0]
    future = [sum(w ** (s - t) * a[s] for s in range(t, steps)) for t in range(steps)]
    for credit, expected in (("own", a), ("future", future), ("trial", future)):
        rule = npt.make_rule(f"np(difference=jvp, credit={credit})", model, lambda o, y: jnp.square(o - y).sum(-1) / 2)
        found = drawn(rule, params, (x, jnp.zeros_like(x)), 8000)
        check_expected(found, {"u": jnp.asarray(expected, jnp.float32)[:, None]})


def test_the_error_of_outputs_is_that_of_each_part():
    o = Y + 1
    expected = jax.grad(lambda o: squares(o, Y).sum())(o)
    assert np.allclose(output_error(squares, o, Y), expected, atol=1e-4)
    calls = []
    jax.eval_shape(lambda: output_error(lambda o, y: calls.append(o.shape) or squares(o, y), o, Y))
    assert len(calls) < 10


def test_running_average_takes_the_whole_trial():
    with pytest.raises(ValueError, match="credit=trial"):
        npt.make_rule("np(baseline=running, credit=future)", CAUSAL, squares)


@pytest.mark.parametrize("rule", ["sgd", "wp", "dfa", "fa", "np(baseline=running, sigma=0.1)"])
def test_other_rules_take_the_sum(rule):
    whole = npt.make_rule(rule, CAUSAL, lambda o, y: squares(o, y).sum(-1))
    parts = npt.make_rule(rule, CAUSAL, squares)
    for found in jax.tree.leaves(
        jax.tree.map(
            np.subtract,
            *(jax.jit(r.grads)(jax.random.key(2), r.init(jax.random.key(1), PARAMS, X), PARAMS, (X, Y))[0]
              for r in (whole, parts)),
        )
    ):  # fmt: skip
        assert np.abs(found).max() < 1e-4
