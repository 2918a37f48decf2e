"""At which learning rates training crashes, and when."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from nodepert.experiments.drawing import Picture, legend, mean_curve, style, tidy
from nodepert.experiments.experiment import Experiment, Finding, Part, Row
from nodepert.experiments.shared.crashes import fate
from nodepert.experiments.shared.tables import means, where
from nodepert.experiments.shared.tasks import curves, make_hyper, make_task

SCALES: dict[str, dict[str, Any]] = {
    "smoke": {"dataset": "digits", "network": "fc(width=30)", "lrs": (0.3, 3.0), "epochs": 6, "seeds": 2},
    "small": {"dataset": "mnist(train=3000, test=1000)", "network": "fc(width=100, depth=4)", "seeds": 3,
              "lrs": (0.04, 0.07, 0.12, 0.16, 0.22, 0.5, 2.0)},
    "paper": {},
}  # fmt: skip
SHIFT = 0.05  # between the points of two rules at one learning rate, in decades


@dataclass(frozen=True, kw_only=True)
class CrashTiming(Experiment):
    """Networks are trained by plain gradient descent at many learning rates. A run crashes at the first epoch t with

        A(t) < max_{s<t} A(s) - drop,    once the maximum is above floor

    where A is the test accuracy in per cent, or whose loss is not finite. A run whose A was never above floor does not
    train. Node perturbation adds noise to every update; the weights diffuse, larger weights make the noise larger, and
    what was learned can be lost (Hiratani et al. 2022). Left: when runs crash. Right: the accuracy reached before.

    Args:
        rules: Rules to compare; the others are compared with sgd.
        lrs: Learning rates.
        dataset: Data set.
        network: Network.
        loss: Loss.
        batchsize: Examples in a batch.
        epochs: Passes over the training data.
        seeds: Runs per learning rate.
        drop: Fall of the accuracy that is a crash, in percentage points.
        floor: Accuracy above which a run has trained, in per cent.
    """

    rules: tuple[str, ...] = ("np", "sgd")
    lrs: tuple[float, ...] = (0.003, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 1.0, 3.0, 10.0)
    dataset: str = "mnist"
    network: str = "fc"
    loss: str = "mse"
    batchsize: int = 100
    epochs: int = 50
    seeds: int = 5
    drop: float = 25.0
    floor: float = 25.0

    across = ("rules",)
    picture = Picture("lr", "crash", ("rule",), log="x")

    def __post_init__(self):
        self.at_least(1, "batchsize", "epochs", "seeds")
        self.positive("lrs")
        self.require(lambda value: 0 < value < 100, "in per cent, above 0 and below 100", "drop")
        self.require(lambda value: 0 <= value < 100, "in per cent, at least 0 and below 100", "floor")

    def rows(self, part: Part) -> Iterator[Row]:
        task = make_task(self.load, self.dataset, self.network, self.loss, self.batchsize)
        hypers = [make_hyper(part["rule"], lr, seed) for lr in sorted(set(self.lrs)) for seed in range(self.seeds)]
        for hyper, found in zip(hypers, curves(task, hypers, self.epochs), strict=True):
            crash, best, trained = fate(found, self.drop, self.floor)
            yield {"lr": hyper.lr, "seed": hyper.seed, "crash": math.nan if crash is None else crash, "best": best,
                   "trained": int(trained), "last": found[-1]["test_acc"], "epochs": found[-1]["epoch"]}  # fmt: skip

    def draw(self, figure: Any, rows: Sequence[Row]) -> None:
        left, right = figure.subplots(1, 2, sharex=True)
        epochs = self.epochs
        heights = {"no crash": 1.13 * epochs, "does not train": 1.32 * epochs}
        for i, rule in enumerate(self.rules):
            own = where(rows, rule=rule)
            shift = 10 ** (SHIFT * (i - (len(self.rules) - 1) / 2))
            stack = [0.025 * epochs * (r["seed"] - (self.seeds - 1) / 2) for r in own]  # runs of one rate side by side
            y = [r["crash"] if (end := status(r)) == "crash" else heights[end] + up
                 for r, up in zip(own, stack, strict=True)]  # fmt: skip
            left.scatter([r["lr"] * shift for r in own], y, s=20, alpha=0.8, label=rule, **style(i))
            mean_curve(right, means(own, "lr", "best"), i)
        left.axhline(1.04 * epochs, color="grey", linewidth=0.8)
        right.axhline(self.floor, color="grey", linewidth=1, linestyle=":")
        ticks = [t for t in left.get_yticks() if 0 <= t <= epochs]
        tidy(left, xscale="log", xlabel="learning rate", ylabel="epoch of the crash", ylim=(0, 1.42 * epochs))
        left.set_yticks([*ticks, *heights.values()], [*(f"{t:g}" for t in ticks), *heights])
        tidy(right, xlabel="learning rate", ylabel="highest test accuracy\nbefore a crash, %", ylim=(0, 100))
        legend(figure, left)

    def findings(self, rows: Sequence[Row]) -> list[Finding]:
        findings, failing = [], {}
        for rule in self.rules:
            own = where(rows, rule=rule)
            failing[rule] = min((r["lr"] for r in own if status(r) != "no crash"), default=math.inf)
            findings += of_rule(rule, own)
        for rule in (rule for rule in self.rules if rule != "sgd" and "sgd" in self.rules):
            low, high = failing[rule], failing["sgd"]
            text = [f"at {lr:g}" if lr < math.inf else "at none" for lr in (low, high)]
            findings.append(Finding(f"the lowest rate at which a run crashes or does not train: {rule} {text[0]}, "
                                    f"sgd {text[1]}", low < high))  # fmt: skip
        return findings


def of_rule(rule: str, own: Sequence[Row]) -> list[Finding]:
    """How many runs of a rule crash, and whether sooner at higher rates."""
    crashed = [r for r in own if status(r) == "crash"]
    at = f", at learning rates {crashed[0]['lr']:g} to {crashed[-1]['lr']:g}" if crashed else ""
    idle = [r["lr"] for r in own if status(r) == "does not train"]
    untrained = f"; {len(idle)} do not train, the lowest at {min(idle):g}" if idle else ""
    findings = [Finding(f"{rule}: {len(crashed)} of {len(own)} runs crash{at}{untrained}",
                        (not crashed) if rule == "sgd" else len(crashed) >= 3)]  # fmt: skip
    if len({r["lr"] for r in crashed}) > 1:
        trained = [r for r in own if r["trained"]]
        times = [r["crash"] if status(r) == "crash" else math.inf for r in trained]  # without inf they would not count
        rho = rank_correlation([r["lr"] for r in trained], times)
        first, last = (fmean(r["crash"] for r in crashed if r["lr"] == crashed[k]["lr"]) for k in (0, -1))
        findings.append(Finding(f"{rule}: the higher the rate the earlier the crash, epoch {first:.0f} at "
                                f"{crashed[0]['lr']:g} and {last:.0f} at {crashed[-1]['lr']:g} (rank correlation "
                                f"{rho:.2f} over the {len(trained)} runs that train; no crash counts as latest)",
                                rho < -2 / (len(trained) - 1) ** 0.5))  # fmt: skip
    return findings


def status(row: Row) -> str:
    """crash, no crash, or does not train."""
    if not row["trained"]:
        return "does not train"
    return "crash" if math.isfinite(row["crash"]) else "no crash"


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> float:
    """Spearman's: the correlation of the ranks, ties at their mean rank; 0 where one does not vary."""

    def ranks(values):
        values = np.asarray(values)
        return (values[:, None] > values).sum(1) + 0.5 * (values[:, None] == values).sum(1)

    a, b = (r - r.mean() for r in (ranks(x), ranks(y)))
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size else 0.0
