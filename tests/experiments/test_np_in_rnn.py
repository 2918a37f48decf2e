"""np-in-rnn: every rule at its best learning rate, on targets in time."""

import math
from statistics import fmean

import pytest

from nodepert.errors import UserError
from nodepert.experiments import build


def test_losses_fall_and_a_rule_has_the_rate_with_the_lowest_training_loss(smoke):
    experiment, rows = build("np-in-rnn", "smoke"), smoke("np-in-rnn").rows
    assert len(rows) == 2 * 2 * 2 * 2 * 3 and all(math.isfinite(r["test_loss"]) for r in rows)
    for part in experiment.parts:
        best = experiment.best(rows, part["dataset"], part["rule"])
        own = [r for r in rows if r["epoch"] == 2 and part.items() <= r.items()]
        at = {lr: sum(r["train_loss"] for r in own if r["lr"] == lr) for lr in experiment.lrs}
        assert {r["lr"] for r in best} == {min(at, key=lambda lr: at[lr])}
        start = fmean(r["train_loss"] for r in best if r["epoch"] == 0)
        assert experiment.end(rows, part["dataset"], part["rule"]) < start


@pytest.mark.parametrize("wrong", [{"lrs": (0.0,)}, {"epochs": 0}, {"datasets": ("copyin",)}, {"rules": ("npp",)}])
def test_bad_options_are_refused(wrong):
    with pytest.raises(UserError):
        build("np-in-rnn", "smoke", **wrong)
