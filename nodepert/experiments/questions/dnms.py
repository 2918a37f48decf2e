"""Delayed non-match to sample: a recurrent network that learns from reward alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import quantiles
from typing import Any

from nodepert.experiments.drawing import Picture, curve, legend, style, tidy
from nodepert.experiments.experiment import Experiment, Finding, Part, Row
from nodepert.experiments.shared.tables import where
from nodepert.experiments.shared.tasks import curves, make_hyper, make_task

CORRECT = 95  # per cent, the criterion of Miconi 2017
SCALES: dict[str, dict[str, Any]] = {
    "smoke": {"rules": ("np(baseline=running, sigma=0.2)", "sgd"), "dataset": "dnms(step=200, trials=80)",
              "network": "rnn(width=10, gain=1.5)", "seeds": 3, "epochs": 3, "batchsize": 8},
    "small": {},
    "paper": {"dataset": "dnms(step=10, trials=200)", "network": "rnn(width=200, leak=0.333, gain=1.5)",
              "batchsize": 4, "epochs": 20},
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Dnms(Experiment):
    """Two stimuli, a delay between them, and at the end the answer: were they different? Replicas with different seeds
    train side by side. The reward of a trial is minus its loss, one number at its end.

        np(baseline=running)    dW = -lr sum_t (L - L_expected) / sigma xi_t z_t^T

    has no other information: there is no pass without noise, no derivative, and what a trial is compared with is the
    average of earlier ones of its kind. `np` compares the trial with one without noise.

    Args:
        rules: Learning rules.
        dataset: Data set, of two classes.
        network: Network.
        loss: Loss of the answer.
        optimizer: Optimizer.
        lr: Learning rate.
        batchsize: Trials per update.
        epochs: Passes over the training trials.
        seeds: Replicas of each rule.
    """

    rules: tuple[str, ...] = ("np(baseline=running, sigma=0.2)", "np(sigma=0.1)", "sgd")
    dataset: str = "dnms"
    network: str = "rnn(width=100, leak=0.667, gain=1.5)"
    loss: str = "cross-entropy"
    optimizer: str = "adam"
    lr: float = 1e-3
    batchsize: int = 20
    epochs: int = 20
    seeds: int = 100

    across = ("rules",)
    picture = Picture("trials", "share", ("rule",))

    def __post_init__(self):
        self.at_least(1, "batchsize", "epochs", "seeds")
        self.positive("lr")

    def rows(self, part: Part) -> Iterator[Row]:
        task = make_task(self.load, self.dataset, self.network, self.loss, self.batchsize)
        hypers = [make_hyper(part["rule"], self.lr, seed, self.optimizer) for seed in range(self.seeds)]
        runs = curves(task, hypers, self.epochs)
        for epoch in range(self.epochs + 1):
            correct = [run[epoch]["test_acc"] if epoch < len(run) else math.nan for run in runs]
            correct = [0.0 if math.isnan(c) else c for c in correct]  # a network that diverged answers nothing
            low, mid, high = quantiles(correct, n=4, method="inclusive") if len(correct) > 1 else correct * 3
            yield {"trials": epoch * len(task.data.train_y), "median": mid, "lower": low, "upper": high,
                   "share": 100 * sum(c >= CORRECT for c in correct) / len(correct)}  # fmt: skip

    def draw(self, figure: Any, rows: Sequence[Row]) -> None:
        middle, share = figure.subplots(1, 2)
        for i, rule in enumerate(self.rules):
            own = where(rows, rule=rule)
            x = [r["trials"] for r in own]
            curve(middle, x, [r["median"] for r in own], None, i, rule)
            middle.fill_between(x, [r["lower"] for r in own], [r["upper"] for r in own], alpha=0.2, linewidth=0,
                                color=style(i)["color"])  # fmt: skip
            curve(share, x, [r["share"] for r in own], None, i)
        middle.axhline(CORRECT, color="0.7", linewidth=1, zorder=0)
        tidy(middle, xlabel="trials", ylabel="correct, % (median and\nquartiles over seeds)", ylim=(0, 105))
        tidy(share, xlabel="trials", ylabel=f"seeds with {CORRECT} % correct, %", ylim=(0, 105))
        legend(figure, middle, columns=2)

    def findings(self, rows: Sequence[Row]) -> list[Finding]:
        found = []
        for rule in self.rules:
            own = where(rows, rule=rule)
            first = next((r["trials"] for r in own if r["median"] >= CORRECT), None)
            at = f"after {first:,} trials" if first is not None else f"not within {own[-1]['trials']:,} trials"
            says = (f"{rule}: the median over {self.seeds} seeds reaches {CORRECT} % correct {at}; at the end "
                    f"{own[-1]['share']:.0f} % of the seeds have")  # fmt: skip
            found.append(Finding(says, first is not None))
        return found
