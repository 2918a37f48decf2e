"""Inputs of a large offset keep their spread; ordinary inputs keep their bits."""

import numpy as np
import pytest

import nodepert as npt
from nodepert.data.dataset import fingerprint
from nodepert.training.program import standardised, task_data

RNG = np.random.default_rng(0)
Y = np.arange(300) % 3
X = RNG.normal(size=(300, 4)) + 3 * np.eye(3, 4)[Y]
WHOLE = np.rint(1000 * X).astype(np.int64)


def made(x):
    return npt.make_dataset(x[:200], Y[:200], x[200:], Y[200:], name="digits")


def seen(data):
    """The inputs of both splits, as a program gives them to the network."""
    task = task_data(data)
    return [standardised(task, task[split][0]) for split in ("train", "test")]


WIDE = {
    "seconds": (X + 1.7e9, X),
    "negative": (X - 1e9, X),
    "one feature": (X + np.array([0, 1e9, 0, 0]), X),
    "far": (X + 1e12, X),
    "small": (5 + 1e-12 * X, X),
    "nanoseconds": (WHOLE * 10**6 + 1_700_000_000 * 10**9, WHOLE),
    "32 bits": ((WHOLE + 2**30).astype(np.int32), WHOLE),
    "signed": (WHOLE - 2**62, WHOLE),
    "unsigned": ((WHOLE + 10**5).astype(np.uint64) + np.uint64(2**63), WHOLE),
    "tiny": (1e-44 * X, X),
    "the whole range": (np.where(X > 0, 3e38, -3e38), np.where(X > 0, 1.0, -1.0)),
    "float32": ((2.0**24 + 2 * WHOLE).astype(np.float32), WHOLE),
}


@pytest.mark.parametrize("what", WIDE)
def test_an_offset_changes_nothing_that_the_network_sees(what):
    x, plain = WIDE[what]
    data, limit = made(x), 1e-3
    for found, expected in zip(seen(data), seen(made(plain)), strict=True):
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=limit)
    np.testing.assert_array_equal(data.standardised(x[200:]), seen(data)[1])  # new inputs, as given
    np.testing.assert_array_equal(data.standardised(data.test_x), seen(data)[1])


def test_a_run_on_them_learns_as_without_the_offset():
    run = npt.Run(dataset="digits", network="fc(width=8)", loss="cross-entropy", rule="sgd", lr=3e-2, epochs=3)
    found = [npt.train(run, data=made(x)).rows[-1]["test_loss"] for x in (X, X + 1.7e9)]
    assert found[0] == pytest.approx(found[1], rel=1e-3)


def test_ordinary_inputs_keep_their_bits_and_fingerprint():
    x = X.copy()
    x[:, 3] = 123456789.0  # constant, and not a float32
    for dtype in ("float64", "float32", "int64", "int16", "float16"):
        given = x[:, :3].astype(dtype) if dtype in ("int16", "float16") else x.astype(dtype)
        data = made(given)
        assert data.train_x.dtype == data.mean.dtype == data.std.dtype == np.float32
        np.testing.assert_array_equal(data.train_x, given[:200].astype(np.float32))
    assert fingerprint(made(X + 1e9)) != fingerprint(made(X + 1e9 + 1e-5))


CONSTANT = {
    "constant": (7.0, 7.0),
    "large": (1e20, 1e20),
    "but in the test inputs": (1e20, 2e20),
    "of a magnitude that float64 cannot resolve": (1e30 + 2e14 * (np.arange(200) % 2), 1e30),
    "by rounding alone": (np.where(np.arange(200) % 2, 0.3, 0.1 + 0.2), 0.3),
}


@pytest.mark.parametrize("offset", [0, 1e9])
@pytest.mark.parametrize("what", CONSTANT)
def test_a_feature_without_spread_is_constant_and_never_nan(what, offset):
    x = X + np.array([offset, 0, 0, 0])
    x[:200, 2], x[200:, 2] = CONSTANT[what]
    train, test = seen(made(x))
    np.testing.assert_allclose(train[:, 2], 0, atol=1e-6)
    assert np.isfinite(test).all()
    np.testing.assert_allclose(train[:, [0, 1, 3]].std(0), 1, atol=1e-5)
