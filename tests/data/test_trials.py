"""Trials: what is shown when, and what the answer is."""

import numpy as np
import pytest

import nodepert as npt


def test_the_answer_is_whether_the_second_stimulus_is_another_one():
    data = npt.load_dataset("dnms(step=100, trials=8)")
    shown = data.test_x.argmax(-1) + 1  # 1 and 2; 0 where nothing is
    shown = np.where(data.test_x.any(-1), shown, 0)
    assert shown.shape == (4, 10) and data.train_x.shape == (8, 10, 2)
    for times, label in zip(shown, data.test_y, strict=True):
        assert not times[2:4].any() and not times[6:].any() and (times[0], times[4]) == (times[1], times[5])
        assert label == (times[0] != times[4])
    assert sorted(map(tuple, shown[:, [0, 4]])) == [(1, 1), (1, 2), (2, 1), (2, 2)]
    assert np.array_equal(data.standardised(data.test_x), data.test_x)


@pytest.mark.parametrize("argument", ["step=30", "delay=0", "trial=400", "trials=6", "step=0"])
def test_what_does_not_fit_is_refused(argument):
    with pytest.raises(ValueError, match=r"multiple of|is shorter|at least 1"):
        npt.load_dataset(f"dnms({argument})")
