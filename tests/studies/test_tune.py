"""The search of learning rates: where its trials are, the same budget for all, on held-out examples."""

import math
from dataclasses import replace

import numpy as np
import pytest
from small import RUN

import nodepert as npt
from nodepert.data.validation import for_tuning
from nodepert.studies import tune as module
from nodepert.studies.result import Result
from nodepert.studies.tune import figure_of, search

pytestmark = pytest.mark.usefixtures("quickly_compiled")
BEST = replace(RUN, rule="sgd", epochs=1)


def simulated(best, rounds, width=1.0, diverges=math.inf):
    """Trains nothing: the score falls with the distance from the best log10(lr)."""

    def trained(runs, data):
        rounds.append([run.lr for run in runs])
        return [_result(run, abs(math.log10(run.lr) - best) / width, run.lr > diverges) for run in runs]

    return trained


def _result(run, miss, diverged):
    loss = math.nan if diverged else miss
    row = {"epoch": 1, "train_loss": loss, "test_loss": loss, "test_acc": 100.0 - miss}
    return Result(run, [row], "diverged at epoch 1" if diverged else "finished")


@pytest.mark.parametrize("trials", [4, 5, 8, 12, 60])
@pytest.mark.parametrize("best", [-4.3, -3.0, -1.4])
def test_it_narrows_around_the_best_rate_within_its_budget(trials, best):
    rounds = []
    (found,) = search([BEST], trials, (1e-5, 1e-1), None, None, simulated(best, rounds))
    assert len(rounds) == 3 and sum(map(len, rounds)) == len(found.trials) == trials
    assert [t["lr"] for t in found.trials] == sorted({lr for tried in rounds for lr in tried})
    assert len(rounds[0]) == (trials + 1) // 2 and rounds[0][0] == 1e-5 and rounds[0][-1] == 1e-1
    assert found.score == max(t["score"] for t in found.trials) and found.run == replace(BEST, lr=found.lr)
    if trials >= 8:
        assert abs(math.log10(found.lr) - best) < 4 / trials and not found.at_edge


@pytest.mark.parametrize("best, edge", [(1.2, "highest"), (-6.5, "lowest")])
def test_a_best_rate_at_the_edge_widens_the_range(best, edge):
    rounds = []
    (found,) = search([BEST], 12, (1e-5, 1e-1), None, None, simulated(best, rounds))
    beyond = max(rounds[1]) > 10**0.9 if edge == "highest" else min(rounds[1]) < 10**-6.9
    assert beyond and not found.at_edge and abs(math.log10(found.lr) - best) < 0.5
    (far,) = search([BEST], 4, (1e-5, 1e-1), None, None, simulated(9 * best, []))
    assert far.at_edge and far.lr == far.trials[-1 if edge == "highest" else 0]["lr"]


def test_rates_that_diverge_are_worst_and_equal_scores_are_told_apart_by_the_loss():
    (found,) = search([BEST], 12, (1e-5, 1e-1), None, None, simulated(-1.5, [], diverges=1e-3))
    assert 3e-4 < found.lr <= 1e-3 and any("diverged" in t["status"] for t in found.trials)
    a, b = (_result(BEST, 0.0, False) for _ in range(2))
    b.rows[0]["test_loss"] = -1.0
    assert module.best({1e-3: a, 1e-2: b}) == 1e-2 and module.best({1e-3: a, 1e-2: a}) == 1e-3


def test_trials_train_on_nine_tenths_and_are_scored_on_the_rest():
    data = npt.load_dataset(RUN.dataset)
    held = for_tuning(data)
    assert (len(held.train_y), len(held.test_y)) == (180, 20) and held.mean is data.mean
    both = np.concatenate([held.train_x, held.test_x]).reshape(200, -1)
    assert sorted(map(tuple, both)) == sorted(map(tuple, data.train_x.reshape(200, -1)))
    seen = []
    search([BEST], 4, (1e-4, 1e-2), data, None, lambda runs, data: seen.append(data) or simulated(-3, [])(runs, data))
    assert len(seen) == 3 and all(len(one.test_y) == 20 for one in seen)


def test_every_rule_has_the_same_budget_in_epochs_and_its_own_in_forward_passes():
    runs = [BEST, replace(BEST, rule="np(samples=2)")]
    rounds = []
    found = search(runs, 6, (1e-3, 1e-1), None, None, simulated(-2, rounds))
    assert list(map(len, rounds)) == [6, 4, 2] and [one.epochs for one in found] == [6, 6]
    assert [one.passes for one in found] == [6 * 4 * 3, 6 * 4 * 4]  # of 4 steps each
    assert [one.metric for one in found] == ["test_acc", "test_acc"]
    axes = figure_of({"a": found[0], "b": found[1]}, "title").axes[0]
    assert axes.get_xscale() == "log" and axes.get_ylabel() == "accuracy (%) on held-out examples"


def test_trials_are_saved_and_read_back_and_the_chosen_run_is_a_run(tmp_path):
    found = npt.tune(BEST, trials=4, between=(1e-3, 1e-1), name="trials", out=tmp_path)
    assert found.run == replace(BEST, lr=found.lr) and found.lr in [trial["lr"] for trial in found.trials]
    assert npt.load_results("trials", out=tmp_path)["id"].nunique() == 4
    assert npt.tune(BEST, trials=4, between=(1e-3, 1e-1), name="trials", out=tmp_path) == found


@pytest.mark.parametrize(
    "options, error",
    [
        ({"trials": 3}, "from 4 to 60 trials; got 3"),
        ({"between": (1e-1, 1e-3)}, "between a lower and a higher one, both above 0; got 0.1 and 0.001"),
        ({"between": (0, 1e-3)}, "both above 0"),
        ({"nonsense": 1}, "unknown option 'nonsense'"),
    ],
)
def test_wrong_options_are_one_line(options, error):
    with pytest.raises(npt.UserError, match=error):
        npt.tune(BEST, **options)


def test_runs_that_are_tuned_together_share_a_data_set():
    with pytest.raises(npt.UserError, match="share a data set"):
        npt.tune([BEST, replace(BEST, dataset="digits")])
