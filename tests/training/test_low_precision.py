"""Networks whose parameters have 16 bits train with every optimizer, which computes in float32."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small import own as own

import nodepert as npt
from nodepert.core import plain
from nodepert.registry import names
from nodepert.rules.update import started, updated
from nodepert.studies.setup import hyper_of
from nodepert.training.hyper import stacked
from nodepert.training.program import Program, task_data

DATA = npt.load_dataset("digits(train=40, test=20)")
SPECS = [
    *(set(names("optimizer")) - {"normalise", "clip"}),
    "normalise(adam)",
    "clip(adam)",
    "momentum(nesterov=True, schedule=cosine)",
]


@pytest.fixture(scope="module", autouse=True)
def compiled_for_one_use(quickly_compiled):
    """Programs of these tests run once."""


def low(input_shape, classes, *, dtype: str = "float16"):
    """A network with parameters, activity and outputs of 16 bits."""
    inner = npt.make_model("fc(width=3, depth=1)", input_shape, classes)
    return npt.Model(lambda key: jax.tree.map(lambda a: a.astype(dtype), inner.init(key)),
                     lambda params, x, node=plain: inner.apply(params, x.astype(dtype), node))  # fmt: skip


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("optimizer", sorted(SPECS))
def test_an_update_keeps_the_dtypes_of_params_and_state(optimizer, dtype):
    model = low(DATA.train_x.shape[1:], DATA.classes, dtype=dtype)
    task, data = Program(model, npt.make_loss("mse"), 20, 1), task_data(DATA)
    hyper = jax.tree.map(lambda a: a[0], stacked([hyper_of(npt.Run(optimizer=optimizer, rule="np", epochs=1))]))
    before = jax.eval_shape(task.init, hyper, data)
    after, _ = jax.eval_shape(task.step, before, hyper, data, np.arange(20))
    assert jax.tree.map(lambda a: a.dtype, after) == jax.tree.map(lambda a: a.dtype, before)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(after.params)} == {dtype}


def test_training_in_float16_learns(own):
    npt.register("network", "low", low)
    run = npt.Run(dataset="digits(train=40, test=20)", network="low", rule="sgd", epochs=2, batchsize=20, lr=1e-2)
    result = npt.train(run)
    assert result.rows[-1]["train_loss"] < 0.97 * result.rows[0]["train_loss"]
    assert {leaf.dtype.name for leaf in jax.tree.leaves(result.params)} == {"float16"}


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_a_gradient_whose_square_is_0_in_low_precision_gives_a_step_of_the_usual_size(dtype):
    optimizer, params = optax.adam(0.1), {"w": jnp.ones(3, dtype)}
    grads = {"w": jnp.full(3, 1e-4, dtype)}
    after, updates, _ = updated(optimizer, grads, started(optimizer, params), params)
    assert after["w"].dtype == dtype and np.allclose(updates["w"], -0.1, rtol=1e-2)
