"""Recurrent layers of flax: its own outputs and gradients, an unbiased rule through them; hidden loops."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from estimates import check_expected, drawn
from flax import linen as nn
from flax import nnx

import nodepert as npt
from nodepert.core import backprop, node_shapes
from nodepert.diagnostics.conformance.common import compiled
from nodepert.training.losses import cross_entropy

pytestmark = pytest.mark.usefixtures("quickly_compiled")

B, T = 3, 4
X = jnp.asarray(np.random.default_rng(1).normal(size=(B, T, 2)), jnp.float32)
Y = jnp.array([0, 2, 1])
LENGTHS = jnp.array([2, 4, 1])


class Linen(nn.Module):
    """A recurrent layer, given by a function, and a readout."""

    how: callable

    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(self.how(x))


class Nnx(nnx.Module):
    def __init__(self, rnn, width, how=lambda rnn, x: rnn(x)[:, -1]):
        self.rnn, self.out, self.how = rnn, nnx.Linear(width, 3, rngs=nnx.Rngs(1)), how

    def __call__(self, x):
        return self.out(self.how(self.rnn, x))


def padded(x):
    (_, h), _ = nn.RNN(nn.LSTMCell(4), return_carry=True)(x, seq_lengths=LENGTHS[: len(x)])
    return h


def both_ways(x):
    h = nn.Bidirectional(nn.RNN(nn.SimpleCell(4)), nn.RNN(nn.OptimizedLSTMCell(4)))(x)
    return nn.RNN(nn.GRUCell(4), time_major=True, reverse=True)(h.swapaxes(0, 1))[-1]


def of_nnx(cell, **how):
    return nnx.RNN(cell(2, 4, rngs=nnx.Rngs(0)), **how)


LINEN = {
    "gru": lambda x: nn.RNN(nn.GRUCell(4))(x, initial_carry=jnp.ones((len(x), 4)))[:, -1],
    "padded": padded,
    "both ways": both_ways,
}
NNX = {
    "gru": lambda: Nnx(of_nnx(nnx.GRUCell), 4),
    "both ways": lambda: Nnx(nnx.Bidirectional(of_nnx(nnx.SimpleCell), of_nnx(nnx.OptimizedLSTMCell)), 8),
    "carry": lambda: Nnx(of_nnx(nnx.LSTMCell, return_carry=True, reverse=True, keep_order=True), 4,
                         lambda rnn, x: rnn(x)[0][1]),
}  # fmt: skip


def same_as(model, params, forward):
    """The outputs and gradients are those of the framework's own `forward`, (params, x) -> outputs."""

    def theirs(params):
        return forward(params, X), jax.grad(lambda p: cross_entropy(forward(p, X), Y).mean())(params)

    def ours(params):
        return model.apply(params, X), backprop(model, cross_entropy).grads(jax.random.key(0), (), params, (X, Y))[0]

    for a, b in zip(*(jax.tree.leaves(compiled(f)(params)) for f in (ours, theirs)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("name", LINEN)
def test_recurrent_layers_of_linen_are_as_flax_computes_them(name):
    module = Linen(LINEN[name])
    model = npt.from_flax(module, X)
    params = model.init(jax.random.key(0))
    same_as(model, params, lambda params, x: module.apply({"params": params}, x))
    assert {s.shape[:2] for n, s in node_shapes(model, params, X).items() if n != "Dense_0"} == {(B, T)}


@pytest.mark.parametrize("name", NNX)
def test_recurrent_layers_of_nnx_are_as_flax_computes_them(name):
    module = NNX[name]()
    model, (graph, _, rest) = npt.from_flax(module, X), nnx.split(module, nnx.Param, ...)
    rest = nnx.to_pure_dict(rest)
    params = model.init(jax.random.key(0))

    def forward(params, x):
        return nnx.merge(graph, params, rest)(x)

    same_as(model, params, forward)
    assert {s.shape[:2] for n, s in node_shapes(model, params, X).items() if n != "out"} == {(B, T)}


def test_the_layers_of_a_cell_are_nodes():
    model = npt.from_flax(Linen(LINEN["gru"]), X)
    shapes = node_shapes(model, model.init(jax.random.key(0)), X)
    assert {*shapes} == {*(f"GRUCell_0/{n}" for n in ("ir", "hr", "iz", "hz", "in", "hn")), "Dense_0"}


@pytest.mark.parametrize(
    "make", [lambda: npt.from_flax(Linen(LINEN["gru"]), X), lambda: npt.from_flax(NNX["gru"](), X)]
)
def test_node_perturbation_is_unbiased_through_a_recurrent_layer(make):
    """A scale error of 30% is found."""
    model = make()
    params = model.init(jax.random.key(0))
    params = jax.tree.map(lambda p: 2 * p, params)
    exact = compiled(lambda p: backprop(model, cross_entropy).grads(jax.random.key(0), (), p, (X, Y))[0])(params)
    rule = npt.make_rule("np(difference=jvp, noise=rademacher)", model, cross_entropy)
    found = drawn(rule, params, (X, Y), 4000, per_pass=None)
    check_expected(found, exact)
    with pytest.raises(AssertionError):
        check_expected(jax.tree.map(lambda g: 1.3 * g, found), exact)


def test_a_loop_that_hides_its_layers_gives_one_line_with_what_to_write():
    class Own(eqx.Module):
        cell: eqx.nn.GRUCell

        def __call__(self, x):
            return jax.lax.scan(lambda h, x: (self.cell(x, h), None), jnp.zeros(3), x)[0]

    model = npt.from_equinox(Own(eqx.nn.GRUCell(2, 3, key=jax.random.key(0))))
    with pytest.raises(npt.UserError, match=r"layer 'cell' .*npt.scan \(documentation, 'Your own model'\)"):
        model.apply(model.init(jax.random.key(0)), X)
    scanned = nn.scan(nn.GRUCell, variable_broadcast="params", split_rngs={"params": False}, in_axes=1, out_axes=1)
    with pytest.raises(npt.UserError, match=r"under jit, scan.*for time steps the RNN of flax or a model with"):
        npt.from_flax(Linen(lambda x: scanned(4)(jnp.zeros((len(x), 4)), x)[1][:, -1]), X)


def test_an_input_without_time_is_refused():
    with pytest.raises(npt.UserError, match=r"input of layer 'RNN_0' has shape \(2, 2\); it must be \(B, T, \.\.\.\)"):
        npt.from_flax(Linen(lambda x: nn.RNN(nn.GRUCell(4))(x)), X[:, 0])
