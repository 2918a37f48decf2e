"""Noise on weights: active inputs only, and orthogonal factors; second moments in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from estimates import check_expected, drawn

import nodepert as npt
from nodepert.core import backprop
from nodepert.diagnostics.conformance.common import compiled
from nodepert.models.conv import conv
from nodepert.models.fc import fc
from nodepert.rules import weight
from nodepert.rules.noise import draw
from nodepert.rules.synapses import active_inputs, factors
from nodepert.training.losses import mse

pytestmark = pytest.mark.usefixtures("quickly_compiled", "strict_dtypes")

INPUTS, OUTPUTS, DRAWS = 6, 3, 4000
LAYER, RELU = fc((INPUTS,), OUTPUTS, depth=0), fc((INPUTS,), OUTPUTS, width=5, depth=1)
X = jnp.where(jnp.asarray(np.random.default_rng(0).random((4, INPUTS))) < 0.5, 0.0, 1.3)
BATCH = X, jnp.array([0, 1, 2, 0])
ONE = jax.tree.map(lambda a: a[:1], BATCH)


def gradient(model, params, batch):
    return compiled(lambda b: backprop(model, mse).grads(jax.random.key(0), (), params, b)[0])(batch)


def length(grads):
    return sum(np.square(np.asarray(g, np.float64)).reshape(len(g), -1).sum(1) for g in jax.tree.leaves(grads))


ACTIVE = int((X[0] != 0).sum()) * OUTPUTS + OUTPUTS  # of one example, with the biases
ALL = INPUTS * OUTPUTS + OUTPUTS


@pytest.mark.parametrize(
    ("form", "factor"),
    [
        ("noise=gaussian", ALL + 2),
        ("active=True, noise=gaussian", ACTIVE + 2),
        ("active=True, noise=rademacher", ACTIVE),
        ("rank=1, noise=orthogonal", ALL),
        ("rank=3, noise=orthogonal", ALL),
    ],
)
def test_the_second_moment_counts_the_weights_that_are_credited(form, factor):
    params = LAYER.init(jax.random.key(1))
    squares = length(drawn(npt.make_rule(f"wp(difference=jvp, {form})", LAYER, mse), params, ONE, DRAWS))
    exact = length(jax.tree.map(lambda g: g[None], gradient(LAYER, params, ONE)))[0]
    assert abs(squares.mean() - factor * exact) < 4 * squares.std() / len(squares) ** 0.5
    assert ACTIVE < ALL - 5


@pytest.mark.parametrize(
    "form", ["active=True", "active=True, sharing=example", "active=True, rank=2, noise=orthogonal"]
)
def test_the_mean_is_the_gradient_behind_relus_and_not_if_active_inputs_are_left_out(form, monkeypatch):
    params = RELU.init(jax.random.key(1))
    rule = npt.make_rule(f"wp(difference=jvp, {form})", RELU, mse)
    check_expected(drawn(rule, params, BATCH, 3 * DRAWS), gradient(RELU, params, BATCH))
    right = weight.active_inputs
    monkeypatch.setattr(
        weight, "active_inputs", lambda *args: {n: g * float(n != "out['w']") for n, g in right(*args).items()}
    )
    with pytest.raises(AssertionError):
        check_expected(drawn(rule, params, BATCH, 3 * DRAWS), gradient(RELU, params, BATCH))


def test_inputs_of_a_convolution_are_active_where_any_patch_has_them():
    model = conv((8, 8, 2), 3)
    params = model.init(jax.random.key(0))
    x = jnp.zeros((2, 8, 8, 2)).at[0, 4, 4, 1].set(-1.0).at[1, :, :, 0].set(2.0)
    gates = compiled(lambda p, x: active_inputs(model, p, x))(params, x)
    name = next(iter(gates))
    assert gates[name].shape == (2, *params[name.removesuffix("['w']")]["w"].shape[:-1], 1)
    assert np.array_equal(gates[name][0, ..., 0], np.broadcast_to([0, 1], gates[name].shape[1:-1]))
    assert np.array_equal(gates[name][1, ..., 0], np.broadcast_to([1, 0], gates[name].shape[1:-1]))


def test_in_time_an_input_is_active_if_it_is_at_some_step():
    model = npt.make_model("rnn(width=4)", (5, 3), 2)
    x = jnp.zeros((2, 5, 3)).at[0, 2, 1].set(1.0)
    gates = compiled(lambda p, x: active_inputs(model, p, x))(model.init(jax.random.key(0)), x)
    assert np.array_equal(gates["cell['w']"][..., 0], [[0, 1, 0, 1, 1, 1, 1], 7 * [0]])  # inputs, then the state


def test_columns_of_a_factor_are_orthogonal_and_have_no_preferred_sign():
    shapes = {"w": jax.ShapeDtypeStruct((2000, 3, 2, 4), "float32"), "b": jax.ShapeDtypeStruct((2000, 3), "float32")}
    found = factors(jax.random.key(0), shapes, "orthogonal", ("w",))
    columns = np.asarray(found["w"]).reshape(2000, 6, 4)
    assert np.allclose(np.einsum("dmi,dmj->dij", columns, columns), 6 * np.eye(4), atol=1e-4)
    assert np.abs(columns.mean(0)).max() < 4 / 2000**0.5
    assert np.array_equal(found["b"], draw(jax.random.key(0), shapes, "rademacher")["b"])


def test_what_cannot_be_is_one_line():
    with pytest.raises(npt.UserError, match="noise=orthogonal needs rank"):
        npt.make_rule("wp(noise=orthogonal)", LAYER, mse)
    rule = npt.make_rule("wp(noise=orthogonal, rank=4)", LAYER, mse)
    with pytest.raises(npt.UserError, match=r"a rank of at most 3, the inputs or outputs of out\['w'\]; got 4"):
        rule.grads(jax.random.key(0), (), LAYER.init(jax.random.key(1)), BATCH)


def test_the_default_has_the_identity_that_it_had():
    assert npt.Run(rule="wp(active=False)").id == npt.Run(rule="wp").id
