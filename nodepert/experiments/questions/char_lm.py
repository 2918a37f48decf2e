"""A language model by node perturbation, token by token: how many draws replace backpropagation?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nodepert.data.dataset import Dataset
from nodepert.errors import UserError
from nodepert.experiments.drawing import Picture, decades, legend, mean_curve, tidy
from nodepert.experiments.experiment import Experiment, Finding, Part, Row, combinations
from nodepert.experiments.shared.tables import best_rate, finite, where
from nodepert.experiments.shared.tasks import curves, make_hyper, make_task
from nodepert.registry import check, make, make_loss
from nodepert.training.metrics import mean_error, with_error

BACKPROP: Part = {"rule": "sgd", "draws": 0}
NEAR = 10  # per cent of the gain of backpropagation
SCALES: dict[str, dict[str, Any]] = {
    "smoke": {"rules": ("np(credit=own)",), "draws": (1,), "dataset": "text(characters=3000, window=8)",
              "network": "rnn(width=8, readout=every, tokens=True)", "lrs": (1e-2, 3e-2), "epochs": 3},
    "small": {},
    "paper": {"dataset": "text(window=64)", "draws": (1, 4, 16, 64, 256, 1024, 4096), "lrs": (1e-3, 3e-3, 1e-2),
              "network": "transformer(width=128, depth=4, tokens=True, readout=every)"},
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class CharLm(Experiment):
    """A causal transformer predicts the next character of a text. Each pre-activation a_t of each token t has noise of
    its own, and an error signal

        s_t = mean_k c_t^k xi_t^k,    over K draws per token,

    with c_t the change in the loss of the token alone (own), of it and later ones (future), or of the whole window
    (trial). The more draws, the nearer is the estimate to what backpropagation computes. All rules see the same
    tokens, equally often, and have the learning rate with the lowest training loss. The gain is how far the test loss
    is below that of a prediction from the frequencies of the characters alone.

    Args:
        rules: Learning rules with draws, without `samples`.
        draws: Draws K per token and update.
        dataset: Data set with a class for every time step.
        network: Network.
        optimizer: Optimizer.
        lrs: Learning rates; each rule has its best one at each number of draws.
        batchsize: Windows per update.
        epochs: Passes over the training text.
        seeds: Runs at each learning rate.
    """

    rules: tuple[str, ...] = (
        "np(credit=own, head=evaluated, noise=orthogonal)",
        "np(credit=future, head=evaluated, noise=orthogonal)",
        "np(credit=trial, head=evaluated, noise=orthogonal)",
        "np(credit=future, head=evaluated, noise=orthogonal, guide=chain(rate=0.01))",
    )
    draws: tuple[int, ...] = (1, 4, 16, 64, 256)
    dataset: str = "text(characters=60000, window=8)"
    network: str = "transformer(width=16, depth=1, heads=2, tokens=True, readout=every)"
    optimizer: str = "adam(schedule=cosine)"
    lrs: tuple[float, ...] = (1e-2, 2e-2)
    batchsize: int = 32
    epochs: int = 1
    seeds: int = 2

    size = (7.0, 4.2)
    picture = Picture("draws", "test_loss", ("rule", "lr"))

    def __post_init__(self):
        self.at_least(1, "draws", "batchsize", "epochs", "seeds")
        self.positive("lrs")
        model, loss = make("network", "fc(width=2)", (2, 2, 1), 2), make_loss("cross-entropy")
        for part in self.parts:
            make("rule", self.spec(part), model, loss)

    @property
    def parts(self) -> list[Part]:
        return [BACKPROP, *combinations(rule=self.rules, draws=sorted(self.draws))]

    def spec(self, part: Part) -> str:
        """The rule of a part, with its draws."""
        spec, samples = check("rule", part["rule"]), (("samples", part["draws"]),) if part["draws"] else ()
        return str(check("rule", replace(spec, kwargs=(*spec.kwargs, *samples))))

    def rows(self, part: Part) -> Iterator[Row]:
        task = make_task(self.load, self.dataset, self.network, "cross-entropy", self.batchsize, any_target=True)
        alone = frequencies_alone(task.data)
        hypers = [make_hyper(self.spec(part), lr, s, self.optimizer) for lr in self.lrs for s in range(self.seeds)]
        for hyper, run in zip(hypers, curves(task, hypers, self.epochs), strict=True):
            end = run[-1] if run[-1]["epoch"] == self.epochs else {}  # nan: diverged
            losses = {name: end.get(name, math.nan) for name in ("train_loss", "test_loss")}
            yield {"lr": hyper.lr, "seed": hyper.seed, **losses, "frequencies": alone}

    def ends(self, rows: Sequence[Row], **part: Any) -> list[Row]:
        """The rows of a part at its best learning rate."""
        own = where(rows, **part)
        return where(own, lr=best_rate(own, "train_loss"))

    def gap(self, rows: Sequence[Row], **part: Any) -> tuple[float, float]:
        """What is missing of the gain of backpropagation, in per cent of it: mean and standard error."""
        goal = mean_error(finite(self.ends(rows, **BACKPROP), "test_loss"))[0]
        losses = finite(self.ends(rows, **part), "test_loss")
        return mean_error([100 * (loss - goal) / (rows[0]["frequencies"] - goal) for loss in losses])

    def draw(self, figure: Any, rows: Sequence[Row]) -> None:
        left, right = figure.subplots(1, 2)
        for i, rule in enumerate(self.rules):
            of = {k: self.ends(rows, rule=rule, draws=k) for k in sorted(self.draws)}
            mean_curve(left, {k: mean_error(finite(own, "test_loss")) for k, own in of.items()}, i, rule)
            mean_curve(right, {k: self.gap(rows, rule=rule, draws=k) for k in of}, i)
        goal = mean_error(finite(self.ends(rows, **BACKPROP), "test_loss"))[0]
        lines = {"frequencies alone": (rows[0]["frequencies"], ":"), "backpropagation": (goal, "--")}
        for label, (loss, dashes) in lines.items():
            left.axhline(loss, color="0.4", linewidth=1, linestyle=dashes, label=label, zorder=0)
        right.axhline(NEAR, color="0.4", linewidth=1, linestyle="-.", zorder=0)
        tidy(left, ylabel="test loss,\nnats per character")
        tidy(right, ylabel="missing of the gain of\nbackpropagation, %", yscale="log")
        for axes in (left, right):
            tidy(axes, xlabel="draws per token", xscale="log")
            axes.set_xticks(self.draws, map(str, self.draws), minor=False)
            axes.minorticks_off()
        ticks = decades(*right.get_ylim())
        right.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        legend(figure, left, columns=1)

    def findings(self, rows: Sequence[Row]) -> list[Finding]:
        end = mean_error(finite(self.ends(rows, **BACKPROP), "test_loss"))[0]
        alone, few, many = rows[0]["frequencies"], min(self.draws), max(self.draws)
        found = [Finding(f"backpropagation gains {alone - end:.3g} nats per character, from {alone:.4g} to {end:.4g}",
                         end < alone)]  # fmt: skip
        if not end < alone:
            return found
        near = []
        for rule in self.rules:
            gaps = {k: self.gap(rows, rule=rule, draws=k) for k in sorted(self.draws)}
            near += [f"{k} draws of {rule}" for k, (gap, _) in gaps.items() if gap <= NEAR][:1]
            says = f"{rule}: of this gain {with_error(*gaps[few])} % is missing with {few} draw{'s' * (few > 1)}"
            fewer = gaps[many][0] < gaps[few][0] or few == many
            found.append(Finding(f"{says}, {with_error(*gaps[many])} % with {many}", fewer))
        reached = ", ".join(near) or f"none with up to {many} draws"
        return [*found, Finding(f"within {NEAR} % of the gain of backpropagation: {reached}", bool(near))]


def frequencies_alone(data: Dataset) -> float:
    """The mean test loss of a prediction from the frequencies of the classes in the training split. Raises UserError
    for data without a class for every step."""
    if data.task != "steps":
        raise UserError(f"char-lm takes data sets with a class for every time step; {data.name} has none")
    train, test = (y[y >= 0] for y in (data.train_y, data.test_y))
    counts = np.bincount(train, minlength=data.classes) + 1  # no class is impossible
    return float(-np.log(counts / counts.sum())[test].mean())
