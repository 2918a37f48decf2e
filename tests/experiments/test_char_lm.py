"""char-lm: what is missing of backpropagation's gain, against the number of draws."""

import math

import numpy as np
import pytest

import nodepert as npt
from nodepert.errors import UserError
from nodepert.experiments import build
from nodepert.experiments.questions.char_lm import frequencies_alone

RULE = "np(credit=own)"


def rows_of(goal, losses, alone=3.0):
    """Rows of one seed at two learning rates, of which the second is better by its training loss."""
    return [
        {"rule": rule, "draws": k, "lr": lr, "seed": 0, "train_loss": loss + (lr < 0.02), "test_loss": loss + noise,
         "frequencies": alone}
        for rule, k, loss in [("sgd", 0, goal), *((RULE, k, loss) for k, loss in losses.items())]
        for lr, noise in ((0.01, -0.5), (0.03, 0.0))
    ]  # fmt: skip


def test_all_rules_and_draws_end_with_a_loss(smoke):
    rows = smoke("char-lm").rows
    assert [(r["rule"], r["draws"]) for r in rows[::4]] == [("sgd", 0), (RULE, 1)] and len(rows) == 8
    assert all(math.isfinite(r["test_loss"]) for r in rows)


def test_the_gap_is_what_is_missing_of_the_gain_at_the_best_learning_rate():
    experiment = build("char-lm", "smoke", draws=(1, 4))
    rows = rows_of(2.0, {1: 2.5, 4: 2.09})
    assert experiment.gap(rows, rule=RULE, draws=1)[0] == pytest.approx(50)
    assert experiment.gap(rows, rule=RULE, draws=4)[0] == pytest.approx(9)
    says = "within 10 % of the gain of backpropagation: "
    assert experiment.findings(rows)[-1] == (says + "4 draws of np(credit=own)", True)
    far = experiment.findings(rows_of(2.0, {1: 2.5, 4: 2.2}))
    assert far[-1] == (says + "none with up to 4 draws", False)


def test_nothing_is_near_where_backpropagation_gains_nothing():
    found = build("char-lm", "smoke", draws=(1, 4)).findings(rows_of(3.1, {1: 3.1, 4: 3.1}))
    assert [f.holds for f in found] == [False]


def test_the_loss_of_frequencies_alone_is_the_entropy_of_a_text_that_does_not_change():
    y = np.tile([0, 1, 1, 1], (5000, 1))
    data = npt.make_dataset(y[:4000, :, None] * 1.0, y[:4000], y[4000:, :, None] * 1.0, y[4000:], task="steps")
    assert frequencies_alone(data) == pytest.approx(-(np.log(0.25) + 3 * np.log(0.75)) / 4, abs=1e-6)


@pytest.mark.parametrize("wrong", [{"draws": (0,)}, {"draws": (3,), "rules": ("np(noise=orthogonal)",)},
                                   {"rules": ("dfa",)}, {"lrs": (0.0,)}])  # fmt: skip
def test_bad_options_are_refused(wrong):
    with pytest.raises(UserError):
        build("char-lm", "smoke", **wrong)


def test_data_without_a_class_for_every_step_are_refused():
    experiment = build("char-lm", "smoke", dataset="digits", network="rnn(width=4)")
    with pytest.raises(UserError, match="a class for every time step; digits has none"):
        next(experiment.rows(experiment.parts[0]))
