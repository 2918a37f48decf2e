"""Truncated backpropagation through time: its exact limits, and its windows, by a loop in Python."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nodepert as npt
from nodepert.core import Model, backprop, plain
from nodepert.diagnostics.declared import bias_of_spec
from nodepert.errors import UserError
from nodepert.models.layers import dense

pytestmark = pytest.mark.usefixtures("quickly_compiled")

T = 6
LOSS = npt.make_loss("cross-entropy")
RANDOM = np.random.default_rng(0)
X = jnp.asarray(RANDOM.normal(size=(3, T, 2)), jnp.float32)
Y = jnp.asarray(RANDOM.integers(0, 3, size=(3, T)), jnp.int32)


@functools.cache
def gradient(rule, model):
    rule = npt.make_rule(rule, model, LOSS) if isinstance(rule, str) else rule
    return jax.jit(lambda: rule.grads(jax.random.key(0), (), model.init(jax.random.key(1)), (X, Y))[0])()


RNN = npt.make_model("rnn(width=4, leak=0.5, readout=every)", (T, 2), 3)
GRU = npt.make_model("gru(width=3, readout=every)", (T, 2), 3)


def same(a, b):
    return all(np.allclose(p, q, atol=1e-6) for p, q in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def in_windows(model, steps):
    """`rnn`, step by step in Python, whose state has no derivative where a window starts."""

    def apply(params, x, node=plain):
        v, outputs = jnp.zeros((len(x), 4)), []
        for t in range(T):
            v = jax.lax.stop_gradient(v) if t % steps == 0 else v
            a = dense(params["cell"], jnp.concatenate([x[:, t], jnp.tanh(v)], -1))
            v = 0.5 * v + 0.5 * a
            outputs.append(dense(params["out"], jnp.tanh(v)))
        return jnp.stack(outputs, 1)

    return backprop(Model(model.init, apply), LOSS)


@pytest.mark.parametrize("steps", [1, 4, T])
def test_errors_stay_within_a_window(steps):
    found = gradient(f"bptt(steps={steps})", RNN)
    assert same(found, gradient(in_windows(RNN, steps), RNN))
    assert same(found, gradient("sgd", RNN)) == (steps == T)


@pytest.mark.parametrize("rule", ["bptt", f"bptt(steps={T})"])
def test_windows_as_long_as_the_sequence_give_the_gradient(rule):
    assert same(gradient(rule, GRU), gradient("sgd", GRU))


def test_a_network_without_a_loop_has_its_gradient():
    def apply(params, x, node=plain):
        return node("out", dense, params, jnp.cumsum(x, 1))

    model = Model(lambda key: {"w": jnp.ones((2, 3)), "b": jnp.zeros(3)}, apply)
    assert same(gradient("bptt(steps=1)", model), gradient("sgd", model))


def test_it_declares_a_bias_where_it_cuts():
    specs = ("bptt", "bptt(steps=0)", "bptt(steps=3)")
    assert [bias_of_spec(npt.registry.check("rule", s)) for s in specs] == ["exact", "exact", "biased"]


def test_windows_of_negative_length_are_refused():
    with pytest.raises((UserError, ValueError), match="steps must be at least 0"):
        npt.make_rule("bptt(steps=-1)", RNN, LOSS)
