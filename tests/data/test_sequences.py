"""Tasks in time are what their docstrings say; both splits differ; what cannot be is one line."""

import re

import numpy as np
import pytest

import nodepert as npt
from nodepert.data.dataset import fingerprint, sound
from nodepert.data.text import OTHER, encoded

SMALL = {
    "copying(length=9, delay=2, train=30, test=10)": "steps",
    "adding(length=6, train=30, test=10)": "values",
    "mackey-glass(length=60, window=20, washout=5)": "series",
    "sequential(digits(train=30, test=10), permuted=True)": "classes",
    "text(characters=2000, window=16)": "steps",
}


@pytest.mark.parametrize("spec", SMALL)
def test_a_set_is_sound_and_the_same_each_time_and_its_splits_differ(spec):
    data = sound(npt.load_dataset(spec))
    assert data.task == SMALL[spec] and fingerprint(data) == fingerprint(npt.load_dataset(spec))
    assert not {x.tobytes() for x in data.train_x} & {x.tobytes() for x in data.test_x}


def test_copying_shows_symbols_then_blanks_then_a_marker_for_each():
    data = npt.load_dataset("copying(length=4, delay=2, symbols=5, train=30, test=10)")
    assert data.train_x.shape == (30, 10, 5) and (data.train_x.sum(-1) == 1).all()
    shown = data.train_x.argmax(-1)
    assert (shown[:, 4:6] == 0).all() and (shown[:, 6:] == 4).all() and {*shown[:, :4].ravel()} == {1, 2, 3}
    np.testing.assert_array_equal(data.train_y, np.hstack([np.full((30, 6), -1), shown[:, :4]]))


def test_adding_marks_one_number_of_each_half():
    data = npt.load_dataset("adding(length=7, train=30, test=10)")
    numbers, marks = np.moveaxis(data.train_x, -1, 0)
    assert (marks[:, :3].sum(1) == 1).all() and (marks[:, 3:].sum(1) == 1).all()
    np.testing.assert_allclose(data.train_y[:, 0], (numbers * marks).sum(1), rtol=1e-6)


def test_a_mackey_glass_series_solves_its_equation_and_is_predicted_ahead():
    data = npt.load_dataset("mackey-glass(length=200, window=200, lag=3, washout=9)")
    x, y = (np.arctanh(np.ma.getdata(a)[0, :, 0].astype(float)) + 1 for a in (data.train_x, data.train_y))
    np.testing.assert_allclose(y[:-3], x[3:], atol=1e-5)
    assert np.ma.getmaskarray(data.train_y)[0, :, 0].tolist() == [True] * 9 + [False] * 191
    late, t = x[:-17], np.arange(17, 199)
    slope = (x[t + 1] - x[t - 1]) / 2
    np.testing.assert_allclose(slope, 0.2 * late[:-1] / (1 + late[:-1] ** 10) - 0.1 * x[t], atol=0.02)


@pytest.mark.parametrize("permuted", [False, True])
def test_pixels_come_one_at_a_time_in_one_order(permuted):
    images = npt.load_dataset("digits(train=30, test=10)")
    data = npt.load_dataset(f"sequential(digits(train=30, test=10), permuted={permuted})")
    flat = images.test_x.reshape(10, 64, 1)
    assert (data.test_x == flat).all() != permuted
    np.testing.assert_array_equal(np.sort(data.test_x, 1), np.sort(flat, 1))
    np.testing.assert_array_equal(data.train_y, images.train_y)
    npt.Run(dataset="sequential(digits)")


def test_a_text_is_predicted_character_by_character():
    whole = "the cat sat on the mat. " * 20
    with open("cat.txt", "w", encoding="utf-8") as file:
        file.write(whole)
    data = npt.load_dataset("text(path='cat.txt', window=10, part=0.25)")
    x = "".join(data.names[i] for i in data.train_x.ravel())
    y = "".join(data.names[i] for i in data.train_y.ravel())
    assert whole.startswith(x) and y[:-1] == x[1:] and len(x) == 350 and data.names[0] == " "
    share = np.unique([*whole], return_counts=True)[1] / len(whole)
    assert f"entropy {-(share * np.log(share)).sum():.3f} nats" in data.source
    codes, names, _ = encoded("".join(map(chr, range(1000, 1200))) + "aab")
    assert len(names) == 128 and names[:3] == ("a", "b", chr(1000)) and names[-1] == OTHER and codes.max() == 127


WRONG = {
    "copying(symbols=2)": "symbols must be at least 3",
    "copying(train=0)": "train must be at least 1",
    "adding(length=1)": "length must be at least 2",
    "mackey-glass(washout=100)": "washout must be below window=100",
    "mackey-glass(length=50)": "length must be at least 100",
    "sequential(diabetes)": "diabetes has inputs of shape (10,) and values; give images (H, W, C) of classes",
    "text(path='none.txt')": "no file none.txt",
    "text(characters=90)": "90 characters are too few for windows of 64 in both splits",
    "text(path='bytes.txt')": "bytes.txt is not a text in UTF-8: invalid start byte at byte 1",
    "text(part=1)": "part must be at least 0 and below 1",
}


@pytest.mark.parametrize("spec", WRONG)
def test_what_cannot_be_is_one_line(spec, monkeypatch):
    monkeypatch.delenv("NODEPERT_DATA_DIR", raising=False)
    with open("bytes.txt", "wb") as file:
        file.write(b"a\xff")
    with pytest.raises(npt.UserError, match=re.escape(WRONG[spec])) as error:
        npt.load_dataset(spec)
    assert "\n" not in str(error.value)


def test_a_recurrent_network_learns_the_next_character_and_is_refused_without_an_output_for_each():
    run = npt.Run(dataset="text(characters=3000, window=16)", network="rnn(width=8, readout=every, tokens=True)",
                  rule="sgd", lr=1e-2, epochs=2, batchsize=20)  # fmt: skip
    rows = npt.train(run).rows
    assert run.loss == "cross-entropy" and rows[-1]["test_loss"] < rows[0]["test_loss"]
    last = npt.Run(dataset=run.dataset, network="rnn(width=8, tokens=True)", batchsize=20)
    with pytest.raises(npt.UserError, match=r"an output for every step, as rnn\(readout=every\) \(network rnn"):
        npt.train(last)
