"""How much one update lowers the loss, along training: by rule and by depth, on its own batch and on held-out data."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nodepert.errors import UserError
from nodepert.experiments.drawing import Picture, curve, legend, tidy
from nodepert.experiments.experiment import Experiment, Finding, Load, Part, Row
from nodepert.experiments.shared.steps import one_step_change, refuse_adapting, update_of
from nodepert.experiments.shared.tasks import gathered, make_hyper, make_task, train
from nodepert.registry import full
from nodepert.registry.ranges import at_least
from nodepert.training import devices
from nodepert.training.metrics import mean_error
from nodepert.training.program import task_data

SCALES: dict[str, dict[str, Any]] = {
    "smoke": {"dataset": "digits", "depths": (1, 3), "width": 20, "lr": 0.02, "epochs": 3, "seeds": 2, "draws": 10},
    "small": {"dataset": "mnist(train=5000, test=1000)", "width": 100, "epochs": 10, "seeds": 2},
    "paper": {"depths": (1, 2, 3, 4), "lr": 1e-3, "epochs": 100, "draws": 100},
}
NOTHING = 1e-12  # where a logarithmic axis shows an update that raises the loss: far below its lower end
JUDGED = ("batch", "test")


def delta_loss(
    load: Load, *, rules: tuple[str, ...] = ("sgd", "np"), depths: tuple[int, ...] = (1, 2, 4, 8), width: int = 500,
    dataset: str = "mnist", loss: str = "cross-entropy", lr: float = 3e-3, batchsize: int = 100, epochs: int = 20,
    draws: int = 40, seeds: int = 3,
) -> Experiment:  # fmt: skip
    """Training by plain gradient descent, W <- W - lr g, one learning rate for all rules and depths. From the network
    as it is after each epoch, one update of the rule that trained it and, on the same batch, one of backpropagation.
    Over draws of batch and noise, the mean of

        L(W - lr g) - L(W) = -lr G . g + lr^2 g . H g / 2 + ...

    where L is the loss on the batch that g is from ("batch") or on held-out examples ("test"), and G, H its gradient
    and Hessian. An unbiased rule has the first term in common with backpropagation; its variance is in the second, and
    grows with the number of perturbed units, hence with depth.

    Args:
        rules: The rules.
        depths: Hidden layers, one network each.
        width: Units in each hidden layer.
        dataset: Data set.
        loss: The loss that training lowers, and by which an update is judged.
        lr: Learning rate of all rules and depths.
        batchsize: Examples in a batch.
        epochs: Passes over the training data.
        draws: Updates that are averaged, each from the same network, with batch and noise of its own.
        seeds: Networks of each kind.
    """
    at_least("epochs", epochs, 1)
    at_least("draws", draws, 2)
    at_least("seeds", seeds, 1)
    at_least("batchsize", batchsize, 1)
    at_least("width", width, 1)
    for depth in depths:
        at_least("depths", depth, 0)
    if not 0 < lr < math.inf:
        raise UserError(f"lr must be positive and finite; got {lr}")
    refuse_adapting(rules)

    def rows(part: Part) -> Iterator[Row]:
        task = make_task(load, dataset, f"fc(width={width}, depth={part['depth']})", loss, batchsize)
        spec = full("rule", part["rule"])

        @functools.partial(jax.jit, compiler_options=devices.compiler_options())
        def measured(params, state, data, keys):
            own = update_of(task, spec, state, params, data)
            exact = update_of(task, full("rule", "sgd"), (), params, data)
            rates = jnp.asarray([lr])
            same = jax.random.clone(keys)  # the same batches, on purpose
            return {"": one_step_change(params, own, rates, keys), "sgd_": one_step_change(params, exact, rates, same)}

        data = jax.device_put(task_data(task.data))
        for epoch in train(task, [make_hyper(part["rule"], lr, seed) for seed in range(seeds)], epochs):
            for seed, row in epoch.rows.items():
                state = epoch.state(seed)
                keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), row["epoch"]), draws)
                changes = jax.device_get(measured(state.params, state.rule, data, keys))
                found = {}
                for whose, kind in itertools.product(changes, JUDGED):
                    own = np.asarray(changes[whose][kind][:, 0], np.float64)
                    found |= {f"{whose}{kind}_change": float(own.mean()),
                              f"{whose}{kind}_error": float(own.std(ddof=1) / draws**0.5)}  # fmt: skip
                yield {"epoch": row["epoch"], "seed": seed, "test_acc": row["test_acc"], **found}

    def draw(figure: Any, rows: Sequence[Row]) -> None:
        panels = figure.subplots(1, len(rules) + 1, squeeze=False)[0]
        lows, tops = [], []
        for axes, rule in zip(panels, rules, strict=False):
            for i, depth in enumerate(depths):
                own = [r for r in rows if (r["rule"], r["depth"]) == (rule, depth)]
                found = {e: mean_error(values) for e, values in gathered(own, ["epoch"], "test_change").items()}
                lower = [max(-mean, NOTHING) if math.isfinite(mean) else NOTHING for mean, _ in found.values()]
                tops.append(max(lower, default=NOTHING))
                lows += [value for value in lower if value > NOTHING]
                errors = [error if value > NOTHING else 0.0
                          for value, (_, error) in zip(lower, found.values(), strict=True)]  # fmt: skip
                curve(axes, list(found), lower, errors, i, label=f"depth {depth}", marker="")
            tidy(axes, yscale="log", title=f"update of {rule}", xlabel="epoch",
                 ylabel="" if axes is not panels[0] else "mean decrease of\nthe test loss")  # fmt: skip
        for axes in panels[:-1]:
            axes.tick_params(labelleft=axes is panels[0])
            axes.set_ylim(max(min(lows, default=1e-5) / 2, max(tops) / 1e4), 2 * max(tops))
        for i, rule in enumerate(rules):
            kept = {depth: shares(rows, rule, depth) for depth in depths}
            means, errors = zip(*(mean_error(values) for values in kept.values()), strict=True)
            curve(panels[-1], list(kept), means, errors, i, label=rule)
        panels[-1].legend(frameon=False)
        tidy(panels[-1], xscale="log", xlabel="hidden layers", ylim=(min(0, panels[-1].get_ylim()[0]), 1.1),
             ylabel="share of sgd's decrease")  # fmt: skip
        panels[-1].set_xticks(depths, [str(depth) for depth in depths])
        panels[-1].minorticks_off()
        legend(figure, panels[0])

    def findings(rows: Sequence[Row]) -> list[Finding]:
        said = []
        for rule in (rule for rule in rules if rule != "sgd"):
            kept = {depth: mean_error(shares(rows, rule, depth))[0] for depth in depths}
            words = ", ".join(f"{share:.2f} at depth {depth}" for depth, share in kept.items())
            said.append(Finding(f"from the same network and batch, an update of {rule} lowers the test loss by this "
                                f"share of what one of backpropagation does: {words}",
                                max(kept.values()) < 1 and kept[max(depths)] < kept[min(depths)]))  # fmt: skip
        return said

    parts = [{"rule": rule, "depth": depth} for rule in rules for depth in depths]
    picture = Picture("epoch", "-test_change", ("depth", "rule"), log="y")
    return Experiment(parts, rows, draw, findings, picture, size=(7.0, 3.6))


def shares(rows: Sequence[Row], rule: str, depth: int) -> list[float]:
    """Of every seed: the decrease of the test loss by updates of a rule over that by updates of backpropagation, each
    summed over the epochs. A seed that diverged has none."""
    own = [r for r in rows if (r["rule"], r["depth"]) == (rule, depth)]
    last = max(r["epoch"] for r in own)
    through = {r["seed"] for r in own if r["epoch"] == last and math.isfinite(r["test_change"])}
    sums = [[sum(r[name] for r in own if r["seed"] == seed) for name in ("test_change", "sgd_test_change")]
            for seed in sorted(through)]  # fmt: skip
    return [rule / sgd for rule, sgd in sums if sgd]
