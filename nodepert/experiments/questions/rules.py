"""All learning rules on one task, each at a learning rate of its own: how far they get, and what they cost."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import fmean, median
from typing import Any, Literal

from nodepert.errors import UserError
from nodepert.experiments.drawing import Picture, legend, style, tidy
from nodepert.experiments.experiment import Experiment, Finding, Load, Part, Row
from nodepert.experiments.shared.cost import Cost
from nodepert.experiments.shared.tasks import Task, curves, log_spaced, make_hyper, make_task
from nodepert.registry.ranges import at_least
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
SEARCHED = 1000  # the seed of the search, none of the final runs'


def rules(
    load: Load, *, setting: Literal["own", "ren2023", "dalm2024"] = "own", rules: tuple[str, ...] = (),
    dataset: str = "mnist", network: str = "", loss: str = "cross-entropy", optimizer: str = "", batchsize: int = 0,
    epochs: int = 20, lowest: float = 0.0, highest: float = 0.0, rates: int = 5, seeds: int = 3,
) -> Experiment:  # fmt: skip
    """One task, one budget. Each rule is trained at every learning rate of the same grid, with one seed; then, where
    the training loss ended lowest, with other seeds, and those runs count. The test split takes no part in the choice.
    What an update costs:

        passes     multiplications in matrix products and convolutions, over those of one forward pass
        memory     the most bytes that an update needs beside the data set, by the analysis of the compiled step
        seconds    of an epoch, training and evaluation, as it was on this machine

    Args:
        setting: What the options are that are left empty: our own, after Ren et al. 2023, or after Dalm et al. 2024.
        rules: The rules; those of the setting where empty.
        dataset: Data set.
        network: Network; the setting's where empty.
        loss: Loss.
        optimizer: Optimizer, the setting's where empty.
        batchsize: Examples per update; the setting's where 0.
        epochs: Passes over the training data, in the search and in the final runs.
        lowest: Least learning rate of the search, the setting's where 0.
        highest: Largest learning rate of the search, the setting's where 0.
        rates: How many learning rates, equally far apart on a logarithmic axis.
        seeds: Final runs of each rule.
    """
    chosen = SETTINGS[setting]
    rules, network, optimizer = rules or chosen["rules"], network or chosen["network"], optimizer or chosen["optimizer"]
    batchsize = batchsize or chosen["batchsize"]
    lowest, highest = lowest or chosen["lowest"], highest or chosen["highest"]
    for name, value, least in (("batchsize", batchsize, 1), ("epochs", epochs, 1), ("rates", rates, 2),
                               ("seeds", seeds, 1)):  # fmt: skip
        at_least(name, value, least)
    if not 0 < lowest < highest < math.inf:
        raise UserError(f"lowest and highest are learning rates, 0 < lowest < highest; got {lowest:g} and {highest:g}")
    grid = log_spaced(lowest, highest, rates)

    def trained(task: Task, rule: str, runs: Sequence[tuple[float, int]]) -> list[Row]:
        """The last row of every run, with learning rate and seed; `seconds` of the epochs but for the first."""
        found = []
        for (lr, seed), run in zip(
            runs, curves(task, [make_hyper(rule, lr, seed, optimizer) for lr, seed in runs], epochs), strict=True
        ):
            last, through = run[-1], run[-1]["epoch"] == epochs and not diverged(run[-1])
            figures = {name: last[name] if through else math.nan for name in ("train_loss", "train_acc", "test_acc")}
            seconds = median([r["epoch_time"] for r in run[2:] or run])
            found.append({"lr": lr, "seed": seed, **figures, "seconds": seconds})
        return found

    def rows(part: Part) -> Iterator[Row]:
        task = make_task(load, dataset, network, loss, batchsize)
        rule = part["rule"]
        cost = Cost(task).of(make_hyper(rule, lowest, 0, optimizer))
        search = trained(task, rule, [(lr, SEARCHED) for lr in grid])
        learned = [r for r in search if math.isfinite(r["train_loss"])]
        best = min(learned, key=lambda r: r["train_loss"])["lr"] if learned else lowest
        final = trained(task, rule, [(best, seed) for seed in range(seeds)])
        for phase, found in (("search", search), ("final", final)):
            for row in found:
                yield {"phase": phase, **row, **cost}

    def draw(figure: Any, rows: Sequence[Row]) -> None:
        final = {rule: [r for r in rows if (r["rule"], r["phase"]) == (rule, "final")] for rule in rules}
        order = sorted(rules, key=lambda rule: mean_of(final[rule], "test_acc"))
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
            for place, rule in enumerate(order):
                value = mean_of(final[rule], name) / (1e6 if name == "memory" else 1)
                table.text(at, place, f"{value:.2g}", ha="center", va="center")
        legend(figure, accuracy)

    def findings(rows: Sequence[Row]) -> list[Finding]:
        final = {rule: [r for r in rows if (r["rule"], r["phase"]) == (rule, "final")] for rule in rules}
        said = []
        for rule in rules:
            own = final[rule]
            lr, train, test = own[0]["lr"], *(mean_error(finite(own, name)) for name in ("train_acc", "test_acc"))
            edge = " (at the edge of the range)" if lr in (grid[0], grid[-1]) else ""
            says = (f"{rule}: train {train[0]:.1f} ± {train[1]:.1f} %, test {test[0]:.1f} ± {test[1]:.1f} % at "
                    f"{lr:g}{edge}; {own[0]['passes']:.2g} forward passes per update")  # fmt: skip
            said.append(Finding(says, all(math.isfinite(r["train_loss"]) for r in own)))
        train = {rule: mean_of(final[rule], "train_loss") for rule in rules}
        if {"sgd", "np"} <= {*rules}:
            said.append(Finding(f"the training loss of np ends at {train['np']:.2g}, that of sgd at {train['sgd']:.2g}",
                                train["np"] > train["sgd"]))  # fmt: skip
        more = f"np(samples={SAMPLES})"
        if {"np", more} <= {*rules}:
            said.append(Finding(f"averaging {SAMPLES} draws lowers that of np to {train[more]:.2g}",
                                train[more] < train["np"]))  # fmt: skip
        return said

    size = (7.0, 1.6 + 0.29 * len(rules))
    picture = Picture("lr", "test_acc", ("rule",), {"phase": "search"}, log="x")
    return Experiment([{"rule": rule} for rule in rules], rows, draw, findings, picture, size)


def finite(rows: Sequence[Row], name: str) -> list[float]:
    """The finite values of a column."""
    return [r[name] for r in rows if math.isfinite(r[name])]


def mean_of(rows: Sequence[Row], name: str) -> float:
    """Their mean, nan where there are none."""
    values = finite(rows, name)
    return fmean(values) if values else math.nan
