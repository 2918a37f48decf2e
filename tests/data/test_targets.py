"""Targets imply a task; values are standardised per output; what does not fit is one line that names it."""

import re

import numpy as np
import pytest

import nodepert as npt
from nodepert.data.dataset import fingerprint, sound

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(60, 4))
LABELS = (RANDOM.normal(size=(60, 3)) > 0).astype(int)
SHARES = RANDOM.dirichlet([1.0, 1, 1], 60)


def made(y, **more):
    y = np.asarray(y)
    return npt.make_dataset(X[:40], y[:40], X[40:], y[40:], **more)


TARGETS = {  # targets, task, outputs, dtype as stored
    "classes": (np.arange(60) % 3, "classes", 3, np.int32),
    "one value": (X[:, 0], "values", 1, np.float64),
    "values": (X[:, :2].astype(np.float32), "values", 2, np.float32),
    "images": (RANDOM.normal(size=(60, 2, 3)), "values", 6, np.float64),
    "labels": (LABELS, "multilabel", 3, np.uint8),
    "flags": (LABELS.astype(bool), "multilabel", 3, np.uint8),
    "probabilities": (SHARES, "probabilities", 3, np.float32),
}


@pytest.mark.parametrize("name", TARGETS)
def test_type_and_shape_of_the_targets_imply_the_task(name):
    y, task, outputs, dtype = TARGETS[name]
    data = sound(made(y))
    assert (data.task, data.outputs, data.train_y.dtype) == (task, outputs, dtype)
    assert data.train_y.shape == ((40,) if task == "classes" else (40, outputs))
    seen = data.targets(data.train_y)
    assert seen.dtype == (np.int32 if task == "classes" else np.float32)
    if task == "values":
        np.testing.assert_allclose(seen.mean(0), 0, atol=1e-6)
        np.testing.assert_allclose(seen.std(0), 1, rtol=1e-6)
        np.testing.assert_allclose(data.in_units(data.targets(data.test_y)), data.test_y, rtol=1e-5, atol=1e-6)
    else:
        np.testing.assert_allclose(seen, data.train_y)
        assert data.in_units(seen) is seen


def test_a_task_that_is_given_wins_and_is_part_of_the_fingerprint():
    shares = SHARES.astype(np.float32)
    assert made(shares, task="values").task == "values"
    assert made(np.arange(60) % 9, task="values").targets(np.array([[4.0]])).shape == (1, 1)
    assert fingerprint(made(shares)) != fingerprint(made(shares, task="values"))
    assert re.fullmatch(r"40\+20-\w{8}", fingerprint(made(np.arange(60) % 3)))


def test_values_of_a_large_offset_or_without_spread_are_standardised_in_float64():
    times = 1.7e9 + np.arange(60)
    data = made(np.stack([times, np.full(60, 0.1)], 1))
    seen = data.targets(data.train_y)
    np.testing.assert_allclose(seen[:, 0], (np.arange(40) - 19.5) / np.arange(40).std(), rtol=1e-6)
    assert data.target_std[1] == 1 and abs(seen[:, 1]).max() < 1e-12


GAP = np.where(np.arange(60) == 7, np.nan, X[:, 0])
WRONG = {
    "nan": (GAP, {}, "train targets contain nan or inf: example 7"),
    "nan of several": (np.stack([X[:, 0], GAP], 1), {}, "train targets contain nan or inf: example 7, output 1"),
    "counts": (LABELS * 2, {}, "labels must be 0 or 1; got 2"),
    "no distribution": (X, {"task": "probabilities"}, "must be probabilities, at least 0 and with sum 1; example 0"),
    "texts": (np.array(["a"] * 60), {}, "train targets must be numbers; got <U1"),
    "complex": (X[:, 0] + 0j, {}, "train targets must be numbers; got complex128"),
    "an unknown task": (X, {"task": "value"}, "no task 'value'; there are: classes, probabilities, multilabel, values"),
}


@pytest.mark.parametrize("name", WRONG)
def test_targets_that_fit_no_task_are_one_line(name):
    y, more, says = WRONG[name]
    with pytest.raises(npt.DataError, match=re.escape(says)) as error:
        made(y, **more)
    assert "\n" not in str(error.value)


def test_a_data_set_with_replaced_targets_is_validated():
    data = made(X[:, :2])
    for change, says in (
        ({"target_std": np.array([1.0, 0])}, "target_std must be 2 numbers, one for each value, above 0"),
        ({"target_mean": None}, "target_mean must be 2 numbers"),
        ({"test_y": data.test_y[:, :1]}, "test targets are 1 numbers per example"),
        ({"task": "classes"}, "40 train inputs but labels of shape (40, 2)"),
    ):
        with pytest.raises(npt.DataError, match=re.escape(says)):
            sound(data._replace(**change))


def test_class_labels_as_floats_are_remarked_on(caplog):
    made(X[:, 0])
    assert not caplog.records
    assert made((np.arange(60) % 3).astype(float)).task == "values"
    assert "are taken as values; class labels are integers: y.astype(int)" in caplog.text
