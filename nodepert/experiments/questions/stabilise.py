"""Does weight normalisation prevent crashes of node perturbation?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nodepert.core import Model
from nodepert.experiments.drawing import COLOURS, Picture, decades, legend, mean_curve, style, tidy
from nodepert.experiments.experiment import Experiment, Finding, Part, Row
from nodepert.experiments.shared.linear_student import squared_error
from nodepert.experiments.shared.looping import simulated
from nodepert.experiments.shared.tables import finite, gathered, means, where
from nodepert.models.fc import fc
from nodepert.registry import full, make
from nodepert.registry.spec import Spec
from nodepert.rules.noise import key_of
from nodepert.rules.update import started, updated
from nodepert.training.metrics import mean_error

SCALES: dict[str, dict[str, Any]] = {
    "smoke": {"inputs": 6, "hidden": 20, "outputs": 3, "lrs": (2e-3, 1e-2), "steps": 5000, "seeds": 2},
    "small": {},
    "paper": {"hidden": 800, "lrs": (6e-5, 8e-5, 1e-4, 1.25e-4, 1.5e-4, 2e-4, 2.5e-4, 3e-4), "steps": 1_000_000,
              "seeds": 10},
}  # fmt: skip
CRASH = 1.1  # times the initial error
LEARNED = 0.8  # times the initial error: a run below has learned
LOOKS = 200  # measurements of the error in a run
TESTED = 500  # examples of each measurement


@dataclass(frozen=True, kw_only=True)
class Stabilise(Experiment):
    """A ReLU network with one hidden layer learns, one example x ~ N(0, I) per update, from another such network whose
    outputs have noise of standard deviation s:

        W <- W - eta g,    L = ||y - target||^2 / 2,    then, with normalise(sgd):    w_i <- s_l w_i / rms(w_i)

    with w_i the incoming weights of unit i, and s_l the root mean square of layer l's weights at the start. A run
    crashes when its error, the mean loss against the teacher without noise, exceeds 1.1 times the initial error
    (Hiratani et al. 2022). Left: when runs reach their lowest error, and when they crash. Right: the lowest error and
    the last.

    Args:
        rule: A rule without state.
        optimizers: Optimizers to compare, as in normalise(sgd).
        lrs: eta, learning rates.
        inputs: Units of the input.
        hidden: Units of the hidden layer, of teacher and of student.
        outputs: Units of the output.
        noise: s, the standard deviation of the targets' noise.
        steps: Updates.
        seeds: Runs per learning rate, each with its own teacher, examples and noise.
    """

    rule: str = "np(difference=jvp)"
    optimizers: tuple[str, ...] = ("sgd", "normalise(sgd)")
    lrs: tuple[float, ...] = (5e-4, 7e-4, 9e-4, 1.1e-3, 1.4e-3, 1.8e-3, 2.4e-3)
    inputs: int = 21
    hidden: int = 100
    outputs: int = 7
    noise: float = 0.32
    steps: int = 80_000
    seeds: int = 4

    across = ("optimizers",)
    picture = Picture("lr", "least", ("optimizer",), log="xy")
    size = (7.0, 4.0)

    def __post_init__(self):
        self.at_least(1, "inputs", "hidden", "outputs", "steps", "seeds")
        self.positive("lrs")
        self.not_negative("noise")
        make("rule", self.rule, self.network, squared_error)
        for optimizer in self.optimizers:
            make("optimizer", optimizer, self.rates[0], self.steps)

    @property
    def rates(self) -> list[float]:
        return sorted(set(self.lrs))

    @property
    def times(self) -> np.ndarray:
        """Numbers of updates after which the error is measured."""
        return np.unique(np.linspace(0, self.steps, min(LOOKS, self.steps) + 1).astype(np.int32))

    @property
    def network(self) -> Model:
        return fc((self.inputs,), self.outputs, width=self.hidden, depth=1)

    def rows(self, part: Part) -> Iterator[Row]:
        runs = [(lr, seed) for lr in self.rates for seed in range(self.seeds)]
        learn = simulated(partial(self.run, full("optimizer", part["optimizer"])))
        found = learn(self.times.tolist(), (), [jnp.asarray(column) for column in zip(*runs, strict=True)])
        errors = np.asarray(found, np.float64)
        for (lr, seed), error in zip(runs, errors, strict=True):
            crash, at = crashed(error), self.times
            before = error[:crash]
            yield {"lr": float(lr), "seed": seed, "initial": float(error[0]), "least": float(before.min()),
                   "least_at": int(at[before.argmin()]), "crash": math.nan if crash is None else float(at[crash]),
                   "last": float(error[-1]) if math.isfinite(error[-1]) else math.nan}  # fmt: skip

    def run(self, optimizer: Spec, _: Any, own: Any) -> tuple[Any, Any, Any]:
        """(first state, `step(t, state)`, error of a state) of one run; its start depends on the seed alone."""
        lr, seed = own
        teaching, testing, examples, perturbations, weights = jax.random.split(key_of(seed), 5)
        network, change = self.network, make("optimizer", optimizer, lr, self.steps)
        estimate = make("rule", self.rule, network, squared_error)
        teacher, x_test = network.init(teaching), jax.random.normal(testing, (TESTED, self.inputs))

        def step(t, state):
            params, opt = state
            x_key, target_key = jax.random.split(jax.random.fold_in(examples, t))
            x = jax.random.normal(x_key, (1, self.inputs))
            target = network.apply(teacher, x) + self.noise * jax.random.normal(target_key, (1, self.outputs))
            grads, _, _ = estimate.grads(jax.random.fold_in(perturbations, t), (), params, (x, target))
            params, _, opt = updated(change, grads, opt, params)
            return params, opt

        def error(state):
            return squared_error(network.apply(state[0], x_test), network.apply(teacher, x_test)).mean()

        params = network.init(weights)
        return (params, started(change, params)), step, error

    def draw(self, figure: Any, rows: Sequence[Row]) -> None:
        left, right = figure.subplots(1, 2, sharex=True)
        steps, first = self.steps, self.times[1]
        for i, optimizer in enumerate(self.optimizers):
            own = where(rows, optimizer=optimizer)
            for r in own:
                beside = 10 ** (0.02 * (r["seed"] - (self.seeds - 1) / 2))  # runs of one rate side by side
                fell = math.isfinite(r["crash"])
                left.plot([r["lr"] * beside], [max(r["crash"], first) if fell else steps * 2 ** (0.5 + i)],
                          linestyle="none", markersize=4, **style(i) | ({} if fell else {"mfc": "none"}))  # fmt: skip
            for name, line in (("least", "-"), ("last", ":")):
                reached = gathered([r | {name: r[name] / r["initial"]} for r in own], "lr", name)
                alive = {lr: mean_error(v) for lr, v in reached.items() if len(v) == self.seeds}
                mean_curve(right, alive, i, f"{optimizer}, {name} error", linestyle=line)
            lowest = means(own, "lr", "least_at")
            left.plot(list(lowest), [max(v, first) for v, _ in lowest.values()], linestyle="-",
                      color=COLOURS[i % len(COLOURS)])  # fmt: skip
        self.label(left, right)
        legend(figure, right, columns=2)

    def label(self, left: Any, right: Any) -> None:
        """Axes and reference lines of the two panels."""
        steps, rates = self.steps, self.rates
        left.axhline(1.15 * steps, color="grey", linewidth=0.8)
        tidy(left, xscale="log", yscale="log", xlabel="learning rate",
             ylabel="update of the crash (points),\nof the least error (lines)")  # fmt: skip
        powers = range(math.ceil(math.log10(self.times[1])), math.floor(math.log10(steps)) + 1)
        left.set_yticks([*(10**d for d in powers), steps * 2 ** (len(self.optimizers) / 2)],
                        [*(f"{10**d:,}" for d in powers), "no crash"])  # fmt: skip
        left.set_yticks([], minor=True)
        right.axhline(CRASH, color="grey", linewidth=0.8, linestyle=":")
        tidy(right, xscale="log", yscale="log", xlabel="learning rate", ylabel="error / initial error")
        right.set_yticks(decades(*right.get_ylim()))
        right.set_yticks([], minor=True)
        right.yaxis.set_major_formatter("{x:g}")
        right.set_xticks([], minor=True)
        shown = sorted({rates[0], rates[len(rates) // 2], rates[-1]})
        right.set_xticks(shown, [f"{lr:g}" for lr in shown])

    def findings(self, rows: Sequence[Row]) -> list[Finding]:
        def crashes(optimizer: str, lr: float) -> list[float]:
            return finite(where(rows, optimizer=optimizer, lr=lr), "crash")

        plain, *others = self.optimizers
        fatal = [lr for lr in self.rates if len(crashes(plain, lr)) == self.seeds]
        if not fatal:
            return [Finding(f"{plain}: there is no learning rate at which every run crashes", False)]
        low, high = fatal[0], fatal[-1]
        first, end = (mean_error(crashes(plain, lr))[0] for lr in (low, high))
        findings = [Finding(f"{plain}: every run crashes at learning rates {low:g} to {high:g}, after {first:,.0f} "
                            f"updates at the lowest and {end:,.0f} at the highest",
                            end < first or len(fatal) == 1)]  # fmt: skip
        for optimizer in others:
            count = sum(len(crashes(optimizer, lr)) for lr in fatal)
            own = where(rows, optimizer=optimizer, lr=low)
            last = mean_error([r["last"] / r["initial"] for r in own if math.isfinite(r["last"])])[0]
            findings.append(Finding(f"{optimizer}: {count} of {len(fatal) * self.seeds} runs crash at these learning "
                                    f"rates; the last error at {low:g} is {last:.2g} times the initial one",
                                    count == 0 and last < LEARNED))  # fmt: skip
        return findings


def crashed(errors: np.ndarray) -> int | None:
    """The index at which the error first exceeds 1.1 times its first value or is not finite, None without a crash."""
    beyond = ~(errors <= CRASH * errors[0])
    return int(beyond.argmax()) if beyond.any() else None
