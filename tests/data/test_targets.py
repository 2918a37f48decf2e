"""Targets imply a task; values are standardised per output; what does not fit is one line that names it."""

import re

import numpy as np
import pytest

import nodepert as npt
from nodepert.data.dataset import fingerprint, sound
from nodepert.data.validation import held_out

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
    "texts": (np.array(["a"] * 60), {"task": "values"}, "train targets must be numbers; got <U1"),
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


TIMES = RANDOM.normal(size=(60, 5, 3))
CLASSES = np.where(TIMES[..., 0] > 1, -1, TIMES[..., 1] > 0)
PARTLY = np.ma.masked_where(TIMES > 1, TIMES)


@pytest.mark.parametrize(
    ("y", "outputs", "shape", "dtype"),
    [
        (CLASSES, 2, (40, 5), np.int32),
        (np.ma.masked_equal(CLASSES, -1), 2, (40, 5), np.int32),
        (TIMES, 3, (40, 5, 3), np.float64),
        (TIMES[..., 0].astype(np.float32), 1, (40, 5, 1), np.float32),
        (np.ma.masked_where(CLASSES < 0, TIMES[..., 0]), 1, (40, 5, 1), np.float64),
    ],
    ids=["classes", "masked classes", "values", "one value", "masked values"],
)
def test_targets_of_time_steps_have_an_axis_of_time(y, outputs, shape, dtype):
    data = sound(npt.make_dataset(X[:40], y[:40], X[40:], y[40:], task="steps" if dtype is np.int32 else "series"))
    assert (data.outputs, data.train_y.shape, data.train_y.dtype, data.steps) == (outputs, shape, dtype, 5)
    seen = data.targets(data.train_y)
    if dtype is np.int32:
        np.testing.assert_array_equal(seen, CLASSES[:40])
    else:
        assert not np.ma.isMaskedArray(seen)
        np.testing.assert_array_equal(np.isnan(seen), np.ma.getmaskarray(data.train_y))
        np.testing.assert_allclose(np.nanmean(seen, (0, 1)), 0, atol=1e-6)
        np.testing.assert_allclose(np.nanstd(seen, (0, 1)), 1, rtol=1e-5)
        assert fingerprint(data) != fingerprint(data._replace(train_y=np.ma.masked_less(data.train_y, 0)))


WRONG_STEPS = {
    "one axis": (CLASSES[:, 0], "steps", "train targets must be of shape (N, T), with T time steps; got (40,)"),
    "fractions": (TIMES[..., 0], "steps", "train labels must be whole numbers"),
    "another sign": (CLASSES - 1, "steps", "train labels from -2 to 0; they must be in 0..0, or -1 where a step is"),
    "none graded": (np.full((60, 5), -1), "steps", "no time step of the train targets is graded"),
    "all masked": (np.ma.masked_all((60, 5, 3)), "series", "no time step of the train targets is graded"),
    "nan": (np.where(TIMES > 1, np.nan, TIMES), "series", "nan or inf: example 1, output 3, 0; mask the steps"),
    "partly masked": (PARTLY, "series", "mask all values of a time step, or none: example 1, time step 3"),
    "no task": (PARTLY, None, "or give task='steps' or task='series', where masked steps are not graded"),
    "no task of classes": (CLASSES, None, "give a class for every time step with task='steps'"),
}


@pytest.mark.parametrize("name", WRONG_STEPS)
def test_targets_that_are_not_those_of_time_steps_are_one_line(name):
    y, task, says = WRONG_STEPS[name]
    with pytest.raises(npt.DataError, match=re.escape(says)) as error:
        npt.make_dataset(X[:40], y[:40], X[40:], y[40:], task=task)
    assert "\n" not in str(error.value)


def test_both_splits_have_the_same_time_steps():
    with pytest.raises(npt.DataError, match="training targets have 5 time steps but test targets 4"):
        npt.make_dataset(X[:40], CLASSES[:40], X[40:], CLASSES[40:, 1:], task="steps")


def test_tokens_are_not_standardised():
    x = np.arange(300).reshape(60, 5)
    for tokens, dtype in ((x % 7, np.uint8), (x, np.float32)):
        data = sound(npt.make_dataset(tokens[:40], CLASSES[:40], tokens[40:], CLASSES[40:], task="steps", tokens=True))
        held = held_out(data, 0.2)
        assert data.train_x.dtype == data.test_x.dtype == dtype
        np.testing.assert_array_equal(data.standardised(data.test_x), tokens[40:])
        np.testing.assert_array_equal(held.standardised(held.test_x), tokens[40:])
    for wrong in (x - 1, x + 0.5, x[..., None]):
        with pytest.raises(npt.DataError, match=r"tokens are whole numbers \(N, T\) from 0"):
            npt.make_dataset(wrong[:40], CLASSES[:40], wrong[40:], CLASSES[40:], task="steps", tokens=True)
