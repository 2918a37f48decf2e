"""Nodes inside `npt.scan` and `npt.checkpoint`: the same as in a Python loop, whatever the handler."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nodepert as npt
from nodepert.core import Model, adding, differentiate, node_shapes, plain, preactivations, pullback
from nodepert.models.layers import dense
from nodepert.models.wiring import wiring

pytestmark = pytest.mark.usefixtures("quickly_compiled")

INPUTS, UNITS, OUT, EXAMPLES, T = 3, 4, 2, 2, 3
RANDOM = np.random.default_rng(0)


def numbers(*shape):
    return jnp.asarray(RANDOM.normal(size=shape), jnp.float32)


PARAMS = {name: {"w": numbers(m, n) / 2, "b": numbers(n) / 4}
          for name, m, n in (("in", INPUTS, UNITS), ("rec", UNITS, UNITS), ("out", UNITS, OUT))}  # fmt: skip
X, Y = numbers(EXAMPLES, T, INPUTS), numbers(EXAMPLES, T, OUT)


def squares(outputs, targets):
    return jnp.square(outputs - targets).sum(-1) / 2


def step_of(params):
    def step(node, h, x):
        h = jnp.tanh(node("in", dense, params["in"], x) + node("rec", dense, params["rec"], h))
        return h, node("out", dense, params["out"], h)

    return step


def recurrent(loop):
    """`loop(step, node, carry, x)` decides how steps are run."""
    return Model(lambda key: PARAMS, lambda p, x, node=plain: loop(step_of(p), node, jnp.zeros((len(x), UNITS)), x))


def in_python(step, node, carry, x):
    """A Python loop, in which the call of node "n" at step t is the node "n.t"."""
    ys = []
    for t in range(x.shape[1]):
        carry, y = step(lambda name, *of, t=t: node(f"{name}.{t}", *of), carry, x[:, t])
        ys.append(y)
    return jnp.stack(ys, 1)


SCANNED, UNROLLED = recurrent(lambda *of: npt.scan(*of)[1]), recurrent(in_python)


def stacked(values):
    """{node: (B, T, ...)} of {node.t: (B, ...)}."""
    return {name: jnp.stack([values[f"{name}.{t}"] for t in range(T)], 1) for name in ("in", "rec", "out")}


def near(found, expected, tolerance=1e-6):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=tolerance)


def test_handlers_see_one_pre_activation_of_all_steps():
    a = preactivations(SCANNED, PARAMS, X)
    assert list(a) == ["in", "rec", "out"] and a["in"].shape == (EXAMPLES, T, UNITS)
    near([a[name] for name in sorted(a)], [v for _, v in sorted(stacked(preactivations(UNROLLED, PARAMS, X)).items())])
    assert {name: s.shape for name, s in node_shapes(SCANNED, PARAMS, X).items()}["out"] == (EXAMPLES, T, OUT)


def test_backpropagation_is_that_through_time():
    near(differentiate(SCANNED, squares, PARAMS, (X, Y)), differentiate(UNROLLED, squares, PARAMS, (X, Y)), 1e-5)


def test_noise_of_each_step_is_added_at_that_step():
    eps = {name: numbers(EXAMPLES, T, n) for name, n in (("in", UNITS), ("rec", UNITS), ("out", OUT))}
    apart = {f"{name}.{t}": e[:, t] for name, e in eps.items() for t in range(T)}
    near(SCANNED.apply(PARAMS, X, adding(eps)), UNROLLED.apply(PARAMS, X, adding(apart)))


def test_pullback_sums_over_time():
    signals = {name: numbers(EXAMPLES, T, n) for name, n in (("in", UNITS), ("rec", UNITS), ("out", OUT))}
    apart = {f"{name}.{t}": s[:, t] for name, s in signals.items() for t in range(T)}
    near(pullback(SCANNED, PARAMS, X, signals), pullback(UNROLLED, PARAMS, X, apart), 1e-5)


def test_a_loop_of_one_step_is_the_network_without_time():
    still = Model(lambda key: PARAMS,
                  lambda p, x, node=plain: step_of(p)(node, jnp.zeros((len(x), UNITS)), x)[1])  # fmt: skip
    near(SCANNED.apply(PARAMS, X[:, :1])[:, 0], still.apply(PARAMS, X[:, 0]))
    sums = differentiate(SCANNED, squares, PARAMS, (X[:, :1], Y[:, :1]))[0]
    near(sums, differentiate(still, squares, PARAMS, (X[:, 0], Y[:, 0]))[0])


def test_the_program_does_not_grow_with_the_number_of_steps():
    def size(steps):
        rule = npt.make_rule("np(credit=future)", SCANNED, squares)
        x, y = jnp.zeros((EXAMPLES, steps, INPUTS)), jnp.zeros((EXAMPLES, steps, OUT))
        return str(jax.make_jaxpr(rule.grads)(jax.random.key(0), (), PARAMS, (x, y))).count(" = ")

    assert size(20) == size(200)


def test_nodes_depend_on_those_that_feed_them_at_any_step():
    found = wiring(SCANNED, PARAMS, X)
    assert found.order == ("in", "rec", "out") and found.outputs == {"out"} and not found.bypassing
    assert found.inputs == {"in": {"x"}, "rec": {"in", "rec"}, "out": {"in", "rec"}}


def nested(params, x, node=plain):  # x: (B, T, S, n): a loop within each step
    def outer(node, h, x):
        h, ys = npt.scan(step_of(params), node, h, x)
        return h, ys

    return npt.scan(outer, node, jnp.zeros((len(x), UNITS)), x)[1]


def test_loops_within_loops():
    model, x = Model(lambda key: PARAMS, nested), X[:, :, None].repeat(2, 2)
    a = preactivations(model, PARAMS, x)
    assert a["rec"].shape == (EXAMPLES, T, 2, UNITS)
    flat = x.reshape(EXAMPLES, -1, INPUTS)
    near(a["rec"].reshape(EXAMPLES, -1, UNITS), preactivations(SCANNED, PARAMS, flat)["rec"])
    eps = {"rec": numbers(EXAMPLES, T, 2, UNITS)}
    near(model.apply(PARAMS, x, adding(eps)).reshape(EXAMPLES, -1, OUT),
         SCANNED.apply(PARAMS, flat, adding({"rec": eps["rec"].reshape(EXAMPLES, -1, UNITS)})))  # fmt: skip


@pytest.mark.parametrize("around", ["outside", "inside"])
def test_checkpoint_changes_nothing_but_memory(around):
    def loop(step, node, carry, x):
        if around == "inside":
            return npt.scan(lambda node, h, x: npt.checkpoint(step, node, h, x), node, carry, x)[1]
        return npt.checkpoint(lambda node, h, x: npt.scan(step, node, h, x)[1], node, carry, x)

    model = recurrent(loop)
    near(preactivations(model, PARAMS, X), preactivations(SCANNED, PARAMS, X))
    near(differentiate(model, squares, PARAMS, (X, Y)), differentiate(SCANNED, squares, PARAMS, (X, Y)), 1e-5)
    eps = {"rec": numbers(EXAMPLES, T, UNITS)}
    near(model.apply(PARAMS, X, adding(eps)), SCANNED.apply(PARAMS, X, adding(eps)))


def test_without_jit():
    with jax.disable_jit():
        found = preactivations(SCANNED, PARAMS, X)
    near(found, preactivations(SCANNED, PARAMS, X))


def test_another_loop_is_refused():
    def apply(params, x, node=plain):
        h = jnp.zeros((len(x), UNITS))
        return jax.lax.scan(lambda h, x: step_of(params)(node, h, x), h, x.swapaxes(0, 1))[1].swapaxes(0, 1)

    with pytest.raises(ValueError, match=r"'in' is called under jit, scan.*loop over time steps by npt\.scan"):
        node_shapes(Model(lambda key: PARAMS, apply), PARAMS, X)


def test_another_transformation_within_a_step_is_refused():
    model = recurrent(lambda step, node, h, x: npt.scan(lambda node, h, x: jax.jit(lambda h, x: step(node, h, x))(h, x),
                                                        node, h, x)[1])  # fmt: skip
    with pytest.raises(ValueError, match="'in' is called under jit"):
        node_shapes(model, PARAMS, X)


def test_two_nodes_of_one_name_in_a_step_are_refused():
    def twice(node, h, x):
        return h, node("in", dense, PARAMS["in"], x) + node("in", dense, PARAMS["in"], x)

    model = recurrent(lambda step, node, h, x: npt.scan(twice, node, h, x)[1])
    with pytest.raises(ValueError, match="two nodes are named 'in'"):
        node_shapes(model, PARAMS, X)


def test_a_loop_without_inputs_needs_its_length():
    def apply(params, x, node=plain):
        return npt.scan(lambda node, h, _: step_of(params)(node, h, x), node, jnp.zeros((len(x), UNITS)), length=T)[1]

    model = Model(lambda key: PARAMS, apply)
    assert preactivations(model, PARAMS, X[:, 0])["out"].shape == (EXAMPLES, T, OUT)
    with pytest.raises(ValueError, match=r"scan needs inputs, arrays \(B, T, ...\), or length=T"):
        npt.scan(lambda node, h, _: (h, h), plain, X)
