"""What happens, update by update, before a crash."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from nodepert.diagnostics.verdict import ALL
from nodepert.experiments.drawing import Picture
from nodepert.experiments.experiment import Finding, Part, Row
from nodepert.experiments.shared.dynamics import Dynamics, draw_panels, nodes
from nodepert.experiments.shared.replaying import Moment, course, replay
from nodepert.experiments.shared.tables import where
from nodepert.experiments.shared.tasks import make_hyper

SCALES: dict[str, dict[str, Any]] = {
    "smoke": {"dataset": "digits(train=1400)", "network": "fc(width=30, depth=3)", "lr": 0.32, "batchsize": 20,
              "epochs": 6, "every": 4, "large": 200, "seeds": 2},
    "small": {"dataset": "mnist(train=3000, test=1000)", "network": "fc(width=100, depth=4)", "lr": 0.12, "seeds": 3},
    "paper": {"seeds": 5},
}  # fmt: skip
SMOOTH = 30  # the running mean of the figure goes over a 30th of the updates


@dataclass(frozen=True, kw_only=True)
class CrashDynamics(Dynamics):
    """A network is trained by plain gradient descent until it crashes (see crash-timing), with a checkpoint every few
    epochs. From the last checkpoint before the crash the run is then replayed, update by update and bit for bit. Before
    each update W - lr g(t) the rule's gradient g is compared with that of backpropagation on the same batch, and with
    the true one G, of a large batch, at every node and at all together:

        |g|, |G|, |g - G|, angle between g and G, share of components with sign(g_i) = sign(G_i),
        |W|, var W, root mean square presynaptic activity, L(W) - L(W - lr g) on the large batch

    A run that does not crash is replayed from its last checkpoint before the end.

    Args:
        rule: Learning rule.
        lr: Learning rate.
        dataset: Data set.
        network: Network.
        loss: Loss.
        batchsize: Examples in a batch; divides the training examples.
        epochs: Most passes over the training data, where a run does not crash before.
        every: Epochs between checkpoints.
        large: Training examples of the true gradient.
        seeds: Runs.
    """

    lr: float = 0.05
    every: int = 5

    picture = Picture("update", "norm", ("node",), {"seed": 0}, log="y")

    def __post_init__(self):
        super().__post_init__()
        self.at_least(1, "every")

    def rows(self, part: Part) -> Iterator[Row]:
        start, measure = self.prepared
        run = start(make_hyper(self.rule, self.lr, part["seed"]))
        taken = course(run, self.epochs, self.every)
        crash = math.nan if taken.crash is None else taken.crash

        def measured(moment: Moment) -> list[Row]:
            rows = measure(run, moment.state, moment.order, moment.batch)
            return [{"epoch": moment.epoch} | row for row in rows]

        for update, rows in enumerate(replay(run, taken, measured)):
            for row in rows:
                yield {"crash": crash, "best": max(taken.accuracies), "epoch": row["epoch"], "update": update} | row

    def draw(self, figure: Any, rows: Sequence[Row]) -> None:
        shown = next((r["seed"] for r in rows if math.isfinite(r["crash"])), rows[0]["seed"])
        own = where(rows, seed=shown)
        updates = own[-1]["update"] + 1
        end = f"crash at epoch {own[0]['crash']:g}" if math.isfinite(own[0]["crash"]) else "no crash"
        title = f"{self.rule}, lr {self.lr:g}, seed {shown}: {end}"
        draw_panels(figure, own, "update", "update from checkpoint", title, smooth=max(1, updates // SMOOTH))

    def findings(self, rows: Sequence[Row]) -> list[Finding]:
        runs = [where(rows, seed=seed, node=ALL) for seed in range(self.seeds)]
        crashed = [run for run in runs if math.isfinite(run[0]["crash"])]
        when = ", ".join(f"{run[0]['crash']:g}" for run in crashed)
        says = f"{len(crashed)} of {self.seeds} runs crash{f', at epochs {when}' if when else ''}"
        return [Finding(says, bool(crashed))] + (before_crashes(self.rule, rows, crashed) if crashed else [])


def before_crashes(rule: str, rows: Sequence[Row], crashed: Sequence[Sequence[Row]]) -> list[Finding]:
    """What the replays of these runs (their rows of all nodes together) have in common."""

    def each(figure, form="{:.2g}"):
        found = [figure(run) for run in crashed]
        return found, ", ".join(form.format(value) for value in found)

    def mean(name):
        return lambda run: fmean(r[name] for r in run)

    def growth(name):
        return lambda run: thirds(run, name)[1] / thirds(run, name)[0]

    ratios, longer = each(lambda run: fmean(r["norm"] / r["norm_sgd"] for r in run))
    (angles, apart), (own, close) = each(mean("angle"), "{:.0f}"), each(mean("angle_sgd"), "{:.0f}")
    (signs, few), (most, many) = each(mean("symmetry"), "{:.0f}"), each(mean("symmetry_sgd"), "{:.0f}")
    weights, heavier = each(lambda run: 100 * (run[-1]["weight_norm"] / run[0]["weight_norm"] - 1))
    losses, higher = each(growth("loss"))
    last = nodes(rows)[-1]
    outputs = [growth("activity")(where(rows, seed=run[0]["seed"], node=last)) for run in crashed]
    _, share = each(lambda run: 100 * fmean(r["decrease"] > 0 for r in run), "{:.0f}")
    return [
        Finding(f"in the replay the gradient of {rule} is longer than that of sgd on the same batch, by factors of "
                f"{longer}", min(ratios) > 2),
        Finding(f"it is at {apart} degrees to the true gradient; sgd's at {close}",
                min(angles) > 60 and all(a > b for a, b in zip(angles, own, strict=True))),
        Finding(f"{few}% of its components have the sign of the true gradient (50% by chance); of sgd's {many}%",
                max(signs) < 60 and all(a < b for a, b in zip(signs, most, strict=True))),
        Finding(f"the norm of the weights grows, by {heavier}%", min(weights) > 0),
        Finding(f"the activity that reaches {last} grows, by factors of "
                f"{', '.join(f'{x:.2f}' for x in outputs)} (last third over first)", min(outputs) > 1),
        Finding(f"the loss grows, by factors of {higher} (last third over first), though {share}% of the updates "
                "lower it", min(losses) > 1),
    ]  # fmt: skip


def thirds(run: Sequence[Row], name: str) -> tuple[float, float]:
    """Means over the first and the last third of the updates."""
    size = max(1, len(run) // 3)
    return fmean(r[name] for r in run[:size]), fmean(r[name] for r in run[-size:])
