"""Learning curves of one linear layer that are known in closed form, held against simulation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nodepert.core import Model, plain
from nodepert.errors import UserError
from nodepert.experiments.drawing import COLOURS, Picture, decades, legend, style, tidy
from nodepert.experiments.experiment import Experiment, Finding, Load, Part, Row
from nodepert.registry import check, full, make
from nodepert.registry.ranges import at_least
from nodepert.registry.spec import Spec

SCALES: dict[str, dict[str, Any]] = {
    "smoke": {"inputs": 6, "outputs": 2, "steps": 300, "replicas": 100, "rules": ("sgd", "np")},
    "small": {},
    "paper": {"inputs": 100, "outputs": 10, "steps": 1_000_000, "replicas": 200},
}
LOW, HIGH, RATES = 0.25, 1.25, 9  # learning rates of single steps, in units of the stability limit
SINGLE = 50  # single steps per replica of a curve


def linear_theory(
    load: Load, *, rules: tuple[str, ...] = ("sgd", "np", "wp"), inputs: int = 20, outputs: int = 5, noise: float = 0.3,
    sigma: float = 1e-2, steps: int = 20_000, replicas: int = 200, seed: int = 0,
) -> Experiment:  # fmt: skip
    """A student y = W x, x ~ N(0, I_N), learns the target W* x + noise of variance s^2 from single examples, with
    L = ||y - target||^2 / 2. Of V = W - W* the mean v = E||V||^2 obeys

        v' = v [1 - 2 eta + eta^2 k (N + 2)] + eta^2 k N M s^2 + eta^2 sigma^2 Q / 4,    E L = (v + M s^2) / 2

    with k and Q of the rule (`constants`): it learns fastest at eta = 1 / (k (N + 2)), and not at all from twice that
    on (Werfel, Xie and Seung 2005). Left: the curves at the fastest rate. Right: what one step without target noise
    makes of v.

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
    at_least("inputs", inputs, 1)
    at_least("outputs", outputs, 1)
    at_least("steps", steps, 1)
    at_least("replicas", replicas, 2)
    model, loss = student(inputs, outputs), lambda y, target: jnp.square(y - target).sum(-1) / 2
    specs = {rule: with_sigma(rule, sigma) for rule in rules}
    known = {rule: constants(str(spec), inputs, outputs) for rule, spec in specs.items()}
    if not 0 <= noise < math.inf:
        raise UserError(f"noise must be finite and not negative; got {noise}")
    for spec in specs.values():
        make("rule", spec, model, loss)

    def rows(part: Part) -> Iterator[Row]:
        rule, (k, q) = make("rule", specs[part["rule"]], model, loss), known[part["rule"]]
        best = 1 / (k * (inputs + 2))

        def expected(v: float, eta: float, s: float) -> float:
            shrunk = v * (1 - 2 * eta + eta**2 * k * (inputs + 2))
            return shrunk + eta**2 * (k * inputs * outputs * s**2 + sigma**2 * q / 4)

        def run(eta: Any, s: Any, count: int, key: Any):
            """||V||^2 after each step, (count + 1,)."""
            teacher_key, key = jax.random.split(key)
            teacher = jax.random.normal(teacher_key, (inputs, outputs))
            teacher = math.sqrt(outputs) * teacher / jnp.linalg.norm(teacher)

            def step(params, t):
                example, target, own = jax.random.split(jax.random.fold_in(key, t), 3)
                x = jax.random.normal(example, (1, inputs))
                y = x @ teacher + s * jax.random.normal(target, (1, outputs))
                grads, _, _ = rule.grads(own, (), params, (x, y))
                params = jax.tree.map(lambda w, g: w - eta * g, params, grads)
                return params, jnp.square(params["out"] - teacher).sum()

            start = {"out": jnp.zeros((inputs, outputs))}
            _, found = jax.lax.scan(step, start, jnp.arange(count))
            return jnp.append(jnp.square(teacher).sum(), found)

        several = jax.jit(jax.vmap(run, (None, None, None, 0)), static_argnums=2)
        keys = jax.random.split(jax.random.key(seed), RATES + 1)
        found = np.asarray(several(best, noise, steps, jax.random.split(keys[0], replicas)), np.float64)
        theory = [found[:, 0].mean()]
        for _ in range(steps):
            theory.append(expected(theory[-1], best, noise))
        for t in sorted({round(steps ** (i / 40)) for i in range(41)}):
            half = (found[:, t] + outputs * noise**2) / 2
            yield row("curve", best, t, half, (theory[t] + outputs * noise**2) / 2)
        for i, part_of_limit in enumerate(np.linspace(LOW, HIGH, RATES)):
            eta = float(2 * best * part_of_limit)
            v = np.asarray(several(eta, 0.0, 1, jax.random.split(keys[1 + i], SINGLE * replicas)), np.float64)
            yield row("one step", eta, 1, v[:, 1] / outputs, expected(outputs, eta, 0) / outputs)

    def draw(figure: Any, rows: Sequence[Row]) -> None:
        left, right = figure.subplots(1, 2)
        for i, rule in enumerate(rules):
            for axes, panel, x in ((left, "curve", "step"), (right, "one step", "lr")):
                own = [r for r in rows if r["rule"] == rule and r["panel"] == panel]
                unit = 1 if panel == "curve" else 2 / (known[rule][0] * (inputs + 2))
                at = [r[x] / unit for r in own]
                one, scale = (0, 1) if panel == "curve" else (1, known[rule][0] * (inputs + 2))
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

    def findings(rows: Sequence[Row]) -> list[Finding]:
        said = []
        for rule in rules:
            z = [(r["simulated"] - r["theory"]) / r["error"] for r in rows if r["rule"] == rule and r["error"]]
            rms, k = float(np.sqrt(np.mean(np.square(z)))), known[rule][0]
            said.append(Finding(f"{rule}: simulation and theory are {rms:.1f} standard errors apart (rms over {len(z)} "
                                f"points); k = {k:g}, stable below {2 / (k * (inputs + 2)):.2g}", rms < 2))  # fmt: skip
            limit = 2 / (k * (inputs + 2))
            steps_of = [r for r in rows if r["rule"] == rule and r["panel"] == "one step"]
            below, above = ([r["simulated"] for r in steps_of if sign * (r["lr"] / limit - 1) > 0.01]
                            for sign in (-1, 1))  # fmt: skip
            said.append(Finding(f"{rule}: below the limit a step lowers ||V||², by {1 - min(below):.2g} at best; above "
                                f"it a step raises ||V||², by up to {max(above) - 1:.2g}",
                                max(below) < 1 < min(above)))  # fmt: skip
        return said

    picture = Picture("step", "simulated", ("rule",), {"panel": "curve"}, log="xy")
    return Experiment([{"rule": rule} for rule in rules], rows, draw, findings, picture)


def row(panel: str, eta: float, step: int, values: np.ndarray, theory: float) -> Row:
    """Mean and standard error over replicas, beside the theory."""
    error = float(values.std(ddof=1) / len(values) ** 0.5)
    return {"panel": panel, "lr": eta, "step": step, "simulated": float(values.mean()), "error": error,
            "theory": float(theory)}  # fmt: skip


def student(inputs: int, outputs: int) -> Model:
    """One linear layer without biases, that starts at zero."""

    def apply(params, x, node=plain):
        return node("out", lambda w, h: h @ w, params["out"], x)

    return Model(lambda key: {"out": jnp.zeros((inputs, outputs))}, apply)


def with_sigma(rule: str, sigma: float) -> Spec:
    """The rule with that sigma, unless it says one itself or needs none."""
    spec = check("rule", rule)
    if "sigma" in dict(spec.kwargs) or "sigma" not in dict(full("rule", rule).kwargs):
        return spec
    return full("rule", replace(spec, kwargs=(*spec.kwargs, ("sigma", sigma))))


def constants(rule: str, n: int, m: int) -> tuple[float, float]:
    """(k, Q) of a rule. Raises UserError for one whose learning curve is not known here."""
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
