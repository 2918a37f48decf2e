"""A rule inside jax.shard_map, traced for two devices."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh
from jax.sharding import PartitionSpec as P

import nodepert as npt
from nodepert.errors import UserError

MODEL, LOSS = npt.make_model("fc(width=4, depth=1)", (6,), 3), npt.make_loss("mse")
INPUTS = jax.ShapeDtypeStruct((8, 6), "float32"), jax.ShapeDtypeStruct((8,), "int32")


def traced(name, averaged, loss=LOSS, **options):
    """The program of a step on two devices, with the same parameters and other examples on each."""
    rule, params = npt.make_rule(name, MODEL, loss), MODEL.init(jax.random.key(0))
    state = rule.init(jax.random.key(1), params, jnp.ones((1, 6)))

    def step(key, params, x, y):
        grads, _, info = rule.grads(key, state, params, (x, y))
        return jax.tree.map(lambda g: averaged(g, "i"), grads), info.loss

    spread = partial(jax.shard_map, mesh=AbstractMesh((2,), ("i",)), in_specs=(P(), P(), P("i"), P("i")), **options)
    return str(jax.make_jaxpr(spread(step, out_specs=(P(), P("i"))))(jax.random.key(2), params, *INPUTS))


@pytest.mark.parametrize("name", ["sgd", "np(samples=2)", "wp", "fa", "anp", "dtp"])
def test_gradients_are_of_the_own_examples_and_averaged_once(name):
    """JAX would also sum the derivative by replicated parameters: twice the gradient, without an error."""
    assert traced(name, jax.lax.pmean).count("psum") == len(jax.tree.leaves(MODEL.init(jax.random.key(0))))
    with pytest.raises(Exception, match=r"(?i)replicat|vary"):  # who forgets to average is told
        traced(name, lambda g, axis: g)


@pytest.mark.parametrize("name", ["np(difference=jvp)", "np(replay=True)"])
def test_where_jax_refuses_one_line_says_what_to_do(name):
    with pytest.raises(UserError, match="pass check_vma=False"):
        traced(name, jax.lax.pmean)
    traced(name, jax.lax.pmean, check_vma=False)


def wrong_type(outputs, targets):
    raise TypeError("targets of varying length are not for this loss")


@pytest.mark.parametrize(
    ("loss", "error", "message"),
    [
        (lambda o, y: o.mean(), ValueError, "one number per example, shape"),
        (lambda o, y: o[:, 0] - o[:, 0].mean(), ValueError, "this one mixes"),
        (lambda o, y: LOSS(o, y.astype(float)), ValueError, "Convert class indices to integers"),
        (wrong_type, TypeError, "of varying length"),
    ],
)
def test_other_errors_are_those_of_the_loss(loss, error, message):
    with pytest.raises(error, match=message) as caught:
        traced("np", jax.lax.pmean, loss)
    assert "check_vma" not in str(caught.value)
