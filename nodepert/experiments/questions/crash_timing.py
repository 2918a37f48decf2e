"""At which learning rates training crashes, and when."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from nodepert.errors import UserError
from nodepert.experiments.drawing import Picture, curve, legend, style, tidy
from nodepert.experiments.experiment import Experiment, Finding, Load, Part, Row
from nodepert.experiments.shared.crashes import fate
from nodepert.experiments.shared.tasks import curves, gathered, make_hyper, make_task
from nodepert.registry.ranges import at_least
from nodepert.training.metrics import mean_error

SCALES: dict[str, dict[str, Any]] = {
    "smoke": {"dataset": "digits", "network": "fc(width=30)", "lrs": (0.3, 3.0), "epochs": 6, "seeds": 2},
    "small": {"dataset": "mnist(train=3000, test=1000)", "network": "fc(width=100, depth=4)", "seeds": 3,
              "lrs": (0.04, 0.07, 0.12, 0.16, 0.22, 0.5, 2.0)},
    "paper": {},
}  # fmt: skip
SHIFT = 0.05  # between the points of two rules at one learning rate, in decades


def crash_timing(
    load: Load, *, rules: tuple[str, ...] = ("np", "sgd"),
    lrs: tuple[float, ...] = (0.003, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 1.0, 3.0, 10.0),
    dataset: str = "mnist", network: str = "fc", loss: str = "mse", batchsize: int = 100, epochs: int = 50,
    seeds: int = 5, drop: float = 25.0, floor: float = 25.0,
) -> Experiment:  # fmt: skip
    """Networks are trained by plain gradient descent at many learning rates. A run crashes at the first epoch t with

        A(t) < max_{s<t} A(s) - drop,    once the maximum is above floor

    with A the test accuracy in per cent, or whose loss is not finite. It has not trained where A never was above floor.
    Node perturbation adds noise to every update; the weights diffuse, larger weights make the noise larger, and so what
    was learned can be lost (Hiratani et al. 2022). Left: when runs crash. Right: the accuracy reached before.

    Args:
        rules: The rules compared; the others are compared with sgd.
        lrs: Learning rates.
        dataset: Data set.
        network: Network.
        loss: Loss.
        batchsize: Examples in a batch.
        epochs: Epochs within which runs are watched.
        seeds: Runs per learning rate.
        drop: Percentage points below the maximum that make a crash.
        floor: Per cent that must have been passed.
    """
    at_least("batchsize", batchsize, 1)
    at_least("epochs", epochs, 1)
    at_least("seeds", seeds, 1)
    if not lrs or not all(0 < lr < math.inf for lr in lrs):
        raise UserError(f"lrs must be positive and finite, at least one; got {', '.join(map(str, lrs)) or 'none'}")
    if not (0 < drop < 100 and 0 <= floor < 100):
        raise UserError(f"drop and floor are in per cent, below 100; got {drop} and {floor}")
    rates = sorted(set(lrs))

    def rows(part: Part) -> Iterator[Row]:
        task = make_task(load, dataset, network, loss, batchsize)
        hypers = [make_hyper(part["rule"], lr, seed) for lr in rates for seed in range(seeds)]
        for hyper, found in zip(hypers, curves(task, hypers, epochs), strict=True):
            crash, best, trained = fate(found, drop, floor)
            yield {"lr": hyper.lr, "seed": hyper.seed, "crash": math.nan if crash is None else crash, "best": best,
                   "trained": int(trained), "last": found[-1]["test_acc"], "epochs": found[-1]["epoch"]}  # fmt: skip

    def draw(figure: Any, rows: Sequence[Row]) -> None:
        left, right = figure.subplots(1, 2, sharex=True)
        places = {"no crash": 1.13 * epochs, "does not train": 1.32 * epochs}
        for i, rule in enumerate(rules):
            own = [r for r in rows if r["rule"] == rule]
            shift = 10 ** (SHIFT * (i - (len(rules) - 1) / 2))
            stack = [0.025 * epochs * (r["seed"] - (seeds - 1) / 2) for r in own]  # runs of one rate beside each other
            y = [
                r["crash"] if (at := outcome(r)) == "crash" else places[at] + up
                for r, up in zip(own, stack, strict=True)
            ]
            left.scatter([r["lr"] * shift for r in own], y, s=20, alpha=0.8, label=rule, **style(i))
            reached = {lr: mean_error(values) for lr, values in gathered(own, ["lr"], "best").items()}
            curve(right, list(reached), [m for m, _ in reached.values()], [e for _, e in reached.values()], i)
        left.axhline(1.04 * epochs, color="grey", linewidth=0.8)
        right.axhline(floor, color="grey", linewidth=1, linestyle=":")
        ticks = [t for t in left.get_yticks() if 0 <= t <= epochs]
        tidy(left, xscale="log", xlabel="learning rate", ylabel="epoch of the crash", ylim=(0, 1.42 * epochs))
        left.set_yticks([*ticks, *places.values()], [*(f"{t:g}" for t in ticks), *places])
        tidy(right, xlabel="learning rate", ylabel="highest test accuracy\nbefore a crash, %", ylim=(0, 100))
        legend(figure, left)

    def findings(rows: Sequence[Row]) -> list[Finding]:
        said, failing = [], {}
        for rule in rules:
            own = [r for r in rows if r["rule"] == rule]
            crashed = [r for r in own if outcome(r) == "crash"]
            failing[rule] = min((r["lr"] for r in own if outcome(r) != "no crash"), default=math.inf)
            at = f", at learning rates {crashed[0]['lr']:g} to {crashed[-1]['lr']:g}" if crashed else ""
            idle = [r["lr"] for r in own if outcome(r) == "does not train"]
            untrained = f"; {len(idle)} do not train, the lowest at {min(idle):g}" if idle else ""
            said.append(Finding(f"{rule}: {len(crashed)} of {len(own)} runs crash{at}{untrained}",
                                (not crashed) if rule == "sgd" else len(crashed) >= 3))  # fmt: skip
            if len({r["lr"] for r in crashed}) > 1:
                trained = [r for r in own if r["trained"]]
                times = [r["crash"] if outcome(r) == "crash" else math.inf for r in trained]  # or they would not count
                rho = rank_correlation([r["lr"] for r in trained], times)
                first, last = (fmean(r["crash"] for r in crashed if r["lr"] == crashed[k]["lr"]) for k in (0, -1))
                said.append(Finding(f"{rule}: the higher the rate the earlier the crash, epoch {first:.0f} at "
                                    f"{crashed[0]['lr']:g} and {last:.0f} at {crashed[-1]['lr']:g} (rank correlation "
                                    f"{rho:.2f} over the {len(trained)} runs that train; no crash counts as latest)",
                                    rho < -2 / (len(trained) - 1) ** 0.5))  # fmt: skip
        for rule in (rule for rule in rules if rule != "sgd" and "sgd" in rules):
            low, high = failing[rule], failing["sgd"]
            words = [f"at {lr:g}" if lr < math.inf else "at none" for lr in (low, high)]
            said.append(Finding(f"the lowest rate at which a run crashes or does not train: {rule} {words[0]}, "
                                f"sgd {words[1]}", low < high))  # fmt: skip
        return said

    picture = Picture("lr", "crash", ("rule",), log="x")
    return Experiment([{"rule": rule} for rule in rules], rows, draw, findings, picture, size=(7.0, 3.6))


def outcome(row: Row) -> str:
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
