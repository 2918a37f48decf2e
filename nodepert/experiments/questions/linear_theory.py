"""Learning curves of one linear layer that are known in closed form, compared with simulation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nodepert.core import Model, Rule, plain
from nodepert.errors import UserError
from nodepert.experiments.drawing import COLOURS, Picture, decades, legend, style, tidy
from nodepert.experiments.experiment import Experiment, Finding, Part, Row
from nodepert.experiments.shared.linear_student import squared_error
from nodepert.experiments.shared.looping import simulated
from nodepert.experiments.shared.tables import where
from nodepert.registry import check, full, make
from nodepert.registry.spec import Spec
from nodepert.rules.noise import key_of

SCALES: dict[str, dict[str, Any]] = {
    "smoke": {"inputs": 6, "outputs": 2, "steps": 300, "replicas": 100, "rules": ("sgd", "np")},
    "small": {},
    "paper": {"inputs": 100, "outputs": 10, "steps": 1_000_000, "replicas": 200},
}
LOW, HIGH, RATES = 0.25, 1.25, 9  # learning rates of single steps, in units of the stability limit
SINGLE = 50  # single steps per replica of a curve


@dataclass(frozen=True, kw_only=True)
class LinearTheory(Experiment):
    """A student y = W x, x ~ N(0, I_N), learns the target W* x + noise of variance s^2 from single examples, with
    L = ||y - target||^2 / 2. With V = W - W*, the mean v = E||V||^2 obeys

        v' = v [1 - 2 eta + eta^2 k (N + 2)] + eta^2 k N M s^2 + eta^2 sigma^2 Q / 4,    E L = (v + M s^2) / 2

    with k and Q of the rule (`constants`): learning is fastest at eta = 1 / (k (N + 2)), and unstable from twice that
    rate on (Werfel, Xie and Seung 2005). Left: the curves at the fastest rate. Right: the effect of one step on v,
    without target noise.

    Args:
        rules: sgd, np and wp, with gaussian or rademacher noise.
        inputs: N.
        outputs: M.
        noise: s, the standard deviation of the targets' noise.
        sigma: Size of the perturbation.
        steps: Updates.
        replicas: Students that are averaged.
        seed: Seed of teachers, examples and noise.
    """

    rules: tuple[str, ...] = ("sgd", "np", "wp")
    inputs: int = 20
    outputs: int = 5
    noise: float = 0.3
    sigma: float = 1e-2
    steps: int = 20_000
    replicas: int = 200
    seed: int = 0

    across = ("rules",)
    picture = Picture("step", "simulated", ("rule",), {"panel": "curve"}, log="xy")

    def __post_init__(self):
        self.at_least(1, "inputs", "outputs", "steps")
        self.at_least(2, "replicas")
        self.not_negative("noise")
        for rule in self.rules:
            self.constants(rule)
            self.estimate(rule)

    def constants(self, rule: str) -> tuple[float, float]:
        return constants(str(with_sigma(rule, self.sigma)), self.inputs, self.outputs)

    def estimate(self, rule: str) -> Rule:
        return make("rule", with_sigma(rule, self.sigma), student(self.inputs, self.outputs), squared_error)

    def updates(self, rule: str) -> float:
        """k (N + 2): the inverse of the learning rate at which a rule learns fastest, which is half its limit."""
        return self.constants(rule)[0] * (self.inputs + 2)

    def rows(self, part: Part) -> Iterator[Row]:
        run = simulated(partial(self.student, self.estimate(part["rule"])))
        expected = partial(self.expected, *self.constants(part["rule"]))
        best, outputs = 1 / self.updates(part["rule"]), self.outputs
        keys = jax.random.split(key_of(self.seed), RATES + 1)
        students = jax.random.split(keys[0], self.replicas)
        at = sorted({0, *(round(self.steps ** (i / 40)) for i in range(41))})
        found = np.asarray(run(at, (best, self.noise), students), np.float64)
        theory = [found[:, 0].mean()]
        for _ in range(self.steps):
            theory.append(expected(theory[-1], best, self.noise))
        for i, t in list(enumerate(at))[1:]:
            half = (found[:, i] + outputs * self.noise**2) / 2
            yield row("curve", best, t, half, (theory[t] + outputs * self.noise**2) / 2)
        for i, share in enumerate(np.linspace(LOW, HIGH, RATES)):
            eta = float(2 * best * share)
            students = jax.random.split(keys[1 + i], SINGLE * self.replicas)
            v = np.asarray(run([0, 1], (eta, 0.0), students), np.float64)
            yield row("one step", eta, 1, v[:, 1] / outputs, expected(outputs, eta, 0) / outputs)

    def expected(self, k: float, q: float, v: float, eta: float, s: float) -> float:
        """v after one step."""
        shrunk = v * (1 - 2 * eta + eta**2 * k * (self.inputs + 2))
        return shrunk + eta**2 * (k * self.inputs * self.outputs * s**2 + self.sigma**2 * q / 4)

    def student(self, rule: Rule, shared: Any, key: Any) -> tuple[Any, Any, Any]:
        """(first weights, `step(t, weights)`, ||V||^2 of weights) of one student. `shared`: eta, s."""
        (eta, s), (teacher_key, key) = shared, jax.random.split(key)
        teacher = jax.random.normal(teacher_key, (self.inputs, self.outputs))
        teacher = math.sqrt(self.outputs) * teacher / jnp.linalg.norm(teacher)

        def step(t, params):
            example, target, own = jax.random.split(jax.random.fold_in(key, t), 3)
            x = jax.random.normal(example, (1, self.inputs))
            y = x @ teacher + s * jax.random.normal(target, (1, self.outputs))
            grads, _, _ = rule.grads(own, (), params, (x, y))
            return jax.tree.map(lambda w, g: w - eta * g, params, grads)

        start = {"out": jnp.zeros((self.inputs, self.outputs))}
        return start, step, lambda params: jnp.square(params["out"] - teacher).sum()

    def draw(self, figure: Any, rows: Sequence[Row]) -> None:
        left, right = figure.subplots(1, 2)
        for i, rule in enumerate(self.rules):
            k = self.updates(rule)
            for axes, panel, x, unit, one, scale in ((left, "curve", "step", 1, 0, 1),
                                                     (right, "one step", "lr", 2 / k, 1, k)):  # fmt: skip
                own = where(rows, rule=rule, panel=panel)
                at = [r[x] / unit for r in own]
                values, theory = ([scale * (r[name] - one) for r in own] for name in ("simulated", "theory"))
                axes.errorbar(at, values, [2 * scale * r["error"] for r in own], label=rule,
                              linestyle="none", markersize=3, capsize=0, elinewidth=1, **style(i))  # fmt: skip
                axes.plot(at, theory, color=COLOURS[i % len(COLOURS)], linewidth=1)
        left.plot([], [], color="grey", linewidth=1, label="theory")
        right.axhline(0, color="grey", linewidth=1, linestyle=":")
        right.axvline(1, color="grey", linewidth=1, linestyle=":")
        tidy(left, xlabel="update", ylabel="loss", xscale="log", yscale="log")
        tidy(right, xlabel="learning rate /\nstability limit",
             ylabel="k (N + 2) x relative change\nof ||V||² in one step")  # fmt: skip
        left.set_yticks(decades(*left.get_ylim()))
        left.yaxis.set_major_formatter("{x:g}")
        left.yaxis.set_minor_formatter("")
        legend(figure, left)

    def findings(self, rows: Sequence[Row]) -> list[Finding]:
        findings = []
        for rule in self.rules:
            own, limit = where(rows, rule=rule), 2 / self.updates(rule)
            z = [(r["simulated"] - r["theory"]) / r["error"] for r in own if r["error"]]
            rms = float(np.sqrt(np.mean(np.square(z))))
            findings.append(Finding(f"{rule}: simulation and theory are {rms:.1f} standard errors apart (rms over "
                                    f"{len(z)} points); k = {self.constants(rule)[0]:g}, stable below {limit:.2g}",
                                    rms < 2))  # fmt: skip
            below, above = ([r["simulated"] for r in where(own, panel="one step")
                             if sign * (r["lr"] / limit - 1) > 0.01] for sign in (-1, 1))  # fmt: skip
            findings.append(Finding(f"{rule}: below the limit a step lowers ||V||², by {1 - min(below):.2g} at best; "
                                    f"above it a step raises ||V||², by up to {max(above) - 1:.2g}",
                                    max(below) < 1 < min(above)))  # fmt: skip
        return findings


def row(panel: str, eta: float, step: int, values: np.ndarray, theory: float) -> Row:
    """Mean and standard error over replicas, and the theory."""
    error = float(values.std(ddof=1) / len(values) ** 0.5)
    return {"panel": panel, "lr": eta, "step": step, "simulated": float(values.mean()), "error": error,
            "theory": float(theory)}  # fmt: skip


def student(inputs: int, outputs: int) -> Model:
    """One linear layer without biases, zero at the start."""

    def apply(params, x, node=plain):
        return node("out", lambda w, h: h @ w, params["out"], x)

    return Model(lambda key: {"out": jnp.zeros((inputs, outputs))}, apply)


def with_sigma(rule: str, sigma: float) -> Spec:
    """The rule with that sigma, unless the spec has one or the rule has none."""
    spec = check("rule", rule)
    if "sigma" in dict(spec.kwargs) or "sigma" not in dict(full("rule", rule).kwargs):
        return spec
    return full("rule", replace(spec, kwargs=(*spec.kwargs, ("sigma", sigma))))


def constants(rule: str, n: int, m: int) -> tuple[float, float]:
    """(k, Q) of a rule. Raises UserError for rules whose learning curve is unknown."""
    spec = full("rule", rule)
    values = dict(spec.kwargs)
    exact = values.get("difference", "forward") != "forward"  # no noise of second order
    match spec.name, values.get("noise"):
        case "sgd", _:
            return 1, 0
        case "np", "gaussian":
            return m + 2, 0 if exact else n * m * (m + 2) * (m + 4)
        case "np", "rademacher":
            return m, 0 if exact else n * m**3
        case "wp", "gaussian" if not values.get("rank"):
            return m * n + 2, 0 if exact else n * (n + 2) * m * (m + 2) * (m * n + 4)
        case "wp", "rademacher" if not values.get("rank"):
            return m * n, 0 if exact else (m * n) ** 2 * ((m + 2) * (n + 2) - 6)
    raise UserError(f"linear-theory knows sgd, np and wp with gaussian or rademacher noise; got '{rule}'")
