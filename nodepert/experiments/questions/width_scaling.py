"""How long learning takes against the width of the hidden layer: a linear student, and a network on real data."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Any

import jax
import numpy as np

from nodepert.errors import UserError
from nodepert.experiments.drawing import Picture, curve, legend, tidy
from nodepert.experiments.experiment import Experiment, Finding, Load, Part, Row
from nodepert.experiments.shared.linear_student import in_float64, learn, squared_error, student, times
from nodepert.experiments.shared.tasks import log_spaced, make_hyper, make_task, train
from nodepert.registry import check, make
from nodepert.registry.ranges import at_least
from nodepert.training.metrics import mean_error

SCALES: dict[str, dict[str, Any]] = {
    "smoke": {"rules": ("np(difference=jvp)",), "widths": (10, 80), "inputs": 8, "outputs": 3, "lowest": 1e-3, "lrs": 3,
              "steps": 2000, "students": 8, "dataset": "digits", "batchsize": 50, "lowest_real": 0.01,
              "epochs": 30, "accuracy": 80.0},
    "small": {},
    "paper": {"rules": ("sgd", "np(sigma=1e-4)"), "widths": (100, 200, 400, 800, 1600, 3200), "inputs": 100,
              "outputs": 10, "lrs": 8, "steps": 100_000, "students": 10, "float64": True, "dataset": "mnist",
              "batchsize": 1000, "epochs": 10_000, "accuracy": 97.5, "seeds": 5},
}  # fmt: skip
FINE = 200  # times at which the error of a student is looked at


def width_scaling(
    load: Load, *, rules: tuple[str, ...] = ("sgd", "np(difference=jvp)"), widths: tuple[int, ...] = (25, 50, 100, 200),
    lrs: int = 7, inputs: int = 20, outputs: int = 5, lowest: float = 3e-4, highest: float = 0.05, fallen: float = 0.1,
    steps: int = 10_000, students: int = 10, dataset: str = "mnist(train=5000, test=1000)", loss: str = "cross-entropy",
    lowest_real: float = 3e-3, highest_real: float = 0.3, batchsize: int = 100, accuracy: float = 85.0,
    epochs: int = 60, seeds: int = 2, float64: bool = False,
) -> Experiment:  # fmt: skip
    """How many updates until the task is learned, at the best of several learning rates, by a network with one hidden
    layer of h units? Two tasks (Hiratani et al. 2022, figures 1a and 5b):

        teacher    y = W2 W1 x learns online from y* = W* x, L = ||y - y*||^2 / 2: until ||W2 W1 - W*||_F^2 is below
                   `fallen` times what it was at the start
        real data  a ReLU network: until the test accuracy is above `accuracy`, looked at after every epoch

    Each unit adds its own noise to the estimate, and gets its own weights to learn with: a unit's gradient falls as the
    layer gets wider. Runs on real data stop as soon as one learning rate has been enough for all its seeds.

    Args:
        rules: Rules; those without state can learn from the teacher.
        widths: Units of the hidden layer.
        lrs: How many learning rates are tried at every width, equally far apart on a logarithmic axis.
        inputs: Units of the input, teacher.
        outputs: Units of the output, teacher.
        lowest: Least learning rate, teacher.
        highest: Largest learning rate, teacher.
        fallen: What is left of the error when the task counts as learned, teacher.
        steps: Updates within which it must be, teacher.
        students: Runs at each learning rate, each with a teacher of its own.
        dataset: Data set.
        loss: Loss, real data.
        lowest_real: Least learning rate, real data.
        highest_real: Largest learning rate, real data.
        batchsize: Examples in a batch, real data.
        accuracy: Per cent of the test split at which the task counts as learned.
        epochs: Epochs within which it must be.
        seeds: Runs at each learning rate, real data.
        float64: Compute the students in 64 bits; a very small sigma needs it.
    """
    for name, value in (("lrs", lrs), ("inputs", inputs), ("outputs", outputs), ("steps", steps), ("epochs", epochs),
                        ("students", students), ("seeds", seeds), ("batchsize", batchsize)):  # fmt: skip
        at_least(name, value, 1)
    for width in widths:
        at_least("widths", width, 1)
    if len(set(widths)) < 2:
        raise UserError(f"widths must be at least two; got {', '.join(map(str, widths)) or 'none'}")
    for low, high, of in ((lowest, highest, ""), (lowest_real, highest_real, "_real")):
        if not 0 < low < high < math.inf:
            raise UserError(f"lowest{of} must be positive and below highest{of}; got {low:g} and {high:g}")
    if not 0 < fallen < 1:
        raise UserError(f"fallen is a share of the error at the start, above 0 and below 1; got {fallen}")
    if not 0 < accuracy < 100:
        raise UserError(f"accuracy is in per cent, above 0 and below 100; got {accuracy}")
    names = [str(check("rule", rule)) for rule in rules]
    for name in names:
        make("rule", name, student((inputs, 1, outputs)), squared_error)

    def of_students(rule: str, width: int) -> Iterator[Row]:
        at = times(steps, FINE)
        for lr in log_spaced(lowest, highest, lrs):
            with in_float64(float64):
                keys = jax.random.split(jax.random.key(0), students)
                error = learn(rule, (inputs, width, outputs), lr, 0.0, at, keys).error
            for seed, own in enumerate(error):
                below = np.flatnonzero(own < fallen * own[0])
                yield {"lr": lr, "seed": seed, "updates": at[below[0]] if len(below) else math.nan}

    def of_networks(rule: str, width: int) -> Iterator[Row]:
        task = make_task(load, dataset, f"fc(width={width}, depth=1)", loss, batchsize)
        runs = [(lr, seed) for lr in log_spaced(lowest_real, highest_real, lrs) for seed in range(seeds)]
        reached = dict.fromkeys(runs, math.nan)
        for epoch in train(task, [make_hyper(rule, lr, seed) for lr, seed in runs], epochs):
            for i, row in epoch.rows.items():
                if row["test_acc"] > accuracy and math.isnan(reached[runs[i]]):
                    reached[runs[i]] = row["epoch"] * (len(task.data.train_y) // batchsize)
            if any(all(math.isfinite(reached[lr, seed]) for seed in range(seeds)) for lr, _ in runs):
                break
        for (lr, seed), updates in reached.items():
            yield {"lr": lr, "seed": seed, "updates": updates}

    def rows(part: Part) -> Iterator[Row]:
        found = of_students if part["task"] == "teacher" else of_networks
        return found(part["rule"], part["width"])

    def draw(figure: Any, rows: Sequence[Row]) -> None:
        titles = {"teacher": f"linear student and teacher,\n{1 - fallen:.0%} of the error gone",
                  "real data": f"{dataset.partition('(')[0]},\n{accuracy:g}% of the test split"}  # fmt: skip
        for axes, (task, title) in zip(figure.subplots(1, 2), titles.items(), strict=True):
            for i, rule in enumerate(names):
                found = {w: learning_time(rows, task, rule, w)[1:] for w in widths}
                means, errors = zip(*found.values(), strict=True)
                curve(axes, list(found), means, errors, i, label=rule)
                if rule == names[-1]:
                    axes.plot(widths, [means[0] * w / widths[0] for w in widths], color="grey", linewidth=1,
                              linestyle=":", label="in proportion to the width")  # fmt: skip
            learned = any(math.isfinite(r["updates"]) for r in rows if r["task"] == task)
            tidy(axes, title=title, xscale="log", yscale="log" if learned else "linear",
                 xlabel="units in the hidden layer")  # fmt: skip
            axes.set_xticks(widths, [f"{w:,}" for w in widths])
            axes.minorticks_off()
        figure.axes[0].set_ylabel("updates until learned,\nat the best learning rate")
        legend(figure, figure.axes[0])

    def findings(rows: Sequence[Row]) -> list[Finding]:
        said = []
        narrow, wide = min(widths), max(widths)
        for task in ("teacher", "real data"):
            for rule in names:
                lr, times, _ = zip(*(learning_time(rows, task, rule, w) for w in (narrow, wide)), strict=True)
                factor = times[1] / times[0]
                said.append(Finding(f"{task}, {rule}: {times[0]:,.0f} updates at width {narrow} (rate {lr[0]:g}) and "
                                    f"{times[1]:,.0f} at width {wide} (rate {lr[1]:g}): {wide / narrow:g} times "
                                    f"the width, {factor:.2g} times the time",
                                    factor < (wide / narrow) ** 0.5))  # fmt: skip
        return said

    parts = [{"task": task, "rule": rule, "width": width}
             for task in ("teacher", "real data") for rule in names for width in widths]  # fmt: skip
    picture = Picture("lr", "updates", ("width", "rule"), {"task": "teacher"}, log="xy")
    return Experiment(parts, rows, draw, findings, picture, size=(7.0, 4.0))


def learning_time(rows: Sequence[Row], task: str, rule: str, width: int) -> tuple[float, float, float]:
    """(learning rate, mean, standard error) of the updates it takes, at the rate where that is least; a rate counts
    where all its runs learned, and there is none (nan) where that is so nowhere."""
    own: dict[float, list[float]] = {}
    for r in rows:
        if (r["task"], r["rule"], r["width"]) == (task, rule, width):
            own.setdefault(r["lr"], []).append(r["updates"])
    learned = {lr: found for lr, found in own.items() if all(map(math.isfinite, found))}
    if not learned:
        return math.nan, math.nan, 0.0
    best = min(learned, key=lambda lr: fmean(learned[lr]))
    return best, *mean_error(learned[best])
