"""Adam against plain gradient descent: rates, final accuracies and what is said of them."""

import pytest

import nodepert as npt
from nodepert.errors import UserError
from nodepert.experiments import build
from nodepert.experiments.questions.adam import LAST

DIGITS = "digits(train=300, test=100)"


def test_final_accuracy_is_the_mean_of_the_last_epochs_of_the_run_alone():
    experiment = build("adam", "smoke", rules=("np",), optimizers=("adam",), lowest=1e-3, highest=1e-2, rates=2)
    rows = list(experiment.rows(experiment.parts[0]))
    assert [row["lr"] for row in rows] == [1e-3, 1e-2]
    run = npt.Run(dataset=DIGITS, network="fc(width=16)", rule="np", optimizer="adam", lr=1e-2, epochs=6, loss="mse")
    alone = npt.train(run).rows
    assert rows[1]["final_acc"] == pytest.approx(sum(r["test_acc"] for r in alone[-LAST:]) / LAST)


def test_a_run_that_diverges_counts_at_chance_level():
    experiment = build("adam", "smoke", rules=("sgd",), optimizers=("sgd",), loss="linear-mse", highest=1e30)
    last = list(experiment.rows(experiment.parts[0]))[-1]
    assert last["diverged"] == 1 and last["final_acc"] == 10


def test_the_optimum_is_that_of_the_rows_and_an_edge_of_the_range_is_told():
    experiment = build("adam", "smoke", rules=("np",), optimizers=("sgd",))
    row = {"rule": "np", "optimizer": "sgd", "seed": 0, "best_acc": 0.0, "diverged": 0}
    rates = sorted({r["lr"] for r in experiment.rows(experiment.parts[0])})

    def said(accuracies):
        return experiment.findings([row | {"lr": lr, "final_acc": a} for lr, a in zip(rates, accuracies, strict=True)])

    inside, edge = said([10.0, 50.0, 70.0, 20.0])[0], said([10.0, 20.0, 30.0, 80.0])[0]
    assert inside.holds and f"70.0 ± 0.0 % at {rates[2]:g}" in inside.says
    assert not edge.holds and "at the edge" in edge.says


def test_rates_and_counts_that_cannot_be_are_refused():
    with pytest.raises(UserError, match=r"lowest must be positive and below highest; got 1.0"):
        build("adam", "smoke", lowest=1.0, highest=0.1)
    with pytest.raises(UserError, match="epochs must be at least 5"):
        build("adam", "smoke", epochs=4)
    with pytest.raises(UserError, match="unknown rule 'nope'"):
        build("adam", "smoke", rules=("nope",))
