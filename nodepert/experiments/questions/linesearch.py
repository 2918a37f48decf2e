"""How large a single step should be: the change of the loss against the learning rate, rule by rule, width by width."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nodepert.errors import UserError
from nodepert.experiments.drawing import Picture, curve, legend, tidy
from nodepert.experiments.experiment import Experiment, Finding, Load, Part, Row
from nodepert.experiments.shared.steps import one_step_change, refuse_adapting, rule_state, update_of
from nodepert.experiments.shared.tasks import Task, log_spaced, make_hyper, make_task
from nodepert.registry import full
from nodepert.registry.ranges import at_least
from nodepert.training import devices
from nodepert.training.hyper import stacked
from nodepert.training.program import program, standardised, task_data

SCALES: dict[str, dict[str, Any]] = {
    "smoke": {"dataset": "digits", "widths": (10, 40), "high": 10.0, "count": 16, "draws": 20},
    "small": {"dataset": "mnist(train=10000, test=1000)", "draws": 60},
    "paper": {"widths": (100, 200, 400, 800, 1600, 3200), "count": 43, "draws": 400},
}
EVERY = 2  # updates between two looks at the accuracy
NOTHING = 1e-12  # where a logarithmic axis shows a step that raises the loss: far below its lower end
LIMIT = 20_000  # updates, after which the accuracy is out of reach


def linesearch(
    load: Load, *, rules: tuple[str, ...] = ("sgd", "np"), widths: tuple[int, ...] = (50, 200, 800), depth: int = 2,
    dataset: str = "mnist", loss: str = "cross-entropy", batchsize: int = 100, accuracy: float = 80.0,
    optimizer: str = "sgd", lr: float = 0.01, low: float = 1e-4, high: float = 0.3, count: int = 22, draws: int = 100,
    seed: int = 0,
) -> Experiment:  # fmt: skip
    """From one network, trained by backpropagation to a given accuracy, a single step W - lr g of each rule. Over draws
    of batch and noise it changes the loss by

        E dL = -lr |G|^2 + lr^2 E[g . H g] / 2 + ...,    least at lr* = |G|^2 / E[g . H g]

    with G and H gradient and Hessian. An unbiased rule shares the first term with backpropagation; its variance enters
    the second, and moves the optimum to smaller steps: for one linear layer by k = M + 2 (Werfel, Xie and Seung 2005).
    The loss is that of the test split.

    Args:
        rules: The rules compared; the others are compared with sgd.
        widths: Units in each hidden layer, one network each.
        depth: Hidden layers.
        dataset: Data set.
        loss: The loss that training lowers, and by which a step is judged.
        batchsize: Examples in a batch, in training and in the single steps.
        accuracy: Per cent of the test split at which training stops.
        optimizer: Optimizer of that training.
        lr: Learning rate of that training.
        low: Smallest learning rate of the single steps.
        high: Largest.
        count: How many, equally far apart on a logarithmic axis.
        draws: Batches, each with noise of its own, over which a step is averaged.
        seed: Seed of the networks, batches and noise.
    """
    at_least("count", count, 3)
    at_least("draws", draws, 2)
    at_least("batchsize", batchsize, 1)
    if not 0 < low < high < math.inf:
        raise UserError(f"low must be positive and below high; got {low} and {high}")
    if not 0 < accuracy < 100:
        raise UserError(f"accuracy is in per cent, above 0 and below 100; got {accuracy}")
    for width in widths:
        at_least("widths", width, 1)
    refuse_adapting(rules)
    rates, hyper = log_spaced(low, high, count), make_hyper("sgd", lr, seed, optimizer)

    @functools.cache
    def network(width: int) -> tuple[Task, Any, Any, float, int]:
        task = make_task(load, dataset, f"fc(width={width}, depth={depth})", loss, batchsize)
        if batchsize > len(task.data.train_y):
            raise UserError(
                f"batchsize must be at most the {len(task.data.train_y):,} training examples; got {batchsize}"
            )
        data = jax.device_put(task_data(task.data))
        return task, data, *trained_to(accuracy, task, hyper, data)

    def rows(part: Part) -> Iterator[Row]:
        task, data, params, reached, updates = network(part["width"])
        spec = full("rule", part["rule"])

        def search(params, data, keys):
            update = update_of(task, spec, rule_state(task, spec, params, data, seed), params, data)
            found = one_step_change(params, update, jnp.asarray(rates), keys, lanes)
            return found["test"]

        lanes = 1 if jax.default_backend() == "cpu" else count  # on CPUs a loop is as fast
        compiled = jax.jit(search, compiler_options=devices.compiler_options())
        keys = jax.random.split(jax.random.key(seed), draws)  # the same batches for every rule
        changes = np.asarray(compiled(params, data, keys), np.float64)
        for i, rate in enumerate(rates):
            own = changes[:, i]
            yield {"lr": rate, "change": float(own.mean()), "error": float(own.std(ddof=1) / draws**0.5),
                   "accuracy": reached, "updates": updates}  # fmt: skip

    def draw(figure: Any, rows: Sequence[Row]) -> None:
        panels = figure.subplots(1, len(widths), sharex=True, sharey=True, squeeze=False)[0]
        tops = []
        for axes, width in zip(panels, widths, strict=True):
            for i, rule in enumerate(rules):
                own = [r for r in rows if r["rule"] == rule and r["width"] == width]
                best = optimum(own)
                tops.append(-best["change"])
                lower = [max(-r["change"], NOTHING) if math.isfinite(r["change"]) else NOTHING for r in own]
                errors = [r["error"] if value > NOTHING else 0.0 for r, value in zip(own, lower, strict=True)]
                curve(axes, [r["lr"] for r in own], lower, errors, i, label=rule, marker="")
                curve(axes, [best["lr"]], [-best["change"]], None, i, linestyle="none", markersize=6,
                      label=f"{rule}, best step")  # fmt: skip
            tidy(axes, xscale="log", yscale="log", title=f"width {width}", xlabel="learning rate")
        panels[0].set_xticks([10.0**d for d in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1, 2)])
        top = max((t for t in tops if t > 0), default=1.0)
        panels[0].set(ylabel="mean decrease of the\ntest loss in one step", ylim=(top / 3e4, 3 * top))
        legend(figure, panels[0])

    def findings(rows: Sequence[Row]) -> list[Finding]:
        best = {
            (w, rule): optimum([r for r in rows if r["width"] == w and r["rule"] == rule])
            for w in widths
            for rule in rules
        }
        said = []
        for rule in (rule for rule in rules if rule != "sgd" and "sgd" in rules):
            factors, words, inside = [], [], True
            for w in widths:
                one, sgd = best[w, rule], best[w, "sgd"]
                factors.append(sgd["lr"] / one["lr"])
                words.append(f"{one['lr']:.2g} against {sgd['lr']:.2g} at width {w} (a factor of {factors[-1]:.0f})")
                inside &= rates[0] < one["lr"] < rates[-1] and rates[0] < sgd["lr"] < rates[-1]
            said.append(Finding(f"the best single step of {rule} is far smaller than that of sgd: {', '.join(words)}",
                                inside and min(factors) >= 5))  # fmt: skip
            gains = [best[w, "sgd"]["change"] / best[w, rule]["change"] for w in widths]
            words = [f"{gain:.0f} at width {w}" for gain, w in zip(gains, widths, strict=True)]
            said.append(Finding(f"sgd's best step lowers the test loss more than {rule}'s best step, by a factor of "
                                f"{', '.join(words)}", min(gains) > 1))  # fmt: skip
        return said

    parts = [{"width": width, "rule": rule} for width in widths for rule in rules]
    picture = Picture("lr", "-change", ("width", "rule"), log="xy")
    return Experiment(parts, rows, draw, findings, picture, size=(7.0, 3.6))


def optimum(rows: Sequence[Row]) -> Row:
    """The row of the learning rate whose step lowers the loss most."""
    return min((r for r in rows if math.isfinite(r["change"])), key=lambda r: r["change"])


def trained_to(accuracy: float, task: Task, hyper: Any, data: Any) -> tuple[Any, float, int]:
    """Parameters of a network trained until its test accuracy is `accuracy` per cent, what it is, and after how many
    updates. Raises UserError where it is not within reach."""
    pure = program(task.model, task.loss, batchsize=task.batchsize, epochs=1)
    hyper = jax.tree.map(lambda a: a[0], stacked([hyper]))
    size = len(task.data.train_y) // task.batchsize

    @functools.partial(jax.jit, donate_argnums=0, compiler_options=devices.compiler_options())
    def some(state, order, start, data):
        def step(state, i):
            indices = jax.lax.dynamic_slice_in_dim(order, i * task.batchsize, task.batchsize)
            return pure.step(state, hyper, data, indices)[0], None

        state, _ = jax.lax.scan(step, state, start + jnp.arange(EVERY))
        outputs = task.model.apply(state.params, standardised(data, data["test"][0]))
        return state, 100 * (outputs.argmax(-1) == data["test"][1]).mean()

    state = jax.jit(pure.init)(hyper, data)
    order, best = None, 0.0
    for done in range(0, LIMIT, EVERY):
        start = done % max(size // EVERY * EVERY, EVERY)
        if start == 0:
            order = jax.jit(pure.order)(state.step, hyper, data)
        state, reached = some(state, order, start, data)
        best = max(best, float(reached))
        if best >= accuracy:
            return state.params, round(best, 4), done + EVERY
    raise UserError(f"training reached {best:.1f}% in {LIMIT:,} updates, not {accuracy:g}%; ask for less accuracy, or "
                    "give another lr")  # fmt: skip
