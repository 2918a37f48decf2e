"""How large a single step should be: the change of the loss against the learning rate, rule by rule, width by width."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nodepert.errors import UserError
from nodepert.experiments.drawing import Picture, curve, legend, tidy
from nodepert.experiments.experiment import Experiment, Finding, Part, Row
from nodepert.experiments.shared.looping import followed, looped
from nodepert.experiments.shared.steps import one_step_change, refuse_adapting, rule_state, update_of
from nodepert.experiments.shared.tables import where
from nodepert.experiments.shared.tasks import Task, log_spaced, make_hyper, make_task
from nodepert.registry import full
from nodepert.rules.noise import GENERATOR, key_of
from nodepert.training import devices
from nodepert.training.hyper import stacked
from nodepert.training.program import Program, standardised, task_data

SCALES: dict[str, dict[str, Any]] = {
    "smoke": {"dataset": "digits", "widths": (10, 40), "high": 10.0, "count": 16, "draws": 20},
    "small": {"dataset": "mnist(train=10000, test=1000)", "draws": 60},
    "paper": {"widths": (100, 200, 400, 800, 1600, 3200), "count": 43, "draws": 400},
}
EVERY = 2  # updates between measurements of the accuracy
NOTHING = 1e-12  # where a logarithmic axis shows a step that raises the loss: far below its lower end
LIMIT = 20_000  # most updates


@dataclass(frozen=True, kw_only=True)
class Linesearch(Experiment):
    """From one network, trained by backpropagation to a given accuracy, a single step W - lr g of each rule. Over draws
    of batch and noise the expected change of the loss is

        E dL = -lr |G|^2 + lr^2 E[g . H g] / 2 + ...,    lowest at lr* = |G|^2 / E[g . H g]

    with G and H gradient and Hessian. An unbiased rule has the same first term as backpropagation; its variance enters
    the second, and moves the optimum to smaller steps: for one linear layer by k = M + 2 (Werfel, Xie and Seung 2005).
    The loss is that of the test split.

    Args:
        rules: Rules to compare; the others are compared with sgd.
        widths: Units in each hidden layer, one network each.
        depth: Hidden layers.
        dataset: Data set.
        loss: Loss, in training and of a step.
        batchsize: Examples in a batch, in training and in the single steps.
        accuracy: Accuracy on the test split at which training stops, in per cent.
        optimizer: Optimizer of that training.
        lr: Learning rate of that training.
        low: Lowest learning rate of the single steps.
        high: Highest learning rate of the single steps.
        count: Number of learning rates, equally spaced on a logarithmic axis.
        draws: Batches, each with its own noise, over which a step is averaged.
        seed: Seed of the networks, batches and noise.
    """

    rules: tuple[str, ...] = ("sgd", "np")
    widths: tuple[int, ...] = (50, 200, 800)
    depth: int = 2
    dataset: str = "mnist"
    loss: str = "cross-entropy"
    batchsize: int = 100
    accuracy: float = 80.0
    optimizer: str = "sgd"
    lr: float = 0.01
    low: float = 1e-4
    high: float = 0.3
    count: int = 22
    draws: int = 100
    seed: int = 0

    across = ("widths", "rules")
    picture = Picture("lr", "-change", ("width", "rule"), log="xy")

    def __post_init__(self):
        self.at_least(3, "count")
        self.at_least(2, "draws")
        self.at_least(1, "batchsize", "widths")
        self.rising("low", "high")
        self.require(lambda value: 0 < value < 100, "in per cent, above 0 and below 100", "accuracy")
        refuse_adapting(self.rules)

    @property
    def rates(self) -> list[float]:
        return log_spaced(self.low, self.high, self.count)

    @functools.cached_property
    def network(self) -> Callable[[int], tuple[Task, Any, Any, float, int]]:
        """The network of a width, trained once for all rules."""

        @functools.cache
        def network(width: int) -> tuple[Task, Any, Any, float, int]:
            task = make_task(
                self.load, self.dataset, f"fc(width={width}, depth={self.depth})", self.loss, self.batchsize
            )
            if self.batchsize > (there := len(task.data.train_y)):
                raise UserError(f"batchsize must be at most the {there:,} training examples; got {self.batchsize}")
            data = jax.device_put(task_data(task.data))
            hyper = make_hyper("sgd", self.lr, self.seed, self.optimizer)
            return task, data, *trained_to(self.accuracy, task, hyper, data)

        return network

    def rows(self, part: Part) -> Iterator[Row]:
        task, data, params, reached, updates = self.network(part["width"])
        spec = full("rule", part["rule"])
        lanes = 1 if jax.default_backend() == "cpu" else self.count  # on CPUs a loop is as fast

        @functools.partial(jax.jit, compiler_options=devices.compiler_options())
        def search(params, data, keys, changes, first, last):
            update = update_of(task, spec, rule_state(task, spec, params, data, self.seed), params, data)

            def draw(i, changes):
                key = jax.random.wrap_key_data(keys[i], impl=GENERATOR)
                return changes.at[i].set(one_step_change(params, update, rates, key[None], lanes)["test"][0])

            return jax.lax.fori_loop(first, last, draw, changes)

        rates = jnp.asarray(self.rates)
        keys = jax.random.key_data(jax.random.split(key_of(self.seed), self.draws))  # the same batches for every rule
        found = looped(functools.partial(search, params, data, keys), jnp.zeros((self.draws, self.count)), self.draws,
                       "draw")  # fmt: skip
        changes = np.asarray(found, np.float64)
        for i, rate in enumerate(self.rates):
            own = changes[:, i]
            yield {"lr": rate, "change": float(own.mean()), "error": float(own.std(ddof=1) / self.draws**0.5),
                   "accuracy": reached, "updates": updates}  # fmt: skip

    def draw(self, figure: Any, rows: Sequence[Row]) -> None:
        panels = figure.subplots(1, len(self.widths), sharex=True, sharey=True, squeeze=False)[0]
        tops = []
        for axes, width in zip(panels, self.widths, strict=True):
            for i, rule in enumerate(self.rules):
                own = where(rows, rule=rule, width=width)
                best = optimum(own)
                tops.append(-best["change"])
                lower = [max(-r["change"], NOTHING) if math.isfinite(r["change"]) else NOTHING for r in own]
                errors = [r["error"] if value > NOTHING else 0.0 for r, value in zip(own, lower, strict=True)]
                curve(axes, [r["lr"] for r in own], lower, errors, i, label=rule, marker="")
                curve(axes, [best["lr"]], [-best["change"]], None, i, linestyle="none", markersize=6,
                      label=f"{rule}, best step")  # fmt: skip
            tidy(axes, xscale="log", yscale="log", title=f"width {width}", xlabel="learning rate")
        exponents = range(math.ceil(math.log10(self.low)), math.floor(math.log10(self.high)) + 1, 2)
        panels[0].set_xticks([10.0**d for d in exponents])
        top = max((t for t in tops if t > 0), default=1.0)
        panels[0].set(ylabel="mean decrease of the\ntest loss in one step", ylim=(top / 3e4, 3 * top))
        legend(figure, panels[0])

    def findings(self, rows: Sequence[Row]) -> list[Finding]:
        findings, rates = [], self.rates
        for rule in (rule for rule in self.rules if rule != "sgd" and "sgd" in self.rules):
            best = {w: [optimum(where(rows, width=w, rule=r)) for r in (rule, "sgd")] for w in self.widths}
            factors = {w: sgd["lr"] / own["lr"] for w, (own, sgd) in best.items()}
            inside = all(rates[0] < row["lr"] < rates[-1] for pair in best.values() for row in pair)
            text = ", ".join(f"{own['lr']:.2g} against {sgd['lr']:.2g} at width {w} (a factor of {factors[w]:.0f})"
                             for w, (own, sgd) in best.items())  # fmt: skip
            findings.append(Finding(f"the best single step of {rule} is far smaller than that of sgd: {text}",
                                    inside and min(factors.values()) >= 5))  # fmt: skip
            gains = {w: sgd["change"] / own["change"] for w, (own, sgd) in best.items()}
            text = ", ".join(f"{gain:.0f} at width {w}" for w, gain in gains.items())
            findings.append(Finding(f"sgd's best step lowers the test loss more than {rule}'s best step, by a factor "
                                    f"of {text}", min(gains.values()) > 1))  # fmt: skip
        return findings


def optimum(rows: Sequence[Row]) -> Row:
    """The row of the learning rate whose step lowers the loss most."""
    return min((r for r in rows if math.isfinite(r["change"])), key=lambda r: r["change"])


def trained_to(accuracy: float, task: Task, hyper: Any, data: Any) -> tuple[Any, float, int]:
    """Parameters of a network trained until its test accuracy is at least `accuracy` per cent, that accuracy, and the
    number of updates. Raises UserError where it is not reached."""
    pure = Program(task.model, task.loss, batchsize=task.batchsize, epochs=1)
    hyper = jax.tree.map(lambda a: a[0], stacked([hyper]))
    size = len(task.data.train_y) // task.batchsize

    @functools.partial(jax.jit, compiler_options=devices.compiler_options())
    def some(state, order, start, data):
        def step(state, i):
            indices = jax.lax.dynamic_slice_in_dim(order, i * task.batchsize, task.batchsize)
            return pure.step(state, hyper, data, indices)[0], None

        state, _ = jax.lax.scan(step, state, start + jnp.arange(EVERY))
        outputs = task.model.apply(state.params, standardised(data, data["test"][0]))
        return state, 100 * (outputs.argmax(-1) == data["test"][1]).mean()

    order_of, orders = jax.jit(pure.order), {}

    def updates(state, number):
        turn, start = divmod(number - EVERY, max(size // EVERY * EVERY, EVERY))
        if turn not in orders:
            orders.clear()
            orders[turn] = order_of(state.step - start, hyper, data)
        state, reached = some(state, orders[turn], start, data)
        return state, float(reached)

    best, first = 0.0, jax.jit(pure.init)(hyper, data)
    for state, reached in followed(updates, first, range(EVERY, LIMIT + 1, EVERY), "update", known=False):
        best = max(best, reached)
        if best >= accuracy:
            return state.params, round(best, 4), int(state.step)
    raise UserError(f"training reached {best:.1f}% in {LIMIT:,} updates, not {accuracy:g}%; ask for less accuracy, or "
                    "give another lr")  # fmt: skip
