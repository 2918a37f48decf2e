"""Guessed directions: the signals are the projection of the error signals on the guess."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nodepert as npt
from nodepert.core import adding, backprop, node_shapes, preactivations
from nodepert.models.fc import fc
from nodepert.training.losses import mse

pytestmark = pytest.mark.usefixtures("quickly_compiled", "strict_dtypes")

MODEL = fc((5,), 3, width=9, depth=2)
PARAMS = MODEL.init(jax.random.key(2))
BATCH = jnp.asarray(np.random.default_rng(2).normal(size=(6, 5)), jnp.float32), jnp.array([0, 1, 2, 1, 0, 2])


def gradients(rule, state=None):
    rule = npt.make_rule(rule, MODEL, mse)
    state = rule.init(jax.random.key(1), PARAMS, BATCH[0]) if state is None else state
    return rule.grads(jax.random.key(3), state, PARAMS, BATCH)


def exact():
    return backprop(MODEL, mse).grads(jax.random.key(0), (), PARAMS, BATCH)[0]


@pytest.mark.parametrize("difference", ["jvp", "forward", "central"])
def test_the_signals_are_the_projection_of_the_error_signals_on_the_guess(difference):
    shapes = node_shapes(MODEL, PARAMS, BATCH[0])
    zeros = {name: jnp.zeros(s.shape) for name, s in shapes.items()}
    delta = jax.grad(lambda eps: mse(MODEL.apply(PARAMS, BATCH[0], adding(eps)), BATCH[1]).sum())(zeros)
    rule = npt.make_rule(f"guess(difference={difference})", MODEL, mse)
    state = rule.init(jax.random.key(1), PARAMS, BATCH[0])
    relu = {name: np.asarray(a > 0, np.float32) for name, a in preactivations(MODEL, PARAMS, BATCH[0]).items()}
    guess = {name: relu[name] * (delta["out"] @ b) for name, b in zip(("fc0", "fc1"), state.values(), strict=True)}
    square = sum(np.square(g).sum(1) for g in guess.values())
    inner = sum((g * delta[name]).sum(1) for name, g in guess.items())
    expected = {name: (inner / square)[:, None] * g for name, g in guess.items()} | {"out": delta["out"]}
    found = rule.grads(jax.random.key(3), state, PARAMS, BATCH)[0]
    for name, s in expected.items():
        off = np.abs(found[name]["b"] - s.mean(0)).max()
        assert off < (1e-4 if difference == "jvp" else 5e-3) * np.abs(delta[name]).max()
    assert np.abs(expected["fc0"].mean(0) - delta["fc0"].mean(0)).max() > 0.1 * np.abs(delta["fc0"]).max()


def test_a_guess_that_is_right_gives_the_gradient_and_one_against_it_the_same():
    state = gradients("guess(guide=kp)")[1]
    assert jax.tree.structure(state) == jax.tree.structure(PARAMS)
    for factor in (0, -2):  # B - W: B = W, and B = -W
        right = jax.tree.map(lambda p, f=factor: f * p, PARAMS)
        found = gradients("guess(guide=kp, difference=jvp)", right)[0]
        same = [np.allclose(a, b, atol=1e-3) for a, b in zip(*map(jax.tree.leaves, (found, exact())), strict=True)]
        assert all(same) if factor == 0 else not all(same)  # at fc0 the sign is right twice, at fc1 once


def test_without_a_hidden_node_it_is_exact():
    model, x = npt.make_model("fc(depth=0)", (5,), 3), BATCH[0]
    params = model.init(jax.random.key(0))
    found = npt.make_rule("guess", model, mse)
    grads = found.grads(jax.random.key(1), found.init(jax.random.key(2), params, x), params, BATCH)[0]
    true = backprop(model, mse).grads(jax.random.key(0), (), params, BATCH)[0]
    assert all(np.allclose(a, b, atol=1e-4) for a, b in zip(*map(jax.tree.leaves, (grads, true)), strict=True))


def test_a_guess_of_zero_gives_zero():
    state = {"fc1": jnp.zeros((3, 9)), "out": jnp.zeros((3, 9))}
    grads = gradients("guess", state)[0]
    assert not np.any(grads["fc0"]["w"]) and np.any(grads["out"]["w"])


def test_a_guide_that_predicts_nothing_is_one_line():
    with pytest.raises(npt.UserError, match="guess needs a guide that predicts: dfa or kp"):
        npt.make_rule("guess(guide=none)", MODEL, mse)
