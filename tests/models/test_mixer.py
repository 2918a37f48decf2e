"""The networks with heads: sizes of the paper, patches, groups that stay apart, and estimates of their local losses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from estimates import check_expected, drawn, rms_z

import nodepert as npt
from nodepert.core import adding, node_shapes, preactivations
from nodepert.diagnostics.conformance.common import compiled
from nodepert.models.mixer import in_patches, normalised
from nodepert.models.resnet import pooled
from nodepert.training.losses import cross_entropy
from nodepert.training.multiplications import multiplications

pytestmark = pytest.mark.usefixtures("quickly_compiled")
KEY = jax.random.key


@pytest.mark.parametrize(
    ("spec", "shape", "parameters"),
    [
        ("mixer(width=256, groups=1)", (28, 28, 1), 272e3),
        ("mixer(width=512, groups=16)", (28, 28, 1), 429e3),
        ("mixer(width=512, groups=16, patches=8, blocks=4)", (32, 32, 3), 919e3),
    ],
)
def test_the_sizes_of_the_paper_have_its_number_of_parameters(spec, shape, parameters):
    params = jax.eval_shape(npt.make_model(spec, shape, 10).init, KEY(0))
    assert round(sum(leaf.size for leaf in jax.tree.leaves(params)), -3) == parameters


def test_patches_are_squares_of_the_image():
    image = jnp.arange(2 * 4 * 4 * 3).reshape(2, 4, 4, 3)
    parts = in_patches(image, 2)
    assert parts.shape == (2, 4, 12)
    assert np.array_equal(parts[1, 2], image[1, 2:, :2].ravel())


def test_normalised_activity_has_mean_0_and_variance_1():
    h = normalised(3 * jax.random.normal(KEY(0), (4, 2, 50)) + 7)
    assert np.allclose(h.mean(-1), 0, atol=1e-5) and np.allclose(h.var(-1), 1, atol=1e-3)


SPEC = "mixer(width=6, groups=2, patches=2, blocks=2, predict={})"


def task(predict):
    model = npt.make_model(SPEC.format(predict), (4, 4, 2), 3)
    x = jax.random.normal(KEY(1), (3, 4, 4, 2))
    return model, compiled(model.init)(KEY(0)), (x, jnp.arange(3))


def test_noise_reaches_the_heads_of_its_block_in_its_own_patch_and_group_only():
    model, params, (x, _) = task("parts")
    clean = preactivations(model, params, x)
    changed = {}
    for name, shape in node_shapes(model, params, x).items():
        if name == "out":
            continue
        noise = jnp.zeros(shape.shape).at[:, 1:2, ..., :3].set(0.5)  # patch 1
        noise = noise.at[:, :, 0].set(0) if noise.ndim == 4 else noise  # of group 1
        noisy = preactivations(model, params, x, adding({name: noise}))
        head = f"head{name[-1]}"
        changed[name] = np.array(jnp.abs(noisy[head] - clean[head]))
    for name in ("in0", "group0", "in1", "group1"):
        assert changed[name][:, 1, 1].max() > 0
        changed[name][:, 1, 1] = 0
        assert changed[name].max() == 0, name
    assert changed["token1"][:, 1].max() > 0 and np.delete(changed["token1"], 1, 1).max() == 0


@pytest.mark.parametrize(
    ("predict", "rule"),
    [
        ("parts", "np(credit=own, difference=jvp, noise=rademacher)"),
        ("parts", "np(credit=trial, difference=jvp, samples=8)"),
        ("replicated", "np(credit=own, difference=jvp, active=True, head=evaluated)"),
    ],
)
def test_unbiased_for_the_local_losses(predict, rule):
    model, params, batch = task(predict)
    own, sgd = (npt.make_rule(f"local({r})", model, cross_entropy) for r in (rule, "sgd"))
    exact = compiled(lambda p: sgd.grads(KEY(1), sgd.init(KEY(0), p, batch[0]), p, batch)[0])(params)
    found = drawn(own, params, batch, 2000, own.init(KEY(0), params, batch[0]))
    check_expected(found, exact)
    assert rms_z(found, jax.tree.map(lambda g: 1.3 * g, exact)) > 1.5


@pytest.mark.parametrize("blocks", [1, 3])
def test_a_step_costs_one_clean_and_one_noisy_pass_whatever_the_number_of_blocks(blocks):
    model = npt.make_model(f"mixer(width=8, groups=2, blocks={blocks}, predict=parts)", (5,), 3)
    params, x = model.init(KEY(0)), jnp.ones((2, 5))
    rule = npt.make_rule("local(np(credit=own))", model, cross_entropy)
    state = ((),) * (blocks + 1)
    step = jax.make_jaxpr(lambda key, p: rule.grads(key, state, p, (x, jnp.zeros(2, int))))(KEY(1), params)
    forward = jax.make_jaxpr(lambda p: preactivations(model, p, x))(params)
    assert 2 < multiplications(step) / multiplications(forward) < 3  # clean, noisy but for the first product, weights


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("mixer(width=10, groups=3)", "width must be a multiple of groups; got width=10, groups=3"),
        ("mixer(patches=3)", r"3 x 3 patches do not fit inputs of shape \(8, 8, 1\)"),
        ("mixer(blocks=0)", "blocks must be at least 1"),
        ("resnet-small(width=10)", "width must be a multiple of groups"),
    ],
)
def test_what_does_not_fit_is_refused(spec, message):
    with pytest.raises(npt.UserError, match=message):
        npt.make_model(spec, (8, 8, 1), 10)


def test_resnet_small_needs_images_and_pools_pairs():
    with pytest.raises(npt.UserError, match="needs images"):
        npt.make_model("resnet-small", (8,), 10)
    h = jnp.asarray([[1.0, 5.0, 2.0], [3.0, 7.0, 2.0]]).reshape(1, 2, 3, 1)
    assert pooled(h, "average").ravel().tolist() == [4] and pooled(h, "max").ravel().tolist() == [7]
    assert pooled(h[:, :1], "max").ravel().tolist() == [5]
