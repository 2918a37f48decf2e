"""All learning rules on one task, each at its own learning rate: accuracy and cost."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

from nodepert.experiments.drawing import Picture, legend, style, tidy
from nodepert.experiments.experiment import Experiment, Finding, Part, Row
from nodepert.experiments.shared.cost import Cost
from nodepert.experiments.shared.tables import finite, where
from nodepert.experiments.shared.tasks import Task, curves, log_spaced, make_hyper, make_task
from nodepert.training.metrics import diverged, mean_error

SAMPLES = 8  # draws that are averaged
SCALES: dict[str, dict[str, Any]] = {
    "smoke": {"dataset": "digits", "network": "fc(width=20, depth=1)", "batchsize": 100,
              "rules": ("sgd", "np"), "rates": 2, "lowest": 3e-3, "highest": 0.02, "epochs": 10, "seeds": 2},
    "small": {"dataset": "mnist(train=4000, test=1000)", "network": "fc(width=100)", "batchsize": 100, "epochs": 10,
              "rates": 6},
    "paper": {"epochs": 50, "rates": 9, "seeds": 5},
}  # fmt: skip
SETTINGS: dict[str, dict[str, Any]] = {
    "own": {"rules": ("sgd", "np", f"np(samples={SAMPLES})", "np; out=exact", "inp", "anp", "wp", "fa", "dfa", "usf",
                      "kp", "dtp", "decorrelate(sgd)", "decorrelate(np)"),
            "network": "fc", "optimizer": "adam", "batchsize": 100, "lowest": 1e-4, "highest": 3e-2},
    "ren2023": {"rules": ("sgd", "fa", "dfa", "wp(difference=jvp, sharing=example)", "np(difference=jvp)"),
                "network": "fc", "optimizer": "momentum", "batchsize": 128, "lowest": 1e-3, "highest": 0.3},
    "dalm2024": {"rules": ("sgd", "np", "inp", "anp", "decorrelate(np)", "decorrelate(inp)", "decorrelate(anp)"),
                 "network": "fc(width=1024, depth=3, activation=leaky-relu)", "optimizer": "adam", "batchsize": 1000,
                 "lowest": 1e-5, "highest": 1e-3},
}  # fmt: skip
SEARCHED = 1000  # the seed of the search; the final runs have others


@dataclass(frozen=True, kw_only=True)
class Rules(Experiment):
    """One task, one budget. Each rule is trained at every learning rate of the same grid, with one seed; then, at the
    rate with the lowest final training loss, with other seeds, and only those runs count. The choice does not use the
    test split. The cost of an update:

        passes     multiplications in matrix products and convolutions, over those of one forward pass
        memory     most bytes that an update needs in addition to the data set, by the analysis of the compiled step
        seconds    per epoch, training and evaluation, as measured on this machine

    Args:
        setting: Values of the options that are empty: our own, after Ren et al. 2023, or after Dalm et al. 2024.
        rules: Learning rules. Default: those of the setting.
        dataset: Data set.
        network: Network. Default: that of the setting.
        loss: Loss.
        optimizer: Optimizer. Default: that of the setting.
        batchsize: Examples per update. 0: that of the setting.
        epochs: Passes over the training data, in the search and in the final runs.
        lowest: Lowest learning rate of the search. 0: that of the setting.
        highest: Highest learning rate of the search. 0: that of the setting.
        rates: Number of learning rates, equally spaced on a logarithmic axis.
        seeds: Final runs of each rule.
    """

    setting: Literal["own", "ren2023", "dalm2024"] = "own"
    rules: tuple[str, ...] = ()
    dataset: str = "mnist"
    network: str = ""
    loss: str = "cross-entropy"
    optimizer: str = ""
    batchsize: int = 0
    epochs: int = 20
    lowest: float = 0.0
    highest: float = 0.0
    rates: int = 5
    seeds: int = 3

    across = ("rules",)
    picture = Picture("lr", "test_acc", ("rule",), {"phase": "search"}, log="x")

    def __post_init__(self):
        for option, value in SETTINGS[self.setting].items():
            if not getattr(self, option):
                object.__setattr__(self, option, value)
        self.at_least(1, "batchsize", "epochs", "seeds")
        self.at_least(2, "rates")
        self.rising("lowest", "highest")

    @property
    def grid(self) -> list[float]:
        return log_spaced(self.lowest, self.highest, self.rates)

    @property
    def size(self) -> tuple[float, float]:
        return 7.0, 1.6 + 0.29 * len(self.rules)

    def rows(self, part: Part) -> Iterator[Row]:
        task, rule = make_task(self.load, self.dataset, self.network, self.loss, self.batchsize), part["rule"]
        cost = Cost(task).of(make_hyper(rule, self.lowest, 0, self.optimizer))
        search = self.trained(task, rule, [(lr, SEARCHED) for lr in self.grid])
        learned = [r for r in search if math.isfinite(r["train_loss"])]
        best = min(learned, key=lambda r: r["train_loss"])["lr"] if learned else self.lowest
        final = self.trained(task, rule, [(best, seed) for seed in range(self.seeds)])
        for phase, found in (("search", search), ("final", final)):
            for row in found:
                yield {"phase": phase, **row, **cost}

    def trained(self, task: Task, rule: str, runs: Sequence[tuple[float, int]]) -> list[Row]:
        """The last row of every run, with learning rate and seed; `seconds` per epoch, without the first."""
        found = []
        hypers = [make_hyper(rule, lr, seed, self.optimizer) for lr, seed in runs]
        for (lr, seed), run in zip(runs, curves(task, hypers, self.epochs), strict=True):
            last, finished = run[-1], run[-1]["epoch"] == self.epochs and not diverged(run[-1])
            results = {name: last[name] if finished else math.nan for name in ("train_loss", "train_acc", "test_acc")}
            seconds = median([r["epoch_time"] for r in run[2:] or run])
            found.append({"lr": lr, "seed": seed, **results, "seconds": seconds})
        return found

    def draw(self, figure: Any, rows: Sequence[Row]) -> None:
        final = {rule: where(rows, rule=rule, phase="final") for rule in self.rules}
        order = sorted(self.rules, key=lambda rule: mean_of(final[rule], "test_acc"))
        accuracy, table = figure.subplots(1, 2, sharey=True, width_ratios=(1, 1.05))
        y = list(range(len(order)))
        for i, name in enumerate(("train_acc", "test_acc")):
            means, errors = zip(*(mean_error(finite(final[rule], name)) for rule in order), strict=True)
            accuracy.errorbar(means, y, xerr=errors, linestyle="none", markersize=5, label=f"{name[:-4]} split",
                              fillstyle="full" if i else "none", **style(i))  # fmt: skip
        accuracy.set_yticks(y, order)
        tidy(accuracy, xlabel="accuracy, %", ylim=(-0.7, len(order) + 0.9))
        table.axis("off")
        for x, (name, head) in enumerate({"passes": "forward\npasses", "seconds": "seconds\nan epoch",
                                          "memory": "memory,\nMB"}.items()):  # fmt: skip
            at = (x + 0.5) / 3
            table.text(at, len(order) - 0.2, head, ha="center", va="baseline")
            for height, rule in enumerate(order):
                value = mean_of(final[rule], name) / (1e6 if name == "memory" else 1)
                table.text(at, height, f"{value:.2g}", ha="center", va="center")
        legend(figure, accuracy)

    def findings(self, rows: Sequence[Row]) -> list[Finding]:
        final = {rule: where(rows, rule=rule, phase="final") for rule in self.rules}
        findings = []
        for rule, own in final.items():
            lr, train, test = own[0]["lr"], *(mean_error(finite(own, name)) for name in ("train_acc", "test_acc"))
            edge = " (at the edge of the range)" if lr in (self.grid[0], self.grid[-1]) else ""
            says = (f"{rule}: train {train[0]:.1f} ± {train[1]:.1f} %, test {test[0]:.1f} ± {test[1]:.1f} % at "
                    f"{lr:g}{edge}; {own[0]['passes']:.2g} forward passes per update")  # fmt: skip
            findings.append(Finding(says, all(math.isfinite(r["train_loss"]) for r in own)))
        train, several = {rule: mean_of(own, "train_loss") for rule, own in final.items()}, f"np(samples={SAMPLES})"
        if {"sgd", "np"} <= {*self.rules}:
            findings.append(Finding(f"the training loss of np ends at {train['np']:.2g}, that of sgd at "
                                    f"{train['sgd']:.2g}", train["np"] > train["sgd"]))  # fmt: skip
        if {"np", several} <= {*self.rules}:
            findings.append(Finding(f"averaging {SAMPLES} draws lowers that of np to {train[several]:.2g}",
                                    train[several] < train["np"]))  # fmt: skip
        return findings


def mean_of(rows: Sequence[Row], name: str) -> float:
    """The mean of the finite values of a column, nan where there are none."""
    return mean_error(finite(rows, name))[0]
