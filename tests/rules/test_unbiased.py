"""Perturbation rules estimate the gradient: z-scores of their mean over 4,000 draws, per parameter.

If a rule is unbiased, the rms of the z-scores is 1 within about 0.1 (68 independent signals); the threshold is 1.5.
This power detects a scale error of 15%, one noise draw with a batch-mean loss difference (the flaw of the original
code's released update) and a flipped sign: the mutants below, which must fail. For weight perturbation, which has a
larger variance, it detects a scale error of 40%.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.integrate import quad

import nodepert as npt
from nodepert.core import Info, Rule, adding, backprop, node_shapes, per_example, preactivations, pullback, stateless
from nodepert.models.fc import fc
from nodepert.rules import node
from nodepert.rules.node import node_perturbation
from nodepert.rules.noise import draw
from nodepert.rules.weight import weight_perturbation
from nodepert.training.losses import cross_entropy, linear_mse, mse

pytestmark = pytest.mark.usefixtures("strict_dtypes")

DRAWS, THRESHOLD = 4_000, 1.5
MODEL = fc((5,), 3, width=7, depth=2)
BATCH = jax.random.normal(jax.random.key(1), (4, 5)), jnp.array([0, 2, 1, 1])
PARAMS = MODEL.init(jax.random.key(2))
NOISES, DIFFERENCES = ("gaussian", "rademacher", "sphere"), ("forward", "central", "jvp")
FORMS = [
    *(f"np(noise={n}, difference={d}, sharing={s})"
      for (n, d), s in zip(itertools.product(NOISES, DIFFERENCES), itertools.cycle(("example", "batch")))),
    "np(presynaptic=noisy)",
    "np(presynaptic=noisy, difference=central, sharing=batch, samples=2)",
    "np(baseline=running)",
    "np(baseline=running, noise=rademacher, samples=2)",
    "np(baseline=running, presynaptic=clean)",
    "np(samples=3)",
    *(f"inp(noise={n}, difference={d})" for n, d in zip(NOISES, DIFFERENCES, strict=True)),
    "inp(samples=2)",
    *(f"wp(difference={d}, sharing={s}, rank={r})"
      for (s, r), d in zip(itertools.product(("batch", "example"), (0, 1)), itertools.cycle(DIFFERENCES))),
    "wp(noise=rademacher, rank=3)",
    "wp(noise=sphere)",
    "wp(samples=3)",
]  # fmt: skip
PRODUCT = [
    "wp(samples=3, rank=2)",
    *(f"{r}(noise={n}, difference={d}, sharing={s})"
      for r, n, d, s in itertools.product(("np", "wp"), NOISES, DIFFERENCES, ("example", "batch"))),
    *(f"inp(noise={n}, difference={d})" for n, d in itertools.product(NOISES, DIFFERENCES)),
    *(f"wp(difference={d}, sharing={s}, rank=1)" for d, s in itertools.product(DIFFERENCES, ("batch", "example"))),
    *(f"wp(noise={n}, rank=3)" for n in NOISES[1:]),
]  # fmt: skip


def rms_z(rule, model=MODEL, params=PARAMS, batch=BATCH, loss=mse, key=3, expected=None):
    """rms over all parameters of (mean of the estimates - gradient, or `expected`) / standard error."""
    exact = expected or backprop(model, loss).grads(jax.random.key(0), (), params, batch)[0]
    state = rule.init(jax.random.key(8), params, batch[0])
    _, state, _ = rule.grads(jax.random.key(9), state, params, batch)  # what a running expectation expects
    keys = jax.random.split(jax.random.key(key), DRAWS)
    draws = jax.jit(lambda keys: jax.lax.map(lambda k: rule.grads(k, state, params, batch)[0], keys, batch_size=1000))
    z = []
    for estimate, g in zip(jax.tree.leaves(draws(keys)), jax.tree.leaves(exact), strict=True):
        estimate, g = np.asarray(estimate, np.float64), np.asarray(g, np.float64)
        error = estimate.std(0) / DRAWS**0.5
        assert np.abs(g[error == 0]).max(initial=0) == 0  # a silent presynaptic unit: no gradient, no noise
        z.append(((estimate.mean(0) - g)[error > 0] / error[error > 0]).ravel())
    return float(np.sqrt(np.mean(np.concatenate(z) ** 2)))


@pytest.mark.parametrize(
    "form", [*FORMS, *(pytest.param(form, marks=pytest.mark.slow) for form in PRODUCT if form not in FORMS)]
)
def test_the_mean_is_the_gradient_in_every_form(form):
    assert rms_z(npt.make_rule(form, MODEL, mse)) < THRESHOLD


def test_several_samples_are_unbiased_for_cross_entropy():
    assert rms_z(node_perturbation(MODEL, cross_entropy, samples=3), loss=cross_entropy) < THRESHOLD


def test_running_baseline_is_unbiased_at_its_first_batch():
    rule, keys = node_perturbation(MODEL, mse, baseline="running"), jax.random.split(jax.random.key(3), DRAWS)
    fresh = rule.init(jax.random.key(8), PARAMS, BATCH[0])
    draws = jax.lax.map(lambda k: rule.grads(k, fresh, PARAMS, BATCH)[0]["out"]["b"], keys, batch_size=1000)
    exact = backprop(MODEL, mse).grads(jax.random.key(0), (), PARAMS, BATCH)[0]["out"]["b"]
    z = (draws.mean(0) - exact) / (draws.std(0) / DRAWS**0.5)
    assert float(jnp.square(z).mean() ** 0.5) < 2  # 3 numbers


def test_draws_in_several_passes_are_the_draws_of_one(monkeypatch):
    rule, key = node_perturbation(MODEL, mse, samples=7, difference="jvp"), jax.random.key
    together, _, _ = rule.grads(key(5), (), PARAMS, BATCH)
    monkeypatch.setattr(node, "ROWS_AT_ONCE", 3 * len(BATCH[0]))  # passes of 3, 3 and 1
    apart, _, _ = rule.grads(key(5), (), PARAMS, BATCH)
    for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(apart), strict=True):
        assert np.allclose(a, b, rtol=1e-4, atol=1e-6)


def mutant(signals_of):
    """Node perturbation with a deliberate error: signals_of(difference of losses (B,), sigma, noise) -> signals."""

    def grads(key, state, params, batch, sigma=1e-3):
        x, y = batch
        clean = per_example(mse, MODEL.apply(params, x), y)
        shapes = node_shapes(MODEL, params, x)
        xi = signals_of.draw(key, shapes)
        noisy = per_example(mse, MODEL.apply(params, x, adding(jax.tree.map(lambda n: sigma * n, xi))), y)
        signals = {name: signals_of((noisy - clean)[:, None], sigma, n) / len(x) for name, n in xi.items()}
        return pullback(MODEL, params, x, signals), state, Info(clean, clean)

    return Rule(stateless, grads)


def per_example_noise(key, shapes):
    return draw(key, shapes)


def one_draw_for_all(key, shapes):
    one = draw(key, {n: jax.ShapeDtypeStruct((1, *s.shape[1:]), s.dtype) for n, s in shapes.items()})
    return {name: jnp.broadcast_to(n, shapes[name].shape) for name, n in one.items()}


def with_noise(draw_noise, signals_of):
    signals_of.draw = draw_noise
    return mutant(signals_of)


def test_the_mutants_fail_and_the_correct_form_passes():
    right = with_noise(per_example_noise, lambda d, sigma, xi: d / sigma * xi)
    shared = with_noise(one_draw_for_all, lambda d, sigma, xi: d.mean() / sigma * xi)
    scale = with_noise(per_example_noise, lambda d, sigma, xi: 1.15 * d / sigma * xi)
    sign = with_noise(per_example_noise, lambda d, sigma, xi: -d / sigma * xi)
    assert rms_z(right) < THRESHOLD
    assert rms_z(shared) > THRESHOLD
    assert rms_z(scale) > THRESHOLD
    assert rms_z(sign) > THRESHOLD


def weighted(rule, factor):
    """The rule with its gradient times a factor: a scale error."""

    def grads(*arguments):
        g, state, info = rule.grads(*arguments)
        return jax.tree.map(lambda leaf: factor * leaf, g), state, info

    return Rule(rule.init, grads)


@pytest.mark.parametrize("form", ["np(presynaptic=noisy)", "np(baseline=running)", "inp", "wp", "wp(rank=1)"])
def test_a_wrong_scale_is_found_in_every_family(form):
    rule = npt.make_rule(form.replace("running", "running, sigma=0.03"), MODEL, mse)
    factor = 1.4 if form.startswith("wp") else 1.25
    if "running" in form:
        factor = 1.6  # its variance is larger: the expectation differs from the loss by what one noisy pass does
    assert rms_z(weighted(rule, factor)) > THRESHOLD
    assert rms_z(weighted(rule, -1.0)) > THRESHOLD


# ------------------------------------------------------------------ anp: its own, biased expectation


def anp_expectation(model, params, x, y, loss):
    """E of the anp signals for Gaussian noise and exact differences.

    With da = J xi over all units and dL = delta . xi the signal is n J xi xi^T delta / (xi^T M xi), M = J^T J =
    V diag(lambda) V^T; and E[eta_i^2 / sum_j lambda_j eta_j^2] = int_0^inf (1 + 2 lambda_i t)^-1 prod_j
    (1 + 2 lambda_j t)^-1/2 dt for standard normal eta.
    """
    shapes = node_shapes(model, params, x[:1])
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    signals = {name: [] for name in shapes}
    for b in range(len(x)):
        one, target = x[b : b + 1], y[b : b + 1]
        jacobian = jax.jacobian(lambda e, one=one: preactivations(model, params, one, adding(e)))(zeros)
        delta = jax.grad(
            lambda e, one=one, target=target: per_example(loss, model.apply(params, one, adding(e)), target).sum()
        )(zeros)
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


@pytest.mark.parametrize("difference", ["forward", "central", "jvp"])
def test_the_mean_of_anp_is_its_biased_expectation_and_not_the_gradient(difference):
    rule = npt.make_rule(f"anp(difference={difference})", MODEL, mse)
    expected = pullback(MODEL, PARAMS, BATCH[0], anp_expectation(MODEL, PARAMS, *BATCH, mse))
    assert rms_z(rule, expected=expected) < THRESHOLD
    assert rms_z(rule) > 2 * THRESHOLD


def test_one_sided_np_is_unbiased_at_any_sigma_for_a_quadratic_loss_on_one_linear_layer():
    model = fc((5,), 3, depth=0)
    params, batch = model.init(jax.random.key(2)), (BATCH[0], jax.random.normal(jax.random.key(4), (4, 3)))
    rule = node_perturbation(model, linear_mse, sigma=2.0)
    assert rms_z(rule, model, params, batch, linear_mse) < THRESHOLD


@jax.custom_jvp
def no_derivative(outputs):
    return outputs


@no_derivative.defjvp
def _(primals, tangents):
    raise RuntimeError("the loss was differentiated")


NO_DERIVATIVE = [
    "np", "np(difference=central)", "np(baseline=running)", "np(presynaptic=noisy)", "inp", "anp", "wp",
    "wp(rank=1, sharing=example, difference=central)", "dfa(error=softmax)", "dfa(error=sigmoid)", "decorrelate(np)",
    "np; out=dfa(error=linear)",
]  # fmt: skip


@pytest.mark.parametrize("form", NO_DERIVATIVE)
def test_rules_that_need_no_derivative_train_with_a_loss_whose_derivative_raises(form):
    def run(loss):
        rule = npt.make_rule(form, MODEL, loss)
        network = rule.model(BATCH[0]) if rule.model else MODEL
        params, opt = network.init(jax.random.key(2)), rule.optimizer(optax.sgd(0.05))
        state, momenta = rule.init(jax.random.key(3), params, BATCH[0]), opt.init(params)
        for i in range(3):
            g, state, _ = jax.jit(rule.grads)(jax.random.key(10 + i), state, params, BATCH)
            updates, momenta = opt.update(g, momenta, params)
            params = optax.apply_updates(params, updates)
        return params

    trained, same = run(lambda o, y: mse(no_derivative(o), y)), run(mse)
    assert all(bool((a == b).all()) for a, b in zip(jax.tree.leaves(trained), jax.tree.leaves(same), strict=True))


@pytest.mark.parametrize("form", ["sgd", "fa", "dfa", "np(difference=jvp)", "wp(difference=jvp)", "np; out=exact"])
def test_that_loss_raises_if_it_is_differentiated(form):
    rule = npt.make_rule(form, MODEL, lambda o, y: mse(no_derivative(o), y))
    with pytest.raises(RuntimeError, match="was differentiated"):
        rule.grads(jax.random.key(0), rule.init(jax.random.key(1), PARAMS, BATCH[0]), PARAMS, BATCH)


@pytest.mark.parametrize("form", ["np", "np(sharing=batch)", "inp", "anp", "wp", "wp(rank=2)", "wp(sharing=example)"])
def test_jvp_is_the_limit_of_central_differences_in_float64(form):
    with jax.enable_x64(True):
        x, params = BATCH[0].astype("float64"), jax.tree.map(lambda p: p.astype("float64"), PARAMS)
        name, _, rest = form.partition("(")
        more = ", " + rest if rest else ")"
        grads = [
            npt.make_rule(f"{name}(difference={d}, sigma=1e-5{more}", MODEL, cross_entropy).grads(
                jax.random.key(4), (), params, (x, BATCH[1])
            )[0]
            for d in ("central", "jvp")
        ]
        for central, exact in zip(*map(jax.tree.leaves, grads), strict=True):
            assert exact.dtype == jnp.float64
            assert float(jnp.abs(central - exact).max()) < 1e-7 * float(jnp.abs(exact).max() + 1)


def test_a_node_without_a_known_operator_has_no_low_rank_noise():
    model = npt.Model(lambda key: jnp.ones((5, 3)), lambda p, x, node=npt.plain: node("w", lambda p, h: h @ p, p, x))
    rule = weight_perturbation(model, mse, rank=1)
    with pytest.raises(npt.UserError, match=r"node 'w' has another: use rank=0"):
        rule.grads(jax.random.key(0), (), jnp.ones((5, 3)), BATCH)
