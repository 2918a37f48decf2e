"""crash-timing: a planted crash is found at its epoch; rows say what became of every run."""

import math

import pytest

import nodepert as npt
from nodepert.experiments import build
from nodepert.experiments.experiment import of_part
from nodepert.experiments.questions.crash_timing import rank_correlation, status
from nodepert.experiments.shared.crashes import Fate, crash_epoch, fate
from nodepert.experiments.shared.tasks import curves, make_hyper, make_task


@pytest.mark.parametrize(
    ("accuracies", "epoch"),
    [
        ([10, 40, 70, 80, 79, 56, 54.9, 20], 6),  # 80 - 25 = 55
        ([10, 40, 70, 80, 55], None),  # exactly 25 points are no crash
        ([10, 40, 14.9, 90], 2),  # at once, however well it goes afterwards
        ([25, 0, 25, 0], None),  # 25% was never passed
        ([25.5, 0.4], 1),
        ([60, 50, 40, 36, 34], 4),  # against the maximum, not the epoch before
        ([10, 60, math.nan], 2),
        ([10, 20, math.nan], None),
        ([math.nan, 60, 10], 2),
        ([], None),
    ],
)
def test_a_planted_crash_is_found_at_its_epoch(accuracies, epoch):
    assert crash_epoch(accuracies) == epoch


def test_drop_and_floor_may_be_others():
    assert crash_epoch([10, 40, 29], drop=10) == 2
    assert crash_epoch([10, 40, 5], floor=50) is None


def row(test_acc, loss=1.0):
    return {"test_acc": test_acc, "train_loss": loss, "test_loss": 1.0}


def test_the_fate_of_a_run():
    assert fate([row(10), row(80), row(50), row(90)]) == Fate(2, 80, True)
    assert fate([row(10), row(20)]) == Fate(None, 20, False)
    assert fate([row(10), row(80), row(79, math.nan)]) == Fate(2, 80, True)  # its loss is not finite
    found = fate([row(10), row(20, math.inf)])
    assert found == Fate(None, 10, False)


def test_rows_are_those_of_the_runs():
    experiment = build("crash-timing", "smoke", rules=("sgd",), lrs=(3.0, 0.3), epochs=3, seeds=2)
    rows = list(of_part(experiment, experiment.parts[0]))
    assert [(r["rule"], r["lr"], r["seed"]) for r in rows] == [
        ("sgd", lr, seed) for lr in (0.3, 3.0) for seed in (0, 1)
    ]
    task = make_task(npt.load_dataset, "digits", "fc(width=30)")
    for r, run in zip(rows, curves(task, [make_hyper("sgd", r["lr"], r["seed"]) for r in rows], 3), strict=True):
        assert r["best"] == max(epoch["test_acc"] for epoch in run) and r["last"] == run[-1]["test_acc"]
        assert r["epochs"] == 3 and r["trained"] == (r["best"] > 25) and math.isnan(r["crash"])


def test_a_run_that_diverges_after_it_had_learned_has_crashed():
    """With linear outputs the loss overflows: floor 0, so that even the accuracy of epoch 0 counts as learned."""
    experiment = build("crash-timing", "smoke", rules=("sgd",), loss="linear-mse", lrs=(0.1, 1e6), seeds=1, floor=0.0)
    low, high = experiment.rows(experiment.parts[0])
    assert status(low) == "no crash" and low["epochs"] == 6
    assert status(high) == "crash" and high["crash"] == high["epochs"] < 6


def planted(rule, crashes):
    """Runs at rates 1, 2, ... that crash at these epochs (0: do not train)."""
    return [
        {"rule": rule, "lr": lr, "seed": 0, "crash": epoch or math.nan, "best": 80.0, "trained": int(epoch != 0),
         "last": 10.0, "epochs": 40}
        for lr, epoch in enumerate(crashes, 1)
    ]  # fmt: skip


def test_findings_hold_where_they_should():
    findings = build("crash-timing", "smoke").findings
    early = planted("np", [math.nan, 30, 24, 12, 9, 5, 2, 0]) + planted("sgd", [math.nan] * 7 + [0])
    assert [f.holds for f in findings(early)] == [True, True, True, True]
    late = planted("np", [math.nan, 5, 9, 12, 24, 30]) + planted("sgd", [0, 0, 2, math.nan, math.nan, math.nan])
    assert [f.holds for f in findings(late)] == [True, False, False, False]


def test_the_rank_correlation():
    assert rank_correlation([1, 2, 3], [10, 100, 1000]) == pytest.approx(1)
    assert rank_correlation([1, 1, 2, 2], [4, 3, 2, 1]) == pytest.approx(-2 / 5**0.5)  # ranks 1.5 1.5 3.5 3.5
    assert rank_correlation([1, 2], [3, 3]) == 0


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"lrs": ()}, "lrs must have at least one value"),
        ({"lrs": (0.1, -1.0)}, "lrs must be positive"),
        ({"seeds": 0}, "seeds must be at least 1"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"drop": 0.0}, "drop must be in per cent, above 0"),
        ({"floor": 100.0}, "floor must be in per cent, at least 0 and below 100"),
    ],
)
def test_values_that_cannot_be_are_refused(given, words):
    with pytest.raises(npt.UserError, match=words):
        build("crash-timing", "smoke", **given)
