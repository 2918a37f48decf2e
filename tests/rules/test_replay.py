"""`np(replay=True)`: the estimate of node perturbation, in memory that does not grow with depth."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nodepert as npt
from nodepert.core import pullback
from nodepert.diagnostics.conformance.common import compiled, hurried

pytestmark = pytest.mark.usefixtures("quickly_compiled")
FORMS = ["sigma=1e-4", "samples=3", "difference=central", "difference=jvp, samples=2", "noise=sphere, sharing=batch"]


@pytest.mark.parametrize(
    ("network", "form"), [*(("fc(width=20, depth=2)", form) for form in FORMS), ("conv", "samples=2")]
)
def test_the_estimate_is_that_of_node_perturbation(network, form):
    with jax.enable_x64(True):  # so that a finite difference of rounding does not hide an error
        model, loss = npt.make_model(network, (6, 6, 1), 10), npt.make_loss("mse")
        params = jax.tree.map(lambda p: p.astype("float64"), compiled(model.init)(jax.random.key(0)))
        batch = jax.random.normal(jax.random.key(1), (6, 6, 6, 1), "float64"), np.arange(6)
        plain, again = (
            compiled(npt.make_rule(f"np({form}, replay={replay})", model, loss).grads)(
                jax.random.key(2), (), params, batch
            )
            for replay in (False, True)
        )
    for a, b in zip(*(jax.tree.leaves(found) for found in (plain, again)), strict=True):
        assert np.allclose(a, b, rtol=1e-6, atol=1e-7)  # the noise is of float32


def test_under_vmap_no_key_counts_as_used_twice():
    model, loss = npt.make_model("fc(width=5)", (2, 2, 1), 3), npt.make_loss("mse")
    batch, params = (np.ones((4, 2, 2, 1), "float32"), np.arange(4) % 3), model.init(jax.random.key(1))
    made = npt.node_perturbation(model, loss, samples=2, replay=True)
    keys = jax.random.split(jax.random.key(0), 3)
    grads = jax.vmap(lambda key: made.grads(key, (), params, batch)[0])(keys)["out"]["w"]
    assert len(np.unique(grads.reshape(3, -1), axis=0)) == 3


def temporaries(rule, depth):
    """Bytes of the temporaries of a step of gradient descent, by XLA's analysis."""
    model, loss = npt.make_model(f"fc(width=200, depth={depth})", (14, 14, 1), 10), npt.make_loss("mse")
    made = npt.make_rule(rule, model, loss)

    def step(params, key, batch):
        grads, _, info = made.grads(key, (), params, batch)
        return jax.tree.map(lambda p, g: p - 1e-3 * g, params, grads), info.loss.mean()

    params, key = jax.eval_shape(model.init, jax.random.key(0)), jax.eval_shape(lambda: jax.random.key(0))
    batch = jax.ShapeDtypeStruct((300, 14, 14, 1), "float32"), jax.ShapeDtypeStruct((300,), "int32")
    step = jax.jit(step, donate_argnums=0, compiler_options=hurried())
    return step.lower(params, key, batch).compile().memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("form", ["noise=gaussian", pytest.param("difference=jvp, samples=2", marks=pytest.mark.slow)])
def test_memory_does_not_grow_with_depth(form):
    shallow, deep = (temporaries(f"np({form}, replay=True)", depth) for depth in (4, 10))
    assert deep < 1.1 * shallow
    assert deep < 0.25 * temporaries("sgd", 10)


def test_a_loss_that_is_not_finite_gives_a_gradient_of_nan():
    model = npt.make_model("fc(width=5)", (2, 2, 1), 3)
    batch = np.ones((4, 2, 2, 1), "float32"), np.arange(4)

    def loss(outputs, targets):
        return outputs.sum(-1) * jnp.where(targets == 2, jnp.inf, 1)

    grads, _, info = compiled(npt.node_perturbation(model, loss, replay=True).grads)(
        jax.random.key(0), (), model.init(jax.random.key(1)), batch
    )
    assert not np.isfinite(info.loss).all()
    assert all(np.isnan(leaf).all() for leaf in jax.tree.leaves(grads))


@pytest.mark.parametrize("form", ["presynaptic=noisy", "baseline=running"])
def test_crediting_a_noisy_pass_is_an_error(form):
    model = npt.make_model("fc(width=5)", (2, 2, 1), 3)
    with pytest.raises(ValueError, match="replay="):
        npt.make_rule(f"np(replay=True, {form})", model, npt.make_loss("mse"))


def test_a_signal_that_does_not_match_its_node_is_an_error():
    model = npt.make_model("fc(width=5, depth=1)", (2, 2, 1), 3)
    params, x = model.init(jax.random.key(1)), np.ones((4, 2, 2, 1), "float32")
    good = {"fc0": np.ones((4, 5), "float32"), "out": np.ones((4, 3), "float32")}
    pullback(model, params, x, good)
    for name, bad in (("out", np.ones((4, 5), "float32")), ("fc0", np.ones((4, 5), "float16"))):
        with pytest.raises(ValueError, match=rf"the error signal of node '{name}'"):
            pullback(model, params, x, good | {name: bad})
    with pytest.raises(ValueError, match=r"node 'fc0' must be float32.*, as its pre-activation; got nothing"):
        pullback(model, params, x, {"out": good["out"]})
