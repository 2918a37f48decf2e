"""What a rule's mean is where it is not simply the gradient under mse, and which rules differentiate the loss.

That the mean is the gradient, in every form, is the conformance contract: tests/diagnostics/test_conformance.py. Its
statistics are used here: a scale error of 15% is found, and the rms of z-scores is 1 within about 0.1 under the claim
(there are 68 independent signals) and at most 1.5.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from estimates import check_expected, drawn, rms_z
from scipy.integrate import quad

import nodepert as npt
from nodepert.core import adding, backprop, node_shapes, per_example, preactivations, pullback
from nodepert.diagnostics.conformance.common import compiled
from nodepert.models.fc import fc
from nodepert.rules import node
from nodepert.rules.node import node_perturbation
from nodepert.rules.prediction import updated
from nodepert.rules.weight import weight_perturbation
from nodepert.training.losses import cross_entropy, linear_mse, mse

pytestmark = pytest.mark.usefixtures("quickly_compiled", "strict_dtypes")

DRAWS = 4_000
MODEL = fc((5,), 3, width=7, depth=2)
BATCH = jax.random.normal(jax.random.key(1), (4, 5)), jnp.array([0, 2, 1, 1])
PARAMS = MODEL.init(jax.random.key(2))


def gradient(model, loss, params=PARAMS, batch=BATCH):
    return compiled(lambda p, b: backprop(model, loss).grads(jax.random.key(0), (), p, b)[0])(params, batch)


def test_several_samples_are_unbiased_for_cross_entropy():
    draws = drawn(node_perturbation(MODEL, cross_entropy, samples=3), PARAMS, BATCH, DRAWS)
    check_expected(draws, gradient(MODEL, cross_entropy))


def test_expected_losses_are_computed_without_nan_where_none_is_known():
    table = jnp.full(4, jnp.inf)
    with jax.debug_nans(True):
        for losses in ([0.5, 3.0], [1.5, 3.0]):
            table = updated(table, jnp.array([2, 0]), jnp.array(losses))
    assert table.tolist() == [3.0, jnp.inf, 1.0, jnp.inf]


def test_running_baseline_is_unbiased_at_its_first_batch():
    rule = node_perturbation(MODEL, mse, baseline="running")
    draws = drawn(rule, PARAMS, BATCH, DRAWS, rule.init(jax.random.key(8), PARAMS, BATCH[0]))["out"]["b"]
    assert rms_z(draws, gradient(MODEL, mse)["out"]["b"]) < 2  # 3 numbers


def test_draws_in_several_passes_are_the_draws_of_one(monkeypatch):
    rule = node_perturbation(MODEL, mse, samples=7, difference="jvp")

    def grads():
        return compiled(lambda key: rule.grads(key, (), PARAMS, BATCH)[0])(jax.random.key(5))

    together = grads()
    monkeypatch.setattr(node, "ROWS_AT_ONCE", 3 * len(BATCH[0]))  # passes of 3, 3 and 1
    for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(grads()), strict=True):
        assert np.allclose(a, b, rtol=1e-4, atol=1e-6)


# ------------------------------------------------------------------ anp: its own, biased expectation


def anp_expectation(model, params, x, y, loss):
    """E of the anp signals for Gaussian noise and exact differences.

    With da = J xi over all units and dL = delta . xi the signal is n J xi xi^T delta / (xi^T M xi), M = J^T J =
    V diag(lambda) V^T; and E[eta_i^2 / sum_j lambda_j eta_j^2] = int_0^inf (1 + 2 lambda_i t)^-1 prod_j
    (1 + 2 lambda_j t)^-1/2 dt for standard normal eta.
    """
    shapes = node_shapes(model, params, x[:1])
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

    @compiled
    def derivatives(one, target):
        jacobian = jax.jacobian(lambda e: preactivations(model, params, one, adding(e)))(zeros)
        return jacobian, jax.grad(lambda e: per_example(loss, model.apply(params, one, adding(e)), target).sum())(zeros)

    signals = {name: [] for name in shapes}
    for b in range(len(x)):
        jacobian, delta = derivatives(x[b : b + 1], y[b : b + 1])
        sizes = [s.size for s in shapes.values()]
        flat = [
            [np.asarray(jacobian[to][of], np.float64).reshape(shapes[to].size, shapes[of].size) for of in shapes]
            for to in shapes
        ]
        j, d = np.block(flat), np.concatenate([np.asarray(delta[of], np.float64).ravel() for of in shapes])
        lam, v = np.linalg.eigh(j.T @ j)

        def integrand(u, i, lam=lam):  # t = u / (1 - u)
            t = u / (1 - u)
            return 1 / (1 + 2 * lam[i] * t) / np.sqrt(np.prod(1 + 2 * lam * t)) / (1 - u) ** 2

        c = np.array([quad(integrand, 0, 1, args=(i,))[0] for i in range(len(lam))])
        s = len(lam) * j @ v @ np.diag(c) @ v.T @ d
        for name, part in zip(shapes, np.split(s, np.cumsum(sizes)[:-1]), strict=True):
            signals[name].append(part.reshape(shapes[name].shape[1:]))
    return {name: jnp.asarray(np.stack(parts), jnp.float32) / len(x) for name, parts in signals.items()}


@pytest.fixture(scope="module")
def anp_mean():
    return pullback(MODEL, PARAMS, BATCH[0], anp_expectation(MODEL, PARAMS, *BATCH, mse))


@pytest.mark.parametrize("difference", ["forward", "central", "jvp"])
def test_the_mean_of_anp_is_its_biased_expectation_and_not_the_gradient(difference, anp_mean):
    draws = drawn(npt.make_rule(f"anp(difference={difference})", MODEL, mse), PARAMS, BATCH, DRAWS)
    check_expected(draws, anp_mean)
    assert rms_z(draws, gradient(MODEL, mse)) > 3


def test_one_sided_np_is_unbiased_at_any_sigma_for_a_quadratic_loss_on_one_linear_layer():
    model = fc((5,), 3, depth=0)
    params, batch = model.init(jax.random.key(2)), (BATCH[0], jax.random.normal(jax.random.key(4), (4, 3)))
    draws = drawn(node_perturbation(model, linear_mse, sigma=2.0), params, batch, 8_000)
    check_expected(draws, gradient(model, linear_mse, params, batch))


@jax.custom_jvp
def no_derivative(outputs):
    return outputs


@no_derivative.defjvp
def _(primals, tangents):
    raise RuntimeError("the loss was differentiated")


NO_DERIVATIVE = [
    "np", "np(difference=central)", "np(baseline=running)", "np(presynaptic=noisy)", "inp", "anp", "wp",
    "wp(rank=1, sharing=example, difference=central)", "dfa(error=softmax)", "dfa(error=sigmoid)", "decorrelate(np)",
    "np; out=dfa(error=linear)", "opzo(difference=jvp)", "opzo(difference=single)",
]  # fmt: skip


@pytest.mark.parametrize("form", NO_DERIVATIVE)
def test_rules_that_need_no_derivative_train_with_a_loss_whose_derivative_raises(form):
    def run(loss):
        rule = npt.make_rule(form, MODEL, loss)
        network = rule.model(BATCH[0]) if rule.model else MODEL
        opt = rule.optimizer(optax.sgd(0.05))

        @compiled
        def trained(key):
            start, first, steps = jax.random.split(key, 3)
            params = network.init(start)

            def step(carry, i):
                params, state, momenta = carry
                g, state, _ = rule.grads(jax.random.fold_in(steps, i), state, params, BATCH)
                updates, momenta = opt.update(g, momenta, params)
                return (optax.apply_updates(params, updates), state, momenta), None

            begin = params, rule.init(first, params, BATCH[0]), opt.init(params)
            return jax.lax.scan(step, begin, jnp.arange(3))[0][0]

        return trained(jax.random.key(2))

    trained, same = run(lambda o, y: mse(no_derivative(o), y)), run(mse)
    assert all(bool((a == b).all()) for a, b in zip(jax.tree.leaves(trained), jax.tree.leaves(same), strict=True))


@pytest.mark.parametrize("form", ["sgd", "fa", "dfa", "np(difference=jvp)", "wp(difference=jvp)", "np; out=exact"])
def test_that_loss_raises_if_it_is_differentiated(form):
    rule = npt.make_rule(form, MODEL, lambda o, y: mse(no_derivative(o), y))
    with pytest.raises(RuntimeError, match="was differentiated"):
        jax.eval_shape(lambda key: rule.grads(key, rule.init(key, PARAMS, BATCH[0]), PARAMS, BATCH), jax.random.key(0))


@pytest.mark.parametrize("form", ["np", "np(sharing=batch)", "inp", "anp", "wp", "wp(rank=2)", "wp(sharing=example)"])
def test_jvp_is_the_limit_of_central_differences_in_float64(form):
    with jax.enable_x64(True):
        x, params = BATCH[0].astype("float64"), jax.tree.map(lambda p: p.astype("float64"), PARAMS)
        name, _, rest = form.partition("(")
        more = ", " + rest if rest else ")"
        rules = [npt.make_rule(f"{name}(difference={d}, sigma=1e-5{more}", MODEL, cross_entropy)
                 for d in ("central", "jvp")]  # fmt: skip
        run = compiled(lambda key, p, b: [r.grads(jax.random.clone(key), (), p, b)[0] for r in rules])
        grads = run(jax.random.key(4), params, (x, BATCH[1]))
        for central, exact in zip(*map(jax.tree.leaves, grads), strict=True):
            assert exact.dtype == jnp.float64
            assert float(jnp.abs(central - exact).max()) < 1e-7 * float(jnp.abs(exact).max() + 1)


def test_a_node_without_a_known_operator_has_no_low_rank_noise():
    model = npt.Model(lambda key: jnp.ones((5, 3)), lambda p, x, node=npt.plain: node("w", lambda p, h: h @ p, p, x))
    rule = weight_perturbation(model, mse, rank=1)
    with pytest.raises(npt.UserError, match=r"node 'w' has another: use rank=0"):
        rule.grads(jax.random.key(0), (), jnp.ones((5, 3)), BATCH)
