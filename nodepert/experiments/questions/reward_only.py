"""Learning from reward alone: the target is never shown, only whether an answer was right."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from nodepert.experiments.drawing import Picture, curve, legend, tidy
from nodepert.experiments.experiment import Experiment, Finding, Part, Row, combinations
from nodepert.experiments.shared.tables import where
from nodepert.experiments.shared.tasks import curves, make_hyper, make_task
from nodepert.registry import check
from nodepert.training.metrics import mean_error, with_error

BACKPROP = "sgd"  # of the expected reward
IMAGES, TRIALS = "images", "trials"
SCALES: dict[str, dict[str, Any]] = {
    "smoke": {"rules": ("reinforce",), "dataset": "digits(train=200,test=50)", "network": "fc(width=10, depth=1)",
              "trials": "dnms(step=200, trials=80)", "recurrent": "rnn(width=10, gain=1.5)", "epochs": 2,
              "trial_epochs": 2, "seeds": 2},
    "small": {},
    "paper": {"dataset": "mnist", "network": "fc(width=100, depth=1)", "epochs": 50,
              "trials": "dnms(step=10, trials=200)", "recurrent": "rnn(width=200, leak=0.333, gain=1.5)",
              "trial_epochs": 40, "seeds": 20},
}  # fmt: skip


class Setting(NamedTuple):
    """A task, and how it is learned."""

    dataset: str
    network: str
    sigma: float
    lr: float
    batchsize: int
    epochs: int


@dataclass(frozen=True, kw_only=True)
class RewardOnly(Experiment):
    """A contextual bandit on images, and trials with a reward at their end. The network answers by its largest output;
    the reward is 1 for a right answer, else 0, and nothing tells which answer would have been right. Exploration is
    the noise on the units.

        s_l = -(R - expected R) / sigma xi_l

    np compares the reward with that of the same example without noise, a second answer; np(baseline=running) with
    earlier rewards of the same example; reinforce with the running mean of all rewards. Backpropagation has no
    derivative of R: it is given that of the reward expected of a policy that draws its answers by softmax, which takes
    the target.

    Args:
        rules: Learning rules with a sigma, without it; backpropagation is added.
        dataset: Data set of images.
        network: Network that classifies them.
        sigma: Noise on its units.
        lr: Its learning rate.
        batchsize: Images per update.
        epochs: Passes over the images.
        trials: Data set of trials.
        recurrent: Network that answers at the end of a trial.
        trial_sigma: Noise on the units of that network.
        trial_lr: Its learning rate.
        trial_batchsize: Trials per update.
        trial_epochs: Passes over the trials.
        optimizer: Optimizer.
        seeds: Replicas of each rule.
    """

    rules: tuple[str, ...] = ("np", "np(baseline=running)", "reinforce")
    dataset: str = "digits"
    network: str = "fc(width=50, depth=1)"
    sigma: float = 1.0
    lr: float = 3e-3
    batchsize: int = 50
    epochs: int = 100
    trials: str = "dnms"
    recurrent: str = "rnn(width=100, leak=0.667, gain=1.5)"
    trial_sigma: float = 0.3
    trial_lr: float = 1e-3
    trial_batchsize: int = 20
    trial_epochs: int = 40
    optimizer: str = "adam"
    seeds: int = 10

    size = (7.0, 3.2)
    picture = Picture("answers", "correct", ("task", "rule"))

    def __post_init__(self):
        self.at_least(1, "batchsize", "trial_batchsize", "epochs", "trial_epochs", "seeds")
        self.positive("sigma", "lr", "trial_sigma", "trial_lr")
        for part in self.parts:
            self.spec(part)

    @property
    def parts(self) -> list[Part]:
        return combinations(task=(IMAGES, TRIALS), rule=(*self.rules, BACKPROP))

    def setting(self, part: Part) -> Setting:
        if part["task"] == IMAGES:
            return Setting(self.dataset, self.network, self.sigma, self.lr, self.batchsize, self.epochs)
        return Setting(self.trials, self.recurrent, self.trial_sigma, self.trial_lr, self.trial_batchsize,
                       self.trial_epochs)  # fmt: skip

    def spec(self, part: Part) -> str:
        """The rule of a part, with its sigma."""
        spec = check("rule", part["rule"])
        sigma = (("sigma", self.setting(part).sigma),) if part["rule"] != BACKPROP else ()
        return str(check("rule", replace(spec, kwargs=(*spec.kwargs, *sigma))))

    def rows(self, part: Part) -> Iterator[Row]:
        how = self.setting(part)
        loss = "reward" if part["rule"] == BACKPROP else "zero-one"
        task = make_task(self.load, how.dataset, how.network, loss, how.batchsize)
        hypers = [make_hyper(self.spec(part), how.lr, seed, self.optimizer) for seed in range(self.seeds)]
        runs = curves(task, hypers, how.epochs)
        for epoch in range(how.epochs + 1):
            correct = [run[epoch]["test_acc"] if epoch < len(run) else math.nan for run in runs]
            mean, error = mean_error(
                [0.0 if math.isnan(c) else c for c in correct]
            )  # a diverged network answers nothing
            yield {"answers": epoch * len(task.data.train_y), "correct": mean, "error": error,
                   "chance": 100 / task.data.classes}  # fmt: skip

    def draw(self, figure: Any, rows: Sequence[Row]) -> None:
        panels = figure.subplots(1, 2, sharey=True)
        for axes, task, title in zip(panels, (IMAGES, TRIALS), ("image bandit", "reward after a trial"), strict=True):
            for i, rule in enumerate((*self.rules, BACKPROP)):
                own = where(rows, task=task, rule=rule)
                answers, correct, error = ([r[name] for r in own] for name in ("answers", "correct", "error"))
                label = rule if rule != BACKPROP else "backpropagation of expected reward"
                curve(axes, answers, correct, error, i, label, marker="")
            axes.axhline(own[0]["chance"], color="0.7", linewidth=1, zorder=0)
            tidy(axes, title=title, xlabel="answers", ylim=(0, 105))
            axes.locator_params(axis="x", nbins=4)
        panels[0].set_ylabel("correct, %")
        legend(figure, panels[0], columns=2)

    def findings(self, rows: Sequence[Row]) -> list[Finding]:
        found = []
        for task in (IMAGES, TRIALS):
            goal = where(rows, task=task, rule=BACKPROP)[-1]
            for rule in self.rules:
                end = where(rows, task=task, rule=rule)[-1]
                correct, best = (with_error(r["correct"], r["error"]) for r in (end, goal))
                says = (f"{task}, {rule}: {correct} % correct after {end['answers']:,} answers; backpropagation of the "
                        f"expected reward {best} %, chance {end['chance']:.0f} %")  # fmt: skip
                found.append(Finding(says, 2 * end["correct"] > end["chance"] + goal["correct"]))
        return found
