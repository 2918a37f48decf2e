"""Does Adam help node perturbation, and how much depends on the learning rate?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from nodepert.experiments.drawing import Picture, legend, mean_curve, style, tidy
from nodepert.experiments.experiment import Experiment, Finding, Part, Row
from nodepert.experiments.shared.tables import means, where
from nodepert.experiments.shared.tasks import curves, log_spaced, make_hyper, make_task
from nodepert.training.metrics import diverged

LAST = 5  # epochs whose mean is the final accuracy
SCALES: dict[str, dict[str, Any]] = {
    "smoke": {"dataset": "digits(train=300, test=100)", "network": "fc(width=16)", "rates": 4, "epochs": 6, "seeds": 1},
    "small": {},
    "paper": {"dataset": "mnist", "network": "fc", "rates": 25, "epochs": 50, "seeds": 5},
}


@dataclass(frozen=True, kw_only=True)
class Adam(Experiment):
    """Every rule is trained with every optimizer over a range of learning rates. The result is the test accuracy, the
    mean of the last 5 epochs. A run that diverges counts as chance level, 100 / classes per cent.

    Adam divides each component of the estimate by its running root mean square. For node perturbation this is mostly
    noise, so that Adam takes steps of the same size in every direction, signal or not.

    Args:
        rules: Learning rules.
        optimizers: Optimizers, each with every rule.
        dataset: Data set.
        network: Network.
        loss: Loss.
        lowest: Lowest learning rate.
        highest: Highest learning rate.
        rates: Number of learning rates, equally spaced on a logarithmic axis.
        epochs: Passes over the training data.
        batchsize: Examples per update.
        seeds: Runs of each kind.
    """

    rules: tuple[str, ...] = ("np", "sgd")
    optimizers: tuple[str, ...] = ("sgd", "adam")
    dataset: str = "mnist(train=4000, test=2000)"
    network: str = "fc(width=100)"
    loss: str = "mse"
    lowest: float = 1e-4
    highest: float = 10.0
    rates: int = 16
    epochs: int = 20
    batchsize: int = 100
    seeds: int = 2

    across = ("rules", "optimizers")
    picture = Picture("lr", "final_acc", ("rule", "optimizer"), log="x")
    size = (7.0, 4.4)

    def __post_init__(self):
        self.at_least(2, "rates")
        self.at_least(LAST, "epochs")
        self.at_least(1, "seeds", "batchsize")
        self.rising("lowest", "highest")

    @property
    def grid(self) -> list[float]:
        return log_spaced(self.lowest, self.highest, self.rates)

    def rows(self, part: Part) -> Iterator[Row]:
        task = make_task(self.load, self.dataset, self.network, self.loss, self.batchsize)
        runs = [(lr, seed) for lr in self.grid for seed in range(self.seeds)]
        hypers = [make_hyper(part["rule"], lr, seed, part["optimizer"]) for lr, seed in runs]
        for (lr, seed), run in zip(runs, curves(task, hypers, self.epochs), strict=True):
            finished = run[-1]["epoch"] == self.epochs and not diverged(run[-1])
            final = sum(r["test_acc"] for r in run[-LAST:]) / LAST if finished else 100 / task.data.classes
            yield {"lr": lr, "seed": seed, "final_acc": final, "best_acc": max(r["test_acc"] for r in run),
                   "diverged": int(not finished)}  # fmt: skip

    def draw(self, figure: Any, rows: Sequence[Row]) -> None:
        axes = figure.subplots()
        curves = [means(where(rows, **part), "lr", "final_acc") for part in self.parts]
        for i, (part, found) in enumerate(zip(self.parts, curves, strict=True)):
            rule, optimizer = part["rule"], part["optimizer"]
            mean_curve(axes, found, i, rule if optimizer == "sgd" else f"{rule} + {optimizer}")
            lr, mean, _ = best(rows, rule, optimizer)
            axes.plot(lr, mean, markersize=11, fillstyle="none", linestyle="none", **style(i))
            covered = any(other[lr][0] > mean for other in curves)  # then the number goes below the point
            axes.annotate(f"{mean:.1f}", (lr, mean), (0, -20 if covered else 9), textcoords="offset points",
                          ha="center", color=style(i)["color"])  # fmt: skip
        tidy(axes, xlabel="learning rate", ylabel=f"test accuracy, %\n(mean of the last {LAST} epochs)", xscale="log",
             ylim=(0, 107))  # fmt: skip
        legend(figure, axes)

    def findings(self, rows: Sequence[Row]) -> list[Finding]:
        findings = []
        for rule in self.rules:
            found = {optimizer: best(rows, rule, optimizer) for optimizer in self.optimizers}
            text = "; ".join(f"{o} {mean:.1f} ± {error:.1f} % at {lr:g}" for o, (lr, mean, error) in found.items())
            inside = all(self.grid[0] < lr < self.grid[-1] for lr, _, _ in found.values())
            findings.append(Finding(f"{rule}: {text}{'' if inside else ' (at the edge of the range)'}", inside))
        if {"np", "sgd"} <= {*self.rules} and {"sgd", "adam"} <= {*self.optimizers}:
            gain = {r: best(rows, r, "adam")[1] - best(rows, r, "sgd")[1] for r in ("np", "sgd")}
            gap = {o: best(rows, "sgd", o)[1] - best(rows, "np", o)[1] for o in ("sgd", "adam")}
            findings.append(Finding(f"Adam changes the best accuracy by {gain['np']:+.1f} points for np and "
                                    f"{gain['sgd']:+.1f} for sgd; np stays behind sgd by {gap['sgd']:.1f} points "
                                    f"without Adam and {gap['adam']:.1f} with it", min(gap.values()) > 0))  # fmt: skip
        return findings


def best(rows: Sequence[Row], rule: str, optimizer: str) -> tuple[float, float, float]:
    """(learning rate, mean, standard error) where the mean final accuracy is highest."""
    found = means(where(rows, rule=rule, optimizer=optimizer), "lr", "final_acc")
    lr = max(found, key=lambda lr: found[lr][0])
    return lr, *found[lr]
