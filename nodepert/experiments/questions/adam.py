"""Does Adam help node perturbation, and how much depends on the learning rate?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from nodepert.errors import UserError
from nodepert.experiments.drawing import Picture, curve, legend, style, tidy
from nodepert.experiments.experiment import Experiment, Finding, Load, Part, Row
from nodepert.experiments.shared.tasks import curves, gathered, log_spaced, make_hyper, make_task
from nodepert.registry.ranges import at_least
from nodepert.training.metrics import diverged, mean_error

LAST = 5  # epochs whose mean is the final accuracy
SCALES: dict[str, dict[str, Any]] = {
    "smoke": {"dataset": "digits(train=300, test=100)", "network": "fc(width=16)", "rates": 4, "epochs": 6, "seeds": 1},
    "small": {},
    "paper": {"dataset": "mnist", "network": "fc", "rates": 25, "epochs": 50, "seeds": 5},
}


def adam(
    load: Load, *, rules: tuple[str, ...] = ("np", "sgd"), optimizers: tuple[str, ...] = ("sgd", "adam"),
    dataset: str = "mnist(train=4000, test=2000)", network: str = "fc(width=100)", loss: str = "mse",
    lowest: float = 1e-4, highest: float = 10.0, rates: int = 16, epochs: int = 20, batchsize: int = 100,
    seeds: int = 2,
) -> Experiment:  # fmt: skip
    """Every rule with every optimizer over a range of learning rates: the test accuracy after training, as the mean of
    the last 5 epochs. A run that diverges is counted at chance level, 100 / classes per cent.

    Adam divides each component of the estimate by its running root mean square. That of node perturbation is mostly
    noise, so that Adam takes steps of one size in every direction, signal or not.

    Args:
        rules: Learning rules.
        optimizers: Optimizers, each with every rule.
        dataset: Data set.
        network: Network.
        loss: Loss.
        lowest: Least learning rate.
        highest: Largest learning rate.
        rates: How many learning rates, equally far apart on a logarithmic axis.
        epochs: Passes over the training data.
        batchsize: Examples per update.
        seeds: Runs of each kind.
    """
    at_least("rates", rates, 2)
    at_least("epochs", epochs, LAST)
    at_least("seeds", seeds, 1)
    at_least("batchsize", batchsize, 1)
    if not 0 < lowest < highest < math.inf:
        raise UserError(f"lowest and highest are learning rates, 0 < lowest < highest; got {lowest:g} and {highest:g}")
    grid = log_spaced(lowest, highest, rates)

    def rows(part: Part) -> Iterator[Row]:
        task = make_task(load, dataset, network, loss, batchsize)
        runs = [(lr, seed) for lr in grid for seed in range(seeds)]
        hypers = [make_hyper(part["rule"], lr, seed, part["optimizer"]) for lr, seed in runs]
        for (lr, seed), run in zip(runs, curves(task, hypers, epochs), strict=True):
            through = run[-1]["epoch"] == epochs and not diverged(run[-1])
            final = sum(r["test_acc"] for r in run[-LAST:]) / LAST if through else 100 / task.data.classes
            yield {"lr": lr, "seed": seed, "final_acc": final, "best_acc": max(r["test_acc"] for r in run),
                   "diverged": int(not through)}  # fmt: skip

    def draw(figure: Any, rows: Sequence[Row]) -> None:
        axes = figure.subplots()
        for i, (rule, optimizer) in enumerate(pairs):
            found = reached(rows, rule, optimizer)
            means, errors = zip(*found.values(), strict=True)
            curve(axes, list(found), means, errors, i, rule if optimizer == "sgd" else f"{rule} + {optimizer}")
            lr, mean, _ = best(rows, rule, optimizer)
            axes.plot(lr, mean, markersize=11, fillstyle="none", linestyle="none", **style(i))
            under = any(reached(rows, *other)[lr][0] > mean for other in pairs)  # there its number is out of the way
            axes.annotate(f"{mean:.1f}", (lr, mean), (0, -20 if under else 9), textcoords="offset points", ha="center",
                          color=style(i)["color"])  # fmt: skip
        tidy(
            axes,
            xlabel="learning rate",
            ylabel=f"test accuracy, %\n(mean of the last {LAST} epochs)",
            xscale="log",
            ylim=(0, 107),
        )
        legend(figure, axes)

    def findings(rows: Sequence[Row]) -> list[Finding]:
        said = []
        for rule in rules:
            found = {optimizer: best(rows, rule, optimizer) for optimizer in optimizers}
            words = "; ".join(f"{o} {mean:.1f} ± {error:.1f} % at {lr:g}" for o, (lr, mean, error) in found.items())
            inside = all(grid[0] < lr < grid[-1] for lr, _, _ in found.values())
            said.append(Finding(f"{rule}: {words}{'' if inside else ' (at the edge of the range)'}", inside))
        if {"np", "sgd"} <= {*rules} and {"sgd", "adam"} <= {*optimizers}:
            gain = {r: best(rows, r, "adam")[1] - best(rows, r, "sgd")[1] for r in ("np", "sgd")}
            gap = {o: best(rows, "sgd", o)[1] - best(rows, "np", o)[1] for o in ("sgd", "adam")}
            said.append(Finding(f"Adam changes the best accuracy by {gain['np']:+.1f} points for np and "
                                f"{gain['sgd']:+.1f} for sgd; np stays behind sgd by {gap['sgd']:.1f} points without "
                                f"Adam and {gap['adam']:.1f} with it", min(gap.values()) > 0))  # fmt: skip
        return said

    pairs = [(rule, optimizer) for rule in rules for optimizer in optimizers]
    picture = Picture("lr", "final_acc", ("rule", "optimizer"), log="x")
    return Experiment([{"rule": r, "optimizer": o} for r, o in pairs], rows, draw, findings, picture, (7.0, 4.4))


def reached(rows: Sequence[Row], rule: str, optimizer: str) -> dict[float, tuple[float, float]]:
    """{learning rate: mean and standard error of the final accuracy}."""
    own = [r for r in rows if (r["rule"], r["optimizer"]) == (rule, optimizer)]
    return {lr: mean_error(values) for lr, values in gathered(own, ["lr"], "final_acc").items()}


def best(rows: Sequence[Row], rule: str, optimizer: str) -> tuple[float, float, float]:
    """(learning rate, mean, standard error) where the mean final accuracy is highest."""
    found = reached(rows, rule, optimizer)
    lr = max(found, key=lambda lr: found[lr][0])
    return lr, *found[lr]
