"""How much one update lowers the loss, along training: by rule and by depth, on its own batch and on held-out data."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nodepert.experiments.drawing import Picture, curve, legend, mean_curve, tidy
from nodepert.experiments.experiment import Experiment, Finding, Part, Row
from nodepert.experiments.shared.steps import one_step_change, refuse_adapting, update_of
from nodepert.experiments.shared.tables import means, where
from nodepert.experiments.shared.tasks import Task, make_hyper, make_task, train
from nodepert.registry import full
from nodepert.rules.noise import key_of
from nodepert.training import devices
from nodepert.training.metrics import mean_error
from nodepert.training.program import task_data
from nodepert.training.replicas import Epoch

SCALES: dict[str, dict[str, Any]] = {
    "smoke": {"dataset": "digits", "depths": (1, 3), "width": 20, "lr": 0.02, "epochs": 3, "seeds": 2, "draws": 10},
    "small": {"dataset": "mnist(train=5000, test=1000)", "width": 100, "epochs": 10, "seeds": 2},
    "paper": {"depths": (1, 2, 3, 4), "lr": 1e-3, "epochs": 100, "draws": 100},
}
NOTHING = 1e-12  # where a logarithmic axis shows an update that raises the loss: far below its lower end
JUDGED = ("batch", "test")


@dataclass(frozen=True, kw_only=True)
class DeltaLoss(Experiment):
    """Training by plain gradient descent, W <- W - lr g, with one learning rate for all rules and depths. After each
    epoch: one update of the rule that trained the network, and one of backpropagation from the same network on the same
    batch. Each row has the mean, over draws of batch and noise, of

        L(W - lr g) - L(W) = -lr G . g + lr^2 g . H g / 2 + ...

    where L is the loss on the batch that g is from ("batch") or on held-out examples ("test"), and G, H its gradient
    and Hessian. An unbiased rule has the same first term as backpropagation; its variance enters the second, and grows
    with the number of perturbed units, hence with depth.

    Args:
        rules: Learning rules.
        depths: Numbers of hidden layers, one network each.
        width: Units in each hidden layer.
        dataset: Data set.
        loss: Loss, in training and of an update.
        lr: Learning rate of all rules and depths.
        batchsize: Examples in a batch.
        epochs: Passes over the training data.
        draws: Updates that are averaged, each from the same network, with its own batch and noise.
        seeds: Networks of each kind.
    """

    rules: tuple[str, ...] = ("sgd", "np")
    depths: tuple[int, ...] = (1, 2, 4, 8)
    width: int = 500
    dataset: str = "mnist"
    loss: str = "cross-entropy"
    lr: float = 3e-3
    batchsize: int = 100
    epochs: int = 20
    draws: int = 40
    seeds: int = 3

    across = ("rules", "depths")
    picture = Picture("epoch", "-test_change", ("depth", "rule"), log="y")

    def __post_init__(self):
        self.at_least(1, "epochs", "seeds", "batchsize", "width")
        self.at_least(2, "draws")
        self.at_least(0, "depths")
        self.positive("lr")
        refuse_adapting(self.rules)

    def rows(self, part: Part) -> Iterator[Row]:
        network = f"fc(width={self.width}, depth={part['depth']})"
        task = make_task(self.load, self.dataset, network, self.loss, self.batchsize)
        data = jax.device_put(task_data(task.data))
        measured = self.measure(task, part["rule"])
        hypers = [make_hyper(part["rule"], self.lr, seed) for seed in range(self.seeds)]

        def measured_rows(epoch: Epoch) -> list[Row]:
            found = []
            for seed, row in epoch.rows.items():
                state, number = epoch.state(seed), row["epoch"]
                keys = jax.random.split(jax.random.fold_in(key_of(seed), number), self.draws)
                changes = jax.device_get(measured(state.params, state.rule, data, keys))
                found.append({"epoch": number, "seed": seed, "test_acc": row["test_acc"], **self.summary(changes)})
            return found

        for rows in train(task, hypers, self.epochs, measured_rows):
            yield from rows

    def summary(self, changes: Any) -> Row:
        """Means of the changes of the loss over the draws, and their errors."""
        found = {}
        for whose, kind in itertools.product(changes, JUDGED):
            own = np.asarray(changes[whose][kind][:, 0], np.float64)
            found |= {f"{whose}{kind}_change": float(own.mean()),
                      f"{whose}{kind}_error": float(own.std(ddof=1) / self.draws**0.5)}  # fmt: skip
        return found

    def measure(self, task: Task, rule: str) -> Any:
        """(params, state of the rule, data, keys) -> changes of the loss by the rule and by backpropagation."""
        spec = full("rule", rule)

        @functools.partial(jax.jit, compiler_options=devices.compiler_options())
        def measured(params, state, data, keys):
            own = update_of(task, spec, state, params, data)
            exact = update_of(task, full("rule", "sgd"), (), params, data)
            rates = jnp.asarray([self.lr])
            same = jax.random.clone(keys)  # the same batches, on purpose
            return {"": one_step_change(params, own, rates, keys), "sgd_": one_step_change(params, exact, rates, same)}

        return measured

    def draw(self, figure: Any, rows: Sequence[Row]) -> None:
        *panels, last = figure.subplots(1, len(self.rules) + 1, squeeze=False)[0]
        lows, tops = [], []
        for axes, rule in zip(panels, self.rules, strict=True):
            for i, depth in enumerate(self.depths):
                found = means(where(rows, rule=rule, depth=depth), "epoch", "test_change")
                lower = [max(-mean, NOTHING) if math.isfinite(mean) else NOTHING for mean, _ in found.values()]
                tops.append(max(lower, default=NOTHING))
                lows += [value for value in lower if value > NOTHING]
                errors = [error if value > NOTHING else 0.0
                          for value, (_, error) in zip(lower, found.values(), strict=True)]  # fmt: skip
                curve(axes, list(found), lower, errors, i, label=f"depth {depth}", marker="")
            tidy(axes, yscale="log", title=f"update of {rule}", xlabel="epoch",
                 ylabel="" if axes is not panels[0] else "mean decrease of\nthe test loss")  # fmt: skip
        for axes in panels:
            axes.tick_params(labelleft=axes is panels[0])
            axes.set_ylim(max(min(lows, default=1e-5) / 2, max(tops) / 1e4), 2 * max(tops))
        for i, rule in enumerate(self.rules):
            mean_curve(last, {depth: mean_error(shares(rows, rule, depth)) for depth in self.depths}, i, label=rule)
        last.legend(frameon=False)
        tidy(last, xscale="log", xlabel="hidden layers", ylim=(min(0, last.get_ylim()[0]), 1.1),
             ylabel="share of sgd's decrease")  # fmt: skip
        last.set_xticks(self.depths, [str(depth) for depth in self.depths])
        last.minorticks_off()
        legend(figure, panels[0])

    def findings(self, rows: Sequence[Row]) -> list[Finding]:
        findings, shallow, deep = [], min(self.depths), max(self.depths)
        for rule in (rule for rule in self.rules if rule != "sgd"):
            found = {depth: mean_error(shares(rows, rule, depth))[0] for depth in self.depths}
            text = ", ".join(f"{share:.2f} at depth {depth}" for depth, share in found.items())
            findings.append(Finding(f"an update of {rule} lowers the test loss by this share of the decrease by "
                                    f"backpropagation from the same network and batch: {text}",
                                    max(found.values()) < 1 and found[deep] < found[shallow]))  # fmt: skip
        return findings


def shares(rows: Sequence[Row], rule: str, depth: int) -> list[float]:
    """The decrease of the test loss by updates of a rule over that by updates of backpropagation, each summed over the
    epochs, for every seed that did not diverge."""
    own = where(rows, rule=rule, depth=depth)
    last = max(r["epoch"] for r in own)
    finished = {r["seed"] for r in own if r["epoch"] == last and math.isfinite(r["test_change"])}
    sums = [[sum(r[name] for r in where(own, seed=seed)) for name in ("test_change", "sgd_test_change")]
            for seed in sorted(finished)]  # fmt: skip
    return [rule / sgd for rule, sgd in sums if sgd]
