"""Noise: unit variance, the declared distribution, independent across nodes, replayable in parts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nodepert.rules.noise import NOISE, draw, random_words

pytestmark = pytest.mark.usefixtures("quickly_compiled", "strict_dtypes")

MANY = (2000, 501)  # a million values; an odd number of units


def shapes(**nodes):
    return {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in nodes.items()}


@pytest.mark.parametrize(("noise", "moments"), [("gaussian", (0, 1, 0, 3, 15)), ("rademacher", (0, 1, 0, 1, 1))])
def test_moments(noise, moments):
    xi = np.asarray(NOISE[noise](jax.random.key(0), MANY), np.float64).ravel()
    for power, expected in zip((1, 2, 3, 4, 6), moments, strict=True):
        sample = xi**power
        error = sample.std() / len(xi) ** 0.5 + 1e-6
        assert abs(sample.mean() - expected) < 4 * error, (power, sample.mean())


def test_gaussian_noise_has_the_normal_distribution_function():
    xi = np.sort(np.asarray(NOISE["gaussian"](jax.random.key(3), MANY), np.float64).ravel())
    distance = np.abs(np.asarray(jax.scipy.stats.norm.cdf(xi)) - (np.arange(len(xi)) + 0.5) / len(xi)).max()
    assert distance * len(xi) ** 0.5 < 1.95  # Kolmogorov-Smirnov at 0.1%
    assert np.isfinite(xi).all()
    assert 4.5 < np.abs(xi).max() < 5.4


def test_rademacher_noise_is_signs():
    xi = NOISE["rademacher"](jax.random.key(0), (7, 3, 11), jnp.bfloat16)
    assert xi.dtype == jnp.bfloat16
    assert set(np.unique(xi.astype(jnp.float32))) == {-1.0, 1.0}


def test_threefry_written_out_gives_the_bits_of_jax():
    ours = random_words(jax.random.key(11), 5, 7, reused=False)
    assert bool((ours == random_words(jax.random.key(11), 5, 7)).all())


@pytest.mark.parametrize("noise", NOISE)
def test_units_examples_nodes_and_keys_are_uncorrelated(noise):
    a = draw(jax.random.key(0), shapes(a=(500, 40), b=(500, 40)), noise)
    b = draw(jax.random.key(1), shapes(a=(500, 40)), noise)
    pairs = [
        (a["a"], a["b"]),
        (a["a"], b["a"]),
        (a["a"][1:], a["a"][:-1]),
        *((a["a"][:, s:], a["a"][:, :-s]) for s in (1, 8, 20)),
    ]
    for p, q in pairs:
        assert abs(float((p * q).mean())) < 4 / p.size**0.5


@pytest.mark.parametrize("noise", NOISE)
def test_one_node_or_fewer_examples_can_be_redrawn_alone(noise):
    whole = draw(jax.random.key(0), shapes(a=(6, 33), b=(6, 4, 5)), noise)
    part = draw(jax.random.key(0), shapes(b=(2, 4, 5)), noise)
    assert bool((part["b"] == whole["b"][:2]).all())


def test_drawing_for_many_keys_at_once_is_drawing_for_each():
    keys = jax.random.split(jax.random.key(0), 3)
    many = jax.vmap(lambda k: NOISE["gaussian"](k, (4, 7)))(keys)
    each = jnp.stack([NOISE["gaussian"](k, (4, 7)) for k in keys])
    assert bool((many == each).all())


def test_a_key_used_twice_is_noticed():
    key = jax.random.key(0)
    NOISE["gaussian"](key, (2, 3))
    with pytest.raises(jax.errors.KeyReuseError):
        NOISE["rademacher"](key, (2, 3))


def test_names_with_the_same_noise_are_an_error():
    with pytest.raises(ValueError, match="plumless, buckeroo have the same CRC-32"):
        draw(jax.random.key(0), shapes(plumless=(2, 3), buckeroo=(2, 3)))


def test_other_generators_are_used_unchanged():
    words = random_words(jax.random.key(0, impl="rbg"), 4, 5)
    assert words.shape == (4, 5)
    assert len(np.unique(words)) == 20
