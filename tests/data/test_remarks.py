"""Labels and images of the user's own that look like a mistake are remarked on, and impossible ones refused."""

import numpy as np
import pytest

import nodepert as npt
from nodepert.data.remarks import remark_range

X, Y = np.random.default_rng(0).normal(size=(60, 4)), np.arange(60) % 3


def made(x=X, y=Y, **more):
    return npt.make_dataset(x[:40], y[:40], x[40:], y[40:], **more)


@pytest.mark.parametrize(
    ("labels", "classes", "said"),
    [
        (Y + 1, 4, "1 of 4 classes have no example (0)"),
        (np.array([0, 5, 9])[Y], 10, "7 of 10 classes have no example (1, 2, 3, 4, 6, ...)"),
        (Y * 2, 5, "2 of 5 classes have no example (1, 3)"),
        (Y + 9000, 9003, "9000 of 9003 classes"),
    ],
    ids=str,
)
def test_classes_without_an_example_are_named_once(labels, classes, said, caplog):
    data = made(y=labels)
    assert data.classes == classes
    assert [said in record.getMessage() for record in caplog.records] == [True]
    assert caplog.records[0].name == "nodepert"


def test_nothing_is_said_of_sound_labels_of_given_classes_or_of_a_subset(caplog):
    made()
    made(y=Y + 1, classes=5)
    made(y=np.where(np.arange(60) < 40, 0, Y))  # classes of the test examples alone
    npt.load_dataset("digits(train=5, test=5)")
    assert not caplog.records


def varied(shape):
    return np.zeros((6, *shape), np.uint8) + np.arange(6, dtype=np.uint8).reshape(6, *(1 for _ in shape))


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (4, 8, 16), (3, 224, 320)], ids=str)
def test_images_that_look_channel_first_are_remarked_on(shape, caplog):
    x = varied(shape)
    npt.make_dataset(x[:3], Y[:3], x[3:], Y[3:6])
    assert [f"{shape} look like images with the channels first" in r.getMessage() for r in caplog.records] == [True]


@pytest.mark.parametrize("shape", [(32, 32, 3), (28, 28, 1), (3, 3, 3), (28, 28), (3, 32, 3), (7, 8, 8), (3,)], ids=str)
def test_nothing_is_said_of_other_inputs(shape, caplog):
    x = varied(shape)
    npt.make_dataset(x[:3], Y[:3], x[3:], Y[3:6])
    assert not caplog.records


def test_inputs_without_any_difference_are_remarked_on(caplog):
    made(x=(X + 1e9).astype(np.float32))
    assert ["all training inputs are equal" in record.getMessage() for record in caplog.records] == [True]


def test_one_hot_rows_are_probabilities_and_of_whole_numbers_remarked_on(caplog):
    assert made(y=np.eye(3)[Y]).task == "probabilities" and not caplog.records
    assert made(y=np.eye(3, dtype=int)[Y]).task == "multilabel"
    assert ["class indices are y.argmax(1)" in record.getMessage() for record in caplog.records] == [True]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"y": np.array(list("abc"))[Y], "task": "values"},
            r"must be numbers; got <U1 \(class labels: whole numbers, as np\.unique",
        ),
        ({"y": np.ma.array(Y, mask=Y == 1)}, "train_y has masked values"),
        ({"x": np.ma.array(X, mask=X > 1)}, "train_x has masked values"),
    ],
    ids=["names", "masked labels", "masked inputs"],
)
def test_labels_and_inputs_that_would_be_misread_are_refused_with_what_to_do(wrong, message):
    with pytest.raises(npt.DataError, match=message):
        made(**wrong)


@pytest.mark.parametrize("largest", [10_000, 10**9, 2**40, 2**63], ids=str)
def test_labels_that_imply_far_more_classes_than_examples_are_refused(largest):
    labels = (Y == 2).astype(np.uint64) * np.uint64(largest)
    with pytest.raises(npt.DataError, match=rf"the largest of 60 labels is {largest:,}.* np\.unique.*classes="):
        made(y=labels)
    with pytest.raises(npt.DataError, match=r"classes must be a whole number from 1 to|labels from 0 to"):
        made(y=labels, classes=min(largest, 2**31))


def test_classes_that_are_given_are_a_whole_number():
    assert made(y=Y * 20_000, classes=40_001).classes == 40_001
    for wrong in ("3", 3.0, 0, -1, 2**31, None.__class__):
        with pytest.raises(npt.DataError, match="classes must be a whole number from 1 to 2147483647; got"):
            made(classes=wrong)


@pytest.mark.parametrize("rule", ["np", "sgd"])
def test_a_network_that_does_not_fit_into_memory_is_one_line_before_anything_is_written(rule, tmp_path, monkeypatch):
    data = made(classes=100_000, name="digits")
    run = npt.Run(dataset="digits", network="fc(width=100)", rule=rule, batchsize=20)
    for total in (10**6, 10**8):  # less than the parameters, or than training
        monkeypatch.setattr("nodepert.training.devices.memory_total", lambda total=total: total)
        with pytest.raises(
            npt.UserError, match=r"training needs .* GB, and memory is exhausted; use a smaller network"
        ):
            npt.train(run, data=data)
    monkeypatch.setattr("nodepert.training.devices.memory_total", lambda: 10**6)
    with pytest.raises(npt.UserError, match="memory is exhausted"):
        npt.train(run, data=data, name="study")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("low", "high", "x", "remarked"),
    [
        ([2e4, 0], [7e4, 1], [[30.0, 1], [60, 0]], True),  # in thousands
        ([2e4, 0], [7e4, 1], [[0.0, 1], [0, 0]], True),
        ([2e4, 0], [7e4, 1], [[3e4, 0], [6e4, 0], [0, 0]], False),  # one of three
        ([-7e4, 0], [-2e4, 1], [[-30.0, 1], [-60, 0]], True),
        ([0, 0], [255, 255], np.zeros((2, 4, 4, 2)), False),  # black images
        ([-2.0, 0], [2, 1], [[0.01, 0], [0, 0]], False),
    ],
)
def test_inputs_much_nearer_to_zero_than_the_training_are_remarked(low, high, x, remarked, caplog):
    remark_range(np.array(x, np.float32), np.array(low, np.float32), np.array(high, np.float32), ["income", "city"])
    assert ("inputs of column 'income'" in caplog.text) == remarked == bool(caplog.text)
