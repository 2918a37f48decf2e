"""Targets with noise: node perturbation learns, then its weights diffuse and the error rises again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from nodepert.experiments.drawing import Picture, curve, legend, tidy
from nodepert.experiments.experiment import Experiment, Finding, Part, Row, combinations
from nodepert.experiments.shared.linear_student import in_float64, learn, squared_error, student, times
from nodepert.experiments.shared.tables import where
from nodepert.registry import check, make
from nodepert.rules.noise import key_of
from nodepert.training.metrics import mean_error

SCALES: dict[str, dict[str, Any]] = {
    "smoke": {"inputs": 8, "hidden": 20, "outputs": 3, "lr": 3e-3, "steps": 15_000, "replicas": 10},
    "small": {},
    "paper": {"rules": ("sgd", "np(sigma=1e-6)"), "inputs": 100, "hidden": 1000, "outputs": 10, "lr": 1e-5,
              "steps": 1_000_000, "replicas": 10, "float64": True},
}  # fmt: skip
RISE = 1.5  # ratio of the last to the lowest error from which the error has risen


@dataclass(frozen=True, kw_only=True)
class Mismatch(Experiment):
    """Does learning stay where the error was lowest? A linear student with one hidden layer, y = W2 W1 x, learns online
    (one example x ~ N(0, I) per update) from the teacher W* x + noise of standard deviation s, by

        W <- W - eta g,    L = ||y - target||^2 / 2,    shown: the error E = ||W2 W1 - W*||_F^2 / 2

    and the weight norm sqrt(||W1||^2 + ||W2||^2). The weights of teacher and student start with variance
    2 / (fan in + fan out). With noise in the targets the gradient of a single example never vanishes, and node
    perturbation spreads its squared norm over all units (E||g_l||^2 = ||z_l||^2 (n_l D + 2 ||delta_l||^2), with D the
    squared norm of the error signals of all nodes): the weights diffuse in directions that do not change the error, D
    grows with them, and the steps with D (Hiratani et al. 2022).

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
        float64: Compute in 64 bits, which a very small sigma needs.
    """

    rules: tuple[str, ...] = ("sgd", "np(difference=jvp)")
    noises: tuple[float, ...] = (0.0, 0.32)
    inputs: int = 20
    hidden: int = 100
    outputs: int = 5
    lr: float = 5e-4
    steps: int = 65_000
    replicas: int = 20
    seed: int = 0
    float64: bool = False

    picture = Picture("step", "error", ("rule", "noise"), log="xy")

    def __post_init__(self):
        self.at_least(1, "inputs", "hidden", "outputs", "steps")
        self.at_least(2, "replicas")
        self.positive("lr")
        self.not_negative("noises")
        for rule in self.rules:
            make("rule", rule, student(self.sizes), squared_error)

    @property
    def sizes(self) -> tuple[int, int, int]:
        return self.inputs, self.hidden, self.outputs

    @property
    def parts(self) -> list[Part]:
        return combinations(rule=[str(check("rule", rule)) for rule in self.rules], noise=map(float, self.noises))

    def rows(self, part: Part) -> Iterator[Row]:
        at = times(self.steps)
        with in_float64(self.float64):
            keys = jax.random.split(key_of(self.seed), self.replicas)
            found = learn(part["rule"], self.sizes, self.lr, part["noise"], at, keys)
        for i, step in enumerate(at):
            error, norm = found.error[:, i], found.norm[:, i]
            finite = np.isfinite(error) & np.isfinite(norm)
            values = [*mean_error(error[finite].tolist()), *mean_error(norm[finite].tolist())]
            columns = dict(zip(("error", "error_se", "norm", "norm_se"), values, strict=True))
            yield {"step": step, **columns, "diverged": int((~finite).sum())}

    def draw(self, figure: Any, rows: Sequence[Row]) -> None:
        left, right = figure.subplots(1, 2)
        rules = list(dict.fromkeys(part["rule"] for part in self.parts))
        for i, noise in enumerate(self.noises):
            for j, rule in enumerate(rules):
                own = [r for r in where(rows, rule=rule, noise=noise, diverged=0) if r["step"]]
                label = f"{rule}, " + (f"target noise {noise:g}" if noise else "no target noise")
                for axes, name in ((left, "error"), (right, "norm")):
                    means, errors = [r[name] for r in own], [r[f"{name}_se"] for r in own]
                    curve(axes, [r["step"] for r in own], means, errors, j, label, marker="",
                          linestyle="-" if noise == max(self.noises) else (0, (4, 1 + i)))  # fmt: skip
        mismatched = [r["error"] for r in rows if r["noise"] == max(self.noises)]
        tidy(left, xlabel="update", ylabel="error against\nthe teacher", xscale="log", yscale="log")
        left.set_ylim(0.3 * min(mismatched), 2 * max(mismatched))
        tidy(right, xlabel="update", ylabel="weight norm", xscale="log")
        legend(figure, left, columns=2)

    def findings(self, rows: Sequence[Row]) -> list[Finding]:
        return [rise_and_fall(where(rows, **part), **part) for part in self.parts]


def rise_and_fall(all_rows: Sequence[Row], rule: str, noise: float) -> Finding:
    """How one curve falls, and whether it rises again as expected: without target noise never, with it not for sgd."""
    own = where(all_rows, diverged=0)
    first, lowest, last = own[0], min(own, key=lambda r: r["error"]), own[-1]
    lost = any(r["diverged"] for r in all_rows)
    rise, grown = last["error"] / lowest["error"], last["norm"] / first["norm"]
    says = (f"{rule}, target noise {noise:g}: the error falls from {first['error']:.2g} to {lowest['error']:.2g} at "
            f"update {lowest['step']:,}, and is {last['error']:.2g} at update {last['step']:,}")  # fmt: skip
    if not noise:
        expected = not lost and last["error"] < 1e-2 * first["error"]
    else:
        says += f", {rise:.2g} times the lowest"
        apart = last["error"] - lowest["error"] > 2 * (last["error_se"] + lowest["error_se"])
        as_expected = (rise < RISE and not lost) if rule == "sgd" else (rise > RISE and apart) or lost
        expected = lowest["error"] < first["error"] / 2 and as_expected
    says += f"; the weight norm grows {grown:.3g}-fold" + ("; then students diverge" if lost else "")
    return Finding(says, expected)
