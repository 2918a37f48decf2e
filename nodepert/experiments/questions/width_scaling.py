"""How long learning takes against the width of the hidden layer: a linear student, and a network on real data."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import jax
import numpy as np

from nodepert.experiments.drawing import Picture, legend, mean_curve, tidy
from nodepert.experiments.experiment import Experiment, Finding, Part, Row, combinations
from nodepert.experiments.shared.linear_student import in_float64, learn, squared_error, student, times
from nodepert.experiments.shared.tables import finite, where
from nodepert.experiments.shared.tasks import log_spaced, make_hyper, make_task, train
from nodepert.registry import check, make
from nodepert.rules.noise import key_of
from nodepert.training.metrics import mean_error
from nodepert.training.replicas import Epoch

SCALES: dict[str, dict[str, Any]] = {
    "smoke": {"rules": ("np(difference=jvp)",), "widths": (10, 80), "inputs": 8, "outputs": 3, "lowest": 1e-3, "lrs": 3,
              "steps": 2000, "students": 8, "dataset": "digits", "batchsize": 50, "lowest_real": 0.01,
              "epochs": 30, "accuracy": 80.0},
    "small": {},
    "paper": {"rules": ("sgd", "np(sigma=1e-4)"), "widths": (100, 200, 400, 800, 1600, 3200), "inputs": 100,
              "outputs": 10, "lrs": 8, "steps": 100_000, "students": 10, "float64": True, "dataset": "mnist",
              "batchsize": 1000, "epochs": 10_000, "accuracy": 97.5, "seeds": 5},
}  # fmt: skip
FINE = 200  # measurements of a student's error


@dataclass(frozen=True, kw_only=True)
class WidthScaling(Experiment):
    """How many updates does a network with one hidden layer of h units need to learn a task, at the best of several
    learning rates? Two tasks (Hiratani et al. 2022, figures 1a and 5b):

        teacher    y = W2 W1 x learns online from y* = W* x, L = ||y - y*||^2 / 2: until ||W2 W1 - W*||_F^2 is below
                   `fallen` times its initial value
        real data  a ReLU network: until the test accuracy is above `accuracy`, measured after every epoch

    Each unit adds its own noise to the estimate, and its own weights to learn with: the gradient of a unit falls as the
    layer gets wider. Runs on real data stop as soon as one learning rate has sufficed for all its seeds.

    Args:
        rules: Learning rules; those with state can not learn from the teacher.
        widths: Units of the hidden layer, at least two widths.
        lrs: Number of learning rates at every width, equally spaced on a logarithmic axis.
        inputs: Units of the input, teacher.
        outputs: Units of the output, teacher.
        lowest: Lowest learning rate, teacher.
        highest: Highest learning rate, teacher.
        fallen: Share of the initial error at which the task is learned, teacher.
        steps: Most updates, teacher.
        students: Runs at each learning rate, each with its own teacher.
        dataset: Data set.
        loss: Loss, real data.
        lowest_real: Lowest learning rate, real data.
        highest_real: Highest learning rate, real data.
        batchsize: Examples in a batch, real data.
        accuracy: Accuracy on the test split at which the task is learned, in per cent.
        epochs: Most epochs, real data.
        seeds: Runs at each learning rate, real data.
        float64: Compute the students in 64 bits, which a very small sigma needs.
    """

    rules: tuple[str, ...] = ("sgd", "np(difference=jvp)")
    widths: tuple[int, ...] = (25, 50, 100, 200)
    lrs: int = 7
    inputs: int = 20
    outputs: int = 5
    lowest: float = 3e-4
    highest: float = 0.05
    fallen: float = 0.1
    steps: int = 10_000
    students: int = 10
    dataset: str = "mnist(train=5000, test=1000)"
    loss: str = "cross-entropy"
    lowest_real: float = 3e-3
    highest_real: float = 0.3
    batchsize: int = 100
    accuracy: float = 85.0
    epochs: int = 60
    seeds: int = 2
    float64: bool = False

    picture = Picture("lr", "updates", ("width", "rule"), {"task": "teacher"}, log="xy")
    size = (7.0, 4.0)

    def __post_init__(self):
        self.at_least(1, "widths", "lrs", "inputs", "outputs", "steps", "epochs", "students", "seeds", "batchsize")
        if len(set(self.widths)) < 2:
            raise ValueError(f"widths must be at least two; got {', '.join(map(str, self.widths))}")
        self.rising("lowest", "highest")
        self.rising("lowest_real", "highest_real")
        self.require(lambda value: 0 < value < 1, "a share of the initial error, above 0 and below 1", "fallen")
        self.require(lambda value: 0 < value < 100, "in per cent, above 0 and below 100", "accuracy")
        for rule in self.rules:
            make("rule", rule, student((self.inputs, 1, self.outputs)), squared_error)

    @property
    def names(self) -> list[str]:
        return [str(check("rule", rule)) for rule in self.rules]

    @property
    def parts(self) -> list[Part]:
        return combinations(task=("teacher", "real data"), rule=self.names, width=self.widths)

    def rows(self, part: Part) -> Iterator[Row]:
        found = self.of_students if part["task"] == "teacher" else self.of_networks
        return found(part["rule"], part["width"])

    def of_students(self, rule: str, width: int) -> Iterator[Row]:
        at = times(self.steps, FINE)
        for lr in log_spaced(self.lowest, self.highest, self.lrs):
            with in_float64(self.float64):
                keys = jax.random.split(key_of(0), self.students)
                error = learn(rule, (self.inputs, width, self.outputs), lr, 0.0, at, keys).error
            for seed, own in enumerate(error):
                below = np.flatnonzero(own < self.fallen * own[0])
                yield {"lr": lr, "seed": seed, "updates": at[below[0]] if len(below) else math.nan}

    def of_networks(self, rule: str, width: int) -> Iterator[Row]:
        task = make_task(self.load, self.dataset, f"fc(width={width}, depth=1)", self.loss, self.batchsize)
        rates = log_spaced(self.lowest_real, self.highest_real, self.lrs)
        runs = [(lr, seed) for lr in rates for seed in range(self.seeds)]
        reached = dict.fromkeys(runs, math.nan)

        def sufficed(epoch: Epoch) -> list[tuple[int, int]]:
            return [(i, row["epoch"]) for i, row in epoch.rows.items() if row["test_acc"] > self.accuracy]

        for found in train(task, [make_hyper(rule, lr, seed) for lr, seed in runs], self.epochs, sufficed):
            for i, epoch in found:
                if math.isnan(reached[runs[i]]):
                    reached[runs[i]] = epoch * (len(task.data.train_y) // self.batchsize)
            if any(all(math.isfinite(reached[lr, seed]) for seed in range(self.seeds)) for lr in rates):
                break
        for (lr, seed), updates in reached.items():
            yield {"lr": lr, "seed": seed, "updates": updates}

    def draw(self, figure: Any, rows: Sequence[Row]) -> None:
        titles = {"teacher": f"linear student and teacher,\n{1 - self.fallen:.0%} of the error gone",
                  "real data": f"{self.dataset.partition('(')[0]},\n{self.accuracy:g}% of the test split"}  # fmt: skip
        widths = self.widths
        for axes, (task, title) in zip(figure.subplots(1, 2), titles.items(), strict=True):
            for i, rule in enumerate(self.names):
                found = {w: learning_time(rows, task, rule, w)[1:] for w in widths}
                mean_curve(axes, found, i, label=rule)
            narrowest = found[widths[0]][0]  # of the last rule
            axes.plot(widths, [narrowest * w / widths[0] for w in widths], color="grey", linewidth=1, linestyle=":",
                      label="in proportion to the width")  # fmt: skip
            learned = finite(where(rows, task=task), "updates")
            tidy(axes, title=title, xscale="log", yscale="log" if learned else "linear",
                 xlabel="units in the hidden layer")  # fmt: skip
            axes.set_xticks(widths, [f"{w:,}" for w in widths])
            axes.minorticks_off()
        figure.axes[0].set_ylabel("updates until learned,\nat the best learning rate")
        legend(figure, figure.axes[0])

    def findings(self, rows: Sequence[Row]) -> list[Finding]:
        findings = []
        narrow, wide = min(self.widths), max(self.widths)
        for task in ("teacher", "real data"):
            for rule in self.names:
                lr, times, _ = zip(*(learning_time(rows, task, rule, w) for w in (narrow, wide)), strict=True)
                factor = times[1] / times[0]
                findings.append(Finding(f"{task}, {rule}: {times[0]:,.0f} updates at width {narrow} (rate {lr[0]:g}) "
                                        f"and {times[1]:,.0f} at width {wide} (rate {lr[1]:g}): {wide / narrow:g} "
                                        f"times the width, {factor:.2g} times the time",
                                        factor < (wide / narrow) ** 0.5))  # fmt: skip
        return findings


def learning_time(rows: Sequence[Row], task: str, rule: str, width: int) -> tuple[float, float, float]:
    """(learning rate, mean, standard error) of the updates that learning takes, at the rate where the mean is lowest
    among those at which all runs learned; nan where there is no such rate."""
    own = where(rows, task=task, rule=rule, width=width)
    found = {lr: [r["updates"] for r in own if r["lr"] == lr] for lr in dict.fromkeys(r["lr"] for r in own)}
    learned = {lr: updates for lr, updates in found.items() if all(map(math.isfinite, updates))}
    if not learned:
        return math.nan, math.nan, 0.0
    best = min(learned, key=lambda lr: fmean(learned[lr]))
    return best, *mean_error(learned[best])
