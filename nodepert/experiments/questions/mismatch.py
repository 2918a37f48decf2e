"""A target that no student can reach: node perturbation learns, then its weights diffuse and the error rises again."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from nodepert.errors import UserError
from nodepert.experiments.drawing import Picture, curve, legend, tidy
from nodepert.experiments.experiment import Experiment, Finding, Load, Part, Row
from nodepert.experiments.shared.linear_student import in_float64, learn, squared_error, student, times
from nodepert.registry import check, make
from nodepert.registry.ranges import at_least
from nodepert.training.metrics import mean_error

SCALES: dict[str, dict[str, Any]] = {
    "smoke": {"inputs": 8, "hidden": 20, "outputs": 3, "lr": 3e-3, "steps": 15_000, "replicas": 10},
    "small": {},
    "paper": {"rules": ("sgd", "np(sigma=1e-6)"), "inputs": 100, "hidden": 1000, "outputs": 10, "lr": 1e-5,
              "steps": 1_000_000, "replicas": 10, "float64": True},
}  # fmt: skip
RISE = 1.5  # final over least error: more is a rise, less is not


def mismatch(
    load: Load, *, rules: tuple[str, ...] = ("sgd", "np(difference=jvp)"), noises: tuple[float, ...] = (0.0, 0.32),
    inputs: int = 20, hidden: int = 100, outputs: int = 5, lr: float = 5e-4, steps: int = 65_000, replicas: int = 20,
    seed: int = 0, float64: bool = False,
) -> Experiment:  # fmt: skip
    """Does learning stay where the error was least? A linear student with one hidden layer, y = W2 W1 x, learns online
    (one example x ~ N(0, I) per update) from the teacher W* x + noise of standard deviation s, by

        W <- W - eta g,    L = ||y - target||^2 / 2,    shown: the error E = ||W2 W1 - W*||_F^2 / 2

    and the weight norm sqrt(||W1||^2 + ||W2||^2). The weights of teacher and student start with variance
    2 / (fan in + fan out). With noise in the targets the gradient of a single example never vanishes, and node
    perturbation spreads its squared norm over all units (E||g_l||^2 = ||z_l||^2 (n_l D + 2 ||delta_l||^2), with D the
    squared norm of the error signals of all nodes): the weights diffuse in directions that do not matter to the
    error, D grows with them, and the steps with D (Hiratani et al. 2022).

    Args:
        rules: Rules without state.
        noises: s, standard deviations of the targets' noise.
        inputs: Units of the input.
        hidden: Units of the hidden layer.
        outputs: Units of the output.
        lr: eta, of every rule.
        steps: Updates.
        replicas: Students that are averaged, each with its own teacher, examples and noise.
        seed: Seed of all of them.
        float64: Compute in 64 bits; a very small sigma needs it.
    """
    sizes = (inputs, hidden, outputs)
    for name, value in zip(("inputs", "hidden", "outputs", "steps"), (*sizes, steps), strict=True):
        at_least(name, value, 1)
    at_least("replicas", replicas, 2)
    if not 0 < lr < math.inf:
        raise UserError(f"lr must be positive and finite; got {lr}")
    if not all(0 <= noise < math.inf for noise in noises):
        raise UserError(f"noises must be finite and not negative; got {noises}")
    names = [str(check("rule", rule)) for rule in rules]
    for name in names:
        make("rule", name, student(sizes), squared_error)

    def rows(part: Part) -> Iterator[Row]:
        at = times(steps)
        with in_float64(float64):
            keys = jax.random.split(jax.random.key(seed), replicas)
            found = learn(part["rule"], sizes, lr, part["noise"], at, keys)
        for i, step in enumerate(at):
            error, norm = found.error[:, i], found.norm[:, i]
            finite = np.isfinite(error) & np.isfinite(norm)
            values = [*mean_error(error[finite].tolist()), *mean_error(norm[finite].tolist())]
            columns = dict(zip(("error", "error_se", "norm", "norm_se"), values, strict=True))
            yield {"step": step, **columns, "diverged": int((~finite).sum())}

    def draw(figure: Any, rows: Sequence[Row]) -> None:
        left, right = figure.subplots(1, 2)
        for i, noise in enumerate(noises):
            for j, rule in enumerate(names):
                own = [r for r in whole(rows, rule, noise) if r["step"]]
                label = f"{rule}, " + (f"target noise {noise:g}" if noise else "no target noise")
                for axes, name in ((left, "error"), (right, "norm")):
                    means, errors = [r[name] for r in own], [r[f"{name}_se"] for r in own]
                    curve(axes, [r["step"] for r in own], means, errors, j, label, marker="",
                          linestyle="-" if noise == max(noises) else (0, (4, 1 + i)))  # fmt: skip
        mismatched = [r["error"] for r in rows if r["noise"] == max(noises)]
        tidy(left, xlabel="update", ylabel="error against\nthe teacher", xscale="log", yscale="log")
        left.set_ylim(0.3 * min(mismatched), 2 * max(mismatched))
        tidy(right, xlabel="update", ylabel="weight norm", xscale="log")
        legend(figure, left, columns=2)

    def findings(rows: Sequence[Row]) -> list[Finding]:
        said = []
        for rule in names:
            for noise in noises:
                own = whole(rows, rule, noise)
                first, least, last = own[0], min(own, key=lambda r: r["error"]), own[-1]
                lost = next((r["diverged"] for r in rows if (r["rule"], r["noise"]) == (rule, noise)
                             and r["diverged"]), 0)  # fmt: skip
                rise, grown = last["error"] / least["error"], last["norm"] / first["norm"]
                fell = least["error"] < first["error"] / 2
                says = (f"{rule}, target noise {noise:g}: the error falls from {first['error']:.2g} to "
                        f"{least['error']:.2g} at update {least['step']:,}, and is {last['error']:.2g} at update "
                        f"{last['step']:,}")  # fmt: skip
                if noise:
                    says += f", {rise:.2g} times the least"
                    apart = last["error"] - least["error"] > 2 * (last["error_se"] + least["error_se"])
                    expected = fell and (
                        rise < RISE and not lost if rule == "sgd" else (rise > RISE and apart) or lost > 0
                    )
                else:
                    expected = not lost and last["error"] < 1e-2 * first["error"]
                says += f"; the weight norm grows {grown:.3g}-fold" + ("; then students diverge" if lost else "")
                said.append(Finding(says, expected))
        return said

    picture = Picture("step", "error", ("rule", "noise"), log="xy")
    parts = [{"rule": rule, "noise": float(s)} for rule in names for s in noises]
    return Experiment(parts, rows, draw, findings, picture)


def whole(rows: Sequence[Row], rule: str, noise: float) -> list[Row]:
    """The rows of one curve, as long as no student has diverged."""
    return [r for r in rows if (r["rule"], r["noise"]) == (rule, noise) and not r["diverged"]]
