"""width-scaling: how the time is found, that the student's is the theory's where there is one, and what is refused."""

import math

import numpy as np
import pytest
from matplotlib.figure import Figure

import nodepert as npt
from nodepert.errors import UserError
from nodepert.experiments import build
from nodepert.experiments.questions.width_scaling import learning_time


def row(lr, seed, updates):
    return {"task": "teacher", "rule": "np", "width": 10, "lr": lr, "seed": seed, "updates": updates}


def test_the_time_is_that_of_the_best_rate_at_which_all_runs_learn():
    rows = [row(0.1, 0, 5), row(0.1, 1, math.nan), row(0.2, 0, 30), row(0.2, 1, 10), row(0.3, 0, 25), row(0.3, 1, 25)]
    assert learning_time(rows, "teacher", "np", 10) == (0.2, 20.0, 10.0)
    assert math.isnan(learning_time(rows[:2], "teacher", "np", 10)[1])


def test_the_smoke_run_finds_times_that_hardly_depend_on_the_width(smoke):
    experiment, (rows, findings, *_) = build("width-scaling", "smoke"), smoke("width-scaling")
    assert [f.says for f in findings if not f.holds] == []
    learned = [r for r in rows if math.isfinite(r["updates"])]
    assert len(learned) > len(rows) / 4 and all(r["updates"] > 0 for r in learned)
    never = [row | {"updates": math.nan} for row in rows]
    assert not any(f.holds for f in experiment.findings(never))
    experiment.draw(Figure(), never)


@pytest.mark.slow
def test_a_student_that_sees_every_direction_learns_as_fast_as_it_must():
    """Gradient descent on a linear student: E falls as exp(-2 rate t) or slower, at the rates there are."""
    rows = npt.experiments.width_scaling(scale="smoke", rules=("sgd",), lowest=1e-3, highest=2e-3, lrs=2, inputs=3,
                                         outputs=2, widths=(200, 201))  # fmt: skip
    times = [r["updates"] for r in rows if r["task"] == "teacher" and r["lr"] == 1e-3 and r["width"] == 200]
    # W2 W1 with h >> inputs, outputs: dW = -lr (W1' W1 + W2 W2') e x x', of Gram matrices about h 2 / (h + n) = 2 each
    assert np.mean(times) == pytest.approx(math.log(10) / (2 * 4e-3), rel=0.4)


@pytest.mark.parametrize("wrong", [{"widths": (10,)}, {"fallen": 1.0}, {"accuracy": 100.0}, {"lowest": 1.0}])
def test_bad_options_are_refused(wrong):
    with pytest.raises(UserError):
        build("width-scaling", "smoke", **wrong)
