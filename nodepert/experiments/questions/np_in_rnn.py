"""Node perturbation in recurrent networks: which losses should answer for the noise of a time step?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from nodepert.experiments.drawing import Picture, legend, mean_curve, tidy
from nodepert.experiments.experiment import Experiment, Finding, Part, Row
from nodepert.experiments.shared.tables import best_rate, means, where
from nodepert.experiments.shared.tasks import curves, make_hyper, make_task
from nodepert.registry.spec import parse

PAIRS = {
    "np(credit=own)": "np(credit=future)",
    "np(credit=trial)": "np(credit=future)",
    "decorrelate(np(credit=own))": "decorrelate(np(credit=future))",
    "np(samples=8, credit=future, guide=feedback, head=evaluated)": "sgd",
}  # of two rules the second ends lower
SCALES: dict[str, dict[str, Any]] = {
    "smoke": {"datasets": ("copying(length=2, delay=1, symbols=4, train=60, test=20)",
                           "mackey-glass(length=600, window=30, washout=5)"),
              "rules": ("np(credit=own)", "np(credit=future)"), "network": "rnn(width=6, readout=every)",
              "batchsize": 20, "epochs": 2, "seeds": 2},
    "small": {},
    "paper": {"datasets": ("copying", "mackey-glass"), "network": "rnn(width=500, readout=every)", "lrs": (1e-3,),
              "epochs": 200},
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class NpInRnn(Experiment):
    """The losses of a trial come step by step, L_1, ..., L_T. Noise at step t changes those from t on, and is credited

        c_t = dL_t                  own: the mean lacks what a_t does to later losses
        c_t = sum_t' dL_t'          trial: unbiased, with the noise of losses that a_t cannot change
        c_t = sum_t'>=t dL_t'       future: unbiased, without it

    Decorrelated node perturbation with `own` is the published rule; `sgd` is backpropagation through time. Each rule
    has the learning rate with the lowest final training loss.

    Args:
        rules: Learning rules.
        datasets: Data sets with a target for every time step.
        network: Network.
        optimizer: Optimizer.
        lrs: Learning rates; each rule has its best one.
        batchsize: Examples per update.
        epochs: Passes over the training data.
        seeds: Runs at each learning rate.
    """

    rules: tuple[str, ...] = ("np(credit=own)", "np(credit=trial)", "np(credit=future)", "decorrelate(np(credit=own))",
                              "decorrelate(np(credit=future))",
                              "np(samples=8, credit=future, guide=feedback, head=evaluated)", "sgd")  # fmt: skip
    datasets: tuple[str, ...] = ("copying(length=3, delay=2, symbols=6, train=1000)", "mackey-glass")
    network: str = "rnn(width=50, readout=every)"
    optimizer: str = "adam"
    lrs: tuple[float, ...] = (1e-3, 3e-3)
    batchsize: int = 10
    epochs: int = 60
    seeds: int = 3

    across = ("datasets", "rules")
    size = (7.0, 5.2)
    picture = Picture("epoch", "train_loss", ("dataset", "rule"), log="y")

    def __post_init__(self):
        self.at_least(1, "batchsize", "epochs", "seeds")
        self.positive("lrs")

    def rows(self, part: Part) -> Iterator[Row]:
        task = make_task(self.load, part["dataset"], self.network, "by-target", self.batchsize, any_target=True)
        hypers = [make_hyper(part["rule"], lr, s, self.optimizer) for lr in self.lrs for s in range(self.seeds)]
        for hyper, run in zip(hypers, curves(task, hypers, self.epochs), strict=True):
            for row in run:
                losses = {name: row[name] for name in ("train_loss", "test_loss")}
                yield {"lr": hyper.lr, "seed": hyper.seed, "epoch": row["epoch"], **losses}

    def best(self, rows: Sequence[Row], dataset: str, rule: str) -> list[Row]:
        """The rows of a rule at the learning rate at which most runs end, with the lowest mean training loss."""
        own = where(rows, dataset=dataset, rule=rule)
        return where(own, lr=best_rate(own, "train_loss", epoch=self.epochs))

    def draw(self, figure: Any, rows: Sequence[Row]) -> None:
        panels = figure.subplots(1, len(self.datasets), squeeze=False)[0]
        for axes, dataset in zip(panels, self.datasets, strict=True):
            for i, rule in enumerate(self.rules):
                mean_curve(axes, means(self.best(rows, dataset, rule), "epoch", "test_loss"), i, rule, marker="")
            axes.set_title(parse(dataset).name, fontsize=9)
            tidy(axes, xlabel="epoch", yscale="log")
        panels[0].set_ylabel("test loss per step")
        legend(figure, panels[0], columns=1)

    def findings(self, rows: Sequence[Row]) -> list[Finding]:
        found = []
        for dataset in self.datasets:
            ends = {rule: self.end(rows, dataset, rule) for rule in self.rules}
            best = {rule: self.best(rows, dataset, rule)[0]["lr"] for rule in self.rules}
            listed = ", ".join(f"{rule} {end:.3g} (lr {best[rule]:g})" for rule, end in ends.items())
            found.append(Finding(f"{dataset}: training loss at the end: {listed}", True))
            for rule, lower in PAIRS.items():
                if {rule, lower} <= {*self.rules}:
                    says = f"{dataset}: the loss of {rule} ends at {ends[rule] / ends[lower]:.3g} times that of {lower}"
                    found.append(Finding(says, ends[rule] > ends[lower]))
        return found

    def end(self, rows: Sequence[Row], dataset: str, rule: str) -> float:
        """The mean training loss after the last epoch, nan where no run has one."""
        return means(self.best(rows, dataset, rule), "epoch", "train_loss").get(self.epochs, (math.nan, 0.0))[0]
