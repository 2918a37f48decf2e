"""How good a rule's estimate of the gradient is along training."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from nodepert.diagnostics.verdict import ALL
from nodepert.experiments.drawing import Picture
from nodepert.experiments.experiment import Finding, Part, Row
from nodepert.experiments.shared.dynamics import QUANTITIES, Dynamics, draw_panels, nodes
from nodepert.experiments.shared.replaying import epochs_of
from nodepert.experiments.shared.tables import means, where
from nodepert.experiments.shared.tasks import make_hyper
from nodepert.training.program import State

SCALES: dict[str, dict[str, Any]] = {
    "smoke": {"dataset": "digits(train=1400)", "network": "fc(width=30, depth=3)", "lr": 0.05, "batchsize": 20,
              "epochs": 4, "batches": 2, "large": 200, "seeds": 2},
    "small": {"dataset": "mnist(train=3000, test=1000)", "network": "fc(width=100, depth=4)", "lr": 0.04},
    "paper": {"seeds": 5},
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class GradDynamics(Dynamics):
    """A network is trained by plain gradient descent, at a learning rate where it does not crash. Before training and
    after every epoch the rule's gradient g is compared with that of backpropagation on the same batch and with the true
    one G, of a large batch, at every node and at all together:

        |g|, |G|, |g - G|, angle between g and G, share of components with sign(g_i) = sign(G_i),
        |W|, var W, root mean square presynaptic activity, L(W) - L(W - lr g) on the large batch

    each as the mean over a few batches. The measurements do not change the run.

    Args:
        rule: Learning rule.
        lr: Learning rate.
        dataset: Data set.
        network: Network.
        loss: Loss.
        batchsize: Examples in a batch; divides the training examples.
        epochs: Passes over the training data.
        batches: Batches, each with its own noise, that are averaged after each epoch.
        large: Training examples of the true gradient.
        seeds: Runs.
    """

    batches: int = 5

    picture = Picture("epoch", "angle", ("node",))

    def __post_init__(self):
        super().__post_init__()
        self.at_least(1, "batches")

    def rows(self, part: Part) -> Iterator[Row]:
        start, measure = self.prepared
        run = start(make_hyper(self.rule, self.lr, part["seed"]))

        def measured(state: State) -> list[list[Row]]:
            order = run.order(state)
            return [measure(run, state._replace(step=state.step + i), order, i)
                    for i in range(min(self.batches, run.batches))]  # fmt: skip

        for epoch, (accuracy, several) in enumerate(epochs_of(run, self.epochs, measured)):
            for found in zip(*several, strict=True):
                averages = {name: float(np.mean([row[name] for row in found])) for name in QUANTITIES}
                yield {"epoch": epoch, "test_acc": accuracy, "node": found[0]["node"]} | averages
            if math.isnan(accuracy):
                return

    def draw(self, figure: Any, rows: Sequence[Row]) -> None:
        draw_panels(figure, rows, "epoch", "epoch", f"{self.rule}, lr {self.lr:g}")

    def findings(self, rows: Sequence[Row]) -> list[Finding]:
        def course(quantity: str, node: str = ALL) -> list[float]:
            """Means over the seeds, epoch by epoch."""
            return [mean for mean, _ in means(where(rows, node=node), "epoch", quantity).values()]

        first, last = nodes(rows)[0], nodes(rows)[-1]
        angle, angle_sgd, norm, norm_sgd = (fmean(course(q)) for q in ("angle", "angle_sgd", "norm", "norm_sgd"))
        signs, signs_sgd = fmean(course("symmetry")), fmean(course("symmetry_sgd"))
        top, bottom = course("angle", last), course("angle", first)
        late = fmean(top[len(top) // 2 :])
        length, weights, losses = course("norm"), course("weight_norm"), course("loss")
        lowest = length.index(min(length))
        return [
            Finding(f"over training the gradient of {self.rule} is at {angle:.0f} degrees to the true one, that of sgd "
                    f"on the same batch at {angle_sgd:.0f}", angle > angle_sgd),
            Finding(f"it is {norm / norm_sgd:.0f} times as long as that of sgd", norm > 2 * norm_sgd),
            Finding(f"{signs:.0f}% of its components have the sign of the true gradient (50% by chance); of sgd's "
                    f"{signs_sgd:.0f}%", signs < signs_sgd),
            Finding(f"before training it is at {top[0]:.0f} degrees at {last} and at {bottom[0]:.0f} at {first}",
                    top[0] < bottom[0]),
            Finding(f"in the second half of training it is at {late:.0f} degrees at {last}", late > top[0]),
            Finding(f"its norm is lowest after {lowest} epochs, {length[lowest]:.2g}, and {length[-1]:.2g} at the end",
                    lowest > 0 and length[-1] > 1.2 * length[lowest]),
            Finding(f"the norm of the weights grows by {100 * (weights[-1] / weights[0] - 1):.1f}%, and the loss falls "
                    f"from {losses[0]:.2g} to {losses[-1]:.2g}", weights[-1] > weights[0] and losses[-1] < losses[0]),
        ]  # fmt: skip
