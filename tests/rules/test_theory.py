"""Exact results that node perturbation must obey: learning curves, moments and the law of averaging."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nodepert.core import Model, adding, backprop, node_shapes, per_example, plain, preactivations
from nodepert.models.fc import fc
from nodepert.models.layers import dense
from nodepert.rules.activity import layerwise_perturbation
from nodepert.rules.node import node_perturbation
from nodepert.rules.weight import weight_perturbation

pytestmark = pytest.mark.usefixtures("quickly_compiled", "strict_dtypes")

N, M, S, SIGMA = 8, 3, 0.5, 1.0  # inputs, outputs, std of the target noise, a sigma whose effect can be seen
LINEAR = Model(lambda key: jnp.zeros((N, M)), lambda p, x, node=plain: node("w", lambda p, h: h @ p, p, x))


def half_square(outputs, targets):
    return jnp.square(outputs - targets).sum(-1) / 2


# ------------------------------------------------------------------ O1, learning curve of one linear layer

D = M * N  # weights
RULES = {  # name: (rule, k, Q) of the recursion for v = E||W - W*||^2
    "gradient descent": (backprop(LINEAR, half_square), 1, 0),
    "gaussian forward": (node_perturbation(LINEAR, half_square, sigma=SIGMA), M + 2, N * M * (M + 2) * (M + 4)),
    "rademacher forward": (node_perturbation(LINEAR, half_square, sigma=SIGMA, noise="rademacher"), M, N * M**3),
    "gaussian central": (node_perturbation(LINEAR, half_square, sigma=SIGMA, difference="central"), M + 2, 0),
    "rademacher jvp": (node_perturbation(LINEAR, half_square, noise="rademacher", difference="jvp"), M, 0),
    "sphere forward": (node_perturbation(LINEAR, half_square, sigma=SIGMA, noise="sphere"), M, N * M**3),
    "wp gaussian forward": (weight_perturbation(LINEAR, half_square, sigma=SIGMA), D + 2,
                            N * (N + 2) * M * (M + 2) * (D + 4)),
    # Signs: E(sum_j (x . psi_j)^2)^2 = M (M + 2) |x|^4 - 2 M sum_i x_i^4, and ||Psi||^2 = M N.
    "wp rademacher forward": (weight_perturbation(LINEAR, half_square, sigma=SIGMA, noise="rademacher"), D,
                              D**2 * ((M + 2) * (N + 2) - 6)),
    "wp sphere forward": (weight_perturbation(LINEAR, half_square, sigma=SIGMA, noise="sphere"), D,
                          N * (N + 2) * M * (M + 2) * D**2 / (D + 2)),
    "wp gaussian central": (weight_perturbation(LINEAR, half_square, sigma=SIGMA, difference="central"), D + 2, 0),
    "wp rademacher jvp": (weight_perturbation(LINEAR, half_square, noise="rademacher", difference="jvp"), D, 0),
}  # fmt: skip
STEPS, CURVES = 150, 2000  # a wrong k is then at least six standard errors off, a missing noise term thirty


def simulated(rule, eta):
    """||W - W*||^2 after every step of online learning, for many independent runs: (CURVES, STEPS)."""

    def curve(key):
        teacher, steps = jax.random.split(key)
        w_star = jax.random.normal(teacher, (N, M))

        def step(w, t):
            k_x, k_s, k_rule = jax.random.split(jax.random.fold_in(steps, t), 3)
            x = jax.random.normal(k_x, (1, N))
            y = x @ w_star + S * jax.random.normal(k_s, (1, M))
            w = w - eta * rule.grads(k_rule, (), w, (x, y))[0]
            return w, jnp.square(w - w_star).sum()

        return jax.lax.scan(step, jnp.zeros((N, M)), jnp.arange(STEPS))[1]

    keys = jax.random.split(jax.random.key(0), CURVES)
    return np.asarray(jax.jit(jax.vmap(curve))(keys), np.float64)


def predicted(k, q, eta):
    v, curve = N * M, []
    for _ in range(STEPS):
        v = v * (1 - 2 * eta + eta**2 * k * (N + 2)) + eta**2 * k * N * M * S**2 + eta**2 * SIGMA**2 * q / 4
        curve.append(v)
    return np.array(curve)


@pytest.mark.parametrize("name", RULES)
def test_the_learning_curve_of_one_linear_layer_is_within_three_standard_errors(name):
    rule, k, q = RULES[name]
    eta = (0.8 if name.startswith("wp") else 0.5) / (k * (N + 2))  # near, or half, the fastest rate
    curves = simulated(rule, eta)
    at = [4, 14, 49, STEPS - 1]
    error = curves.std(0)[at] / CURVES**0.5
    z = (curves.mean(0)[at] - predicted(k, q, eta)[at]) / error
    assert np.abs(z).max() < 3, z
    # The test can tell: a neighbouring k, or the noise term left out, is refused.
    assert np.abs((curves.mean(0)[at] - predicted(k + max(1, k // 6), q, eta)[at]) / error).max() > 3
    if q:
        assert np.abs((curves.mean(0)[at] - predicted(k, 0, eta)[at]) / error).max() > 3


# ------------------------------------------------------------------ O4, O5, O7: moments of the estimate


def estimates(rule, params, batch, draws=40_000):
    keys = jax.random.split(jax.random.key(7), draws)
    run = jax.jit(lambda ks: jax.lax.map(lambda k: rule.grads(k, (), params, batch)[0], ks, batch_size=2000))
    return run(keys)


@pytest.mark.parametrize("noise", ["gaussian", "rademacher"])
def test_second_moment_of_every_layer(noise):
    """O5: E||g_l||^2 = ||z_l||^2 (n_l D + 2 ||delta_l||^2), D = sum_k ||delta_k||^2; Rademacher drops the 2."""
    model = fc((6,), 3, width=8, depth=2)
    params, x, y = model.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (1, 6)), jnp.ones((1, 3))
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape), node_shapes(model, params, x))
    delta = jax.grad(lambda e: per_example(half_square, model.apply(params, x, adding(e)), y).sum())(zeros)
    a = preactivations(model, params, x)
    z = {"fc0": x, "fc1": jax.nn.relu(a["fc0"]), "out": jax.nn.relu(a["fc1"])}
    total = sum(float(jnp.square(d).sum()) for d in delta.values())

    drawn = estimates(node_perturbation(model, half_square, difference="jvp", noise=noise), params, (x, y))
    for name, d in delta.items():
        square = np.asarray(jnp.square(drawn[name]["w"]).sum((1, 2)), np.float64)
        own = 2 * float(jnp.square(d).sum()) if noise == "gaussian" else 0
        expected = float(jnp.square(z[name]).sum()) * (d.size * total + own)
        error = square.std() / len(square) ** 0.5
        assert abs(square.mean() - expected) < 4 * error + 1e-5 * expected, name


@pytest.mark.parametrize("noise", ["gaussian", "rademacher", "sphere"])
def test_second_moment_of_layerwise_perturbation(noise):
    """O6: E||g_l||^2 = n_l ||delta_l||^2 ||z_l||^2, whatever the noise."""
    model = fc((6,), 3, width=8, depth=2)
    params, x, y = model.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (1, 6)), jnp.ones((1, 3))
    exact, _, _ = backprop(model, half_square).grads(jax.random.key(0), (), params, (x, y))
    drawn = estimates(layerwise_perturbation(model, half_square, difference="jvp", noise=noise), params, (x, y))
    for name, g in exact.items():  # one example: ||gradient||^2 = ||delta||^2 ||z||^2
        square = np.asarray(jnp.square(drawn[name]["w"]).sum((1, 2)), np.float64)
        expected = g["b"].size * float(jnp.square(g["w"]).sum())
        error = square.std() / len(square) ** 0.5
        assert abs(square.mean() - expected) < 4 * error + 1e-5 * expected, name


@pytest.mark.parametrize(("rank", "factor"), [(0, D + 2), (1, (M + 2) * (N + 2))])
def test_second_moment_of_weight_perturbation(rank, factor):
    """One draw: E||g||^2 = (d + 2) ||gradient||^2; with noise A B^T it is (m + 2)(n + 2) ||gradient||^2."""
    model = Model(lambda key: None, lambda p, x, node=plain: node("w", dense, p, x))
    params = {"w": jax.random.normal(jax.random.key(3), (N, M)), "b": jnp.zeros(M)}
    batch = jax.random.normal(jax.random.key(1), (4, N)), jax.random.normal(jax.random.key(2), (4, M))
    exact, _, _ = backprop(model, half_square).grads(jax.random.key(0), (), params, batch)
    # The bias has noise of its own, which adds E||Psi_w||^2 = m n times its squared gradient.
    drawn = estimates(weight_perturbation(model, half_square, difference="jvp", rank=rank), params, batch)["w"]
    square = np.asarray(jnp.square(drawn).sum((1, 2)), np.float64)
    expected = factor * float(jnp.square(exact["w"]).sum()) + D * float(jnp.square(exact["b"]).sum())
    assert abs(square.mean() - expected) < 4 * square.std() / len(square) ** 0.5
    assert abs(square.mean() - 1.15 * expected) > 4 * square.std() / len(square) ** 0.5


def total_variance(draws):
    """Sum of the variances of all components, and its standard error over eight groups of draws."""
    groups = np.asarray(draws, np.float64).reshape(8, -1, draws[0].size)
    values = groups.var(1, ddof=1).sum(-1)
    return values.mean(), values.std(ddof=1) / 8**0.5


def test_k_draws_divide_the_variance_by_k():
    batch = jax.random.normal(jax.random.key(1), (2, N)), jax.random.normal(jax.random.key(2), (2, M))
    w = jax.random.normal(jax.random.key(3), (N, M))
    one, one_error = total_variance(estimates(node_perturbation(LINEAR, half_square), w, batch))
    four, four_error = total_variance(estimates(node_perturbation(LINEAR, half_square, samples=4), w, batch))
    assert abs(4 * four - one) < 4 * (16 * four_error**2 + one_error**2) ** 0.5
    assert one_error / one < 0.02  # so that K = 4 cannot be taken for 3 or 5


@pytest.mark.parametrize("noise", ["gaussian", "rademacher"])
@pytest.mark.parametrize("sharing", ["example", "batch"])
@pytest.mark.parametrize("perturbation", [node_perturbation, weight_perturbation])
def test_total_variance_of_a_sampled_batch(noise, sharing, perturbation):
    """O4: [(d+2) V + (d+1) S]/B with noise of its own for each example, (d+2) V/B + (d+1) S with one draw for all."""
    batchsize = 4
    w, w_star = (jax.random.normal(jax.random.key(i), (N, M)) for i in (3, 4))
    rule = perturbation(LINEAR, half_square, difference="jvp", noise=noise, sharing=sharing)

    def estimate(key):
        k_x, k_rule = jax.random.split(key)
        x = jax.random.normal(k_x, (batchsize, N))
        return rule.grads(k_rule, (), w, (x, x @ w_star))[0]

    keys = jax.random.split(jax.random.key(5), 80_000)
    measured, error = total_variance(jax.jit(jax.vmap(estimate))(keys))

    v = w - w_star  # one example's gradient is x x^T v: E|g|^2 = (N + 2) |v|^2 for standard normal x
    s = float(jnp.square(v).sum())
    spread = (N + 2) * s - s
    d = M if perturbation is node_perturbation else D
    a, b = (d + 2, d + 1) if noise == "gaussian" else (d, d - 1)
    expected = {"example": (a * spread + b * s) / batchsize, "batch": a * spread / batchsize + b * s}
    assert abs(measured - expected[sharing]) < 4 * error
    other = {"example": "batch", "batch": "example"}[sharing]
    assert abs(measured - expected[other]) > 4 * error
