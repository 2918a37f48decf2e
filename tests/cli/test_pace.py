"""The time left: from the seconds of the latest epochs; it counts down, and increases only with cause."""

import numpy as np
import pytest

from nodepert.cli import sweep_view
from nodepert.cli.pace import Pace, duration
from nodepert.studies.run import Run
from nodepert.studies.sweep.sweep import Progress, Sweep


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (89, "89 s"), (100, "2 min"), (5399, "90 min"), (9000, "2.5 h")]
)
def test_a_duration_as_text(seconds, text):
    assert duration(seconds) == text


def test_time_left_never_increases_at_an_even_pace_with_noise():
    rng, pace, now, left = np.random.default_rng(0), Pace({"run": 50}), 100.0, []
    for epoch in range(50):
        share = 3.0 * rng.uniform(0.9, 1.1)
        left += [pace.seconds_left(now + share * part, ["run"]) for part in (0.3, 0.6, 0.99) if epoch]
        now += share
        pace.trained("run", 49 - epoch, share, now)
    assert left == sorted(left, reverse=True)
    expected = [3.0 * (50 - epoch) - 3.0 * part for epoch in range(1, 50) for part in (0.3, 0.6, 0.99)]
    assert np.abs(np.array(left) - expected).max() < 12  # of 147


def test_within_the_first_epoch_the_batches_done_give_the_pace():
    pace, left = Pace({"run": 10}), []
    for part in range(1, 100):  # of an epoch of 50 s
        pace.under_way("run", part / 100, 50.0, part / 2)
        left += [pace.seconds_left(part / 2, ["run"]), pace.seconds_left(part / 2 + 0.4, ["run"])]
    pace.trained("run", 9, 50.0, 50.0)
    left.append(pace.seconds_left(50.0, ["run"]))
    assert left[0] == 499.5 and left[-1] == 450.0 and left == sorted(left, reverse=True)
    assert pace.text(50.0, 50.0) == "50 s, 50 s/epoch, about 8 min left"


def test_a_pace_that_changes_is_a_cause():
    pace, now = Pace({"run": 40}), 0.0
    for epoch in range(20):
        share = 1.0 if epoch < 10 else 4.0
        now += share
        pace.trained("run", 39 - epoch, share, now)
        if epoch == 9:
            assert pace.seconds_left(now, ["run"]) == pytest.approx(30)
    assert pace.seconds_left(now, ["run"]) == pytest.approx(80)  # the latest five epochs, not all


def test_an_epoch_that_takes_longer_than_the_others_does_not_use_up_the_next_ones():
    pace = Pace({"run": 10})
    pace.trained("run", 9, 2.0, 5.0)
    assert pace.seconds_left(6.0, ["run"]) == 17.0 and pace.seconds_left(60.0, ["run"]) == 16.0
    assert Pace({"run": 10}).seconds_left(9.0, ["run"]) is None


def test_replicas_share_the_seconds_of_an_epoch_and_those_that_diverge_have_none_left():
    pace = Pace(dict.fromkeys(range(4), 10) | {"waiting": 10})
    for i in range(4):
        pace.trained(i, 9, 0.5, 1.0)
    assert pace.seconds_left(1.0, range(4)) == 4 * 9 * 0.5 + 10 * 0.5
    pace.ended(3)
    assert pace.seconds_left(1.0, range(3)) == 3 * 9 * 0.5 + 10 * 0.5
    assert pace.text(8.0, 1.0, range(3)) == "8 s, 2 epochs/s, about 18 s left"
    assert pace.text(8.0, 1.0, range(3), at_once=2) == "8 s, 4 epochs/s, about 9 s left"


def test_a_sweep_takes_its_pace_from_the_epochs_of_its_runs(tmp_path):
    runs = [Run(dataset="digits", network="fc(width=8)", epochs=10, seed=seed) for seed in range(3)]
    study = Sweep("n", runs, tmp_path)
    study.progress[0] = Progress("running", {"epoch": 2, "epoch_time": 7.0}, (1.0,) * 3)  # of an earlier sweep
    pace = Pace({i: run.epochs for i, run in enumerate(runs)})
    sweep_view.observe(study, pace, 0.0)
    assert sweep_view._footer(study, 60.0, pace)[-1] == "60 s, roughly 3 min left"
    study.progress[0] = Progress("running", {"epoch": 3, "epoch_time": 2.0}, (1.0,) * 4)
    study.progress[2] = Progress("finished", {"epoch": 10, "epoch_time": 2.0}, (1.0,) * 11)
    assert sweep_view._footer(study, 61.0, pace) == ["1/3 runs", "jobs: none", "61 s, 2 s/epoch, about 34 s left"]
