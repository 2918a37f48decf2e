"""Optimizers against their equations; steps in optax's own are not tested again."""

import jax.numpy as jnp
import numpy as np
import pytest

import nodepert as npt
from nodepert.registry import make
from nodepert.studies.setup import groups

W = {"a": jnp.array([3.0, 0.0]), "b": jnp.array([[0.0], [4.0]])}


def step(spec, grads, lr=0.5):
    optimizer = make("optimizer", spec, lr, 10)
    return optimizer.update(grads, optimizer.init(W), W)[0]


@pytest.mark.parametrize("size", [0.1, 1.0])
def test_gradients_above_the_norm_are_scaled_to_it_and_others_stay(size):
    grads = {name: size * value for name, value in W.items()}  # norm 5 size
    updates = step("clip(sgd, norm=2)", grads)
    for name in W:
        np.testing.assert_allclose(updates[name], -0.5 * grads[name] * min(1, 2 / (5 * size)), rtol=1e-6)


def test_the_decay_of_adamw_is_in_units_of_the_learning_rate():
    plain, decayed = (step(spec, W, lr=0.1) for spec in ("adam", "adamw(weight_decay=0.2)"))
    for name in W:
        np.testing.assert_allclose(decayed[name] - plain[name], -0.1 * 0.2 * W[name], atol=1e-7)


@pytest.mark.parametrize("spec", ["clip(sgd, norm=0)", "adamw(weight_decay=-1)"])
def test_wrong_numbers_are_one_line(spec):
    with pytest.raises(npt.UserError, match=r"norm must be positive|weight_decay must be at least 0"):
        make("optimizer", spec, 0.1, 10)


def test_replicas_that_differ_in_the_norm_share_a_program():
    runs = [npt.Run(dataset="digits", optimizer=f"clip(adam, norm={norm})") for norm in (0.5, 1.0)]
    assert groups(runs) == [[0, 1]]
