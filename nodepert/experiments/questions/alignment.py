"""How well an estimate points along the gradient, against draws, width and depth: measurement and law."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nodepert.experiments.drawing import COLOURS, Picture, legend, style, tidy
from nodepert.experiments.experiment import Experiment, Finding, Part, Row
from nodepert.experiments.shared.cosines import cosines, known, law, unbiased
from nodepert.experiments.shared.tables import where
from nodepert.experiments.shared.tasks import check_classes
from nodepert.models.fc import fc
from nodepert.registry import make, make_loss
from nodepert.registry.spec import Spec
from nodepert.rules.noise import key_of

SCALES: dict[str, dict[str, Any]] = {
    "smoke": {"dataset": "digits", "batchsize": 20, "width": 20, "widths": (10,), "depths": (1,), "draws": 32,
              "axis_draws": 8, "estimates": 512, "rules": ("np", "inp", "wp")},
    "small": {},
    "paper": {"width": 500, "widths": (25, 50, 100, 200, 400, 800, 1600, 3200), "depths": (1, 2, 3, 4, 6, 8, 12, 16),
              "draws": 4096, "axis_draws": 256, "estimates": 65536},
}  # fmt: skip
FAR = 0.3  # cosines below this grow as the square root of draws
CLOSE = 0.05  # to the law, relative


@dataclass(frozen=True, kw_only=True)
class Alignment(Experiment):
    """The cosine of an estimate with the gradient g of the batch-mean loss, in networks at initialisation. An unbiased
    estimate, the mean over K draws with variance V = E||estimate - g||^2 each, has approximately

        cosine = c ||g|| / sqrt(||g||^2 + V / K)

    V has no free parameter. With B examples, g_b the gradient of one, and in example b delta_l the derivative of its
    loss with respect to the n_l pre-activations of node l, D = sum_l ||delta_l||^2, z_l the node's input with a 1
    appended for the biases, B^2 V is the sum over examples of

        np    sum_l ||z_l||^2 (n_l D + 2 ||delta_l||^2) - ||g_b||^2    (other noise than gaussian: without the 2)
        inp   sum_l ||z_l||^2 n_l ||delta_l||^2 - ||g_b||^2

    and V = (d + 1) ||g||^2 for wp in d weights (other noise: d - 1). c = 1, except for wp, whose K draws are shared by
    all examples: c = sqrt(2/K) Gamma((K+1)/2) / Gamma(K/2), which is 0.80 for one draw and 0.98 for 16.

    Werfel, Xie and Seung 2005 for one linear layer; Hiratani et al. 2022; Ren et al. 2023 (the variance of forward
    gradients).

    Args:
        rules: np, inp and wp, with difference=jvp (unbiased) unless the spec has another.
        dataset: Data set of the batch.
        loss: Loss.
        batchsize: Examples in the batch.
        width: Units in each hidden layer of the main network, which has the most draws.
        depth: Hidden layers of the main network.
        widths: Further widths, at that depth.
        depths: Further depths, at that width.
        draws: Most draws that are averaged in the main network, a power of 2.
        axis_draws: Draws that are averaged in the other networks, a power of 2.
        estimates: Single-draw estimates per rule in the main network, a quarter of it in the others. They are averaged
            in as many disjoint groups as possible.
        seed: Seed of batch, weights and noise.
    """

    rules: tuple[str, ...] = ("np", "inp", "wp")
    dataset: str = "mnist"
    loss: str = "cross-entropy"
    batchsize: int = 100
    width: int = 100
    depth: int = 2
    widths: tuple[int, ...] = (25, 50, 200, 400)
    depths: tuple[int, ...] = (1, 3, 5, 8)
    draws: int = 256
    axis_draws: int = 16
    estimates: int = 1024
    seed: int = 0

    size = (7.0, 3.4)

    def __post_init__(self):
        self.require(lambda n: 0 < n <= self.draws and n & (n - 1) == 0,
                     "a power of 2, axis_draws at most draws", "draws", "axis_draws")  # fmt: skip
        self.at_least(2 * max(self.draws, 4 * self.axis_draws), "estimates")
        self.at_least(1, "batchsize")
        _ = self.specs
        for part in self.parts:
            fc((1,), 2, **part)

    @cached_property
    def specs(self) -> dict[str, Spec]:
        return {rule: unbiased(rule) for rule in self.rules}

    @property
    def picture(self) -> Picture:
        return Picture("draws", "cosine", ("rule",), {"width": self.width, "depth": self.depth}, log="xy")

    @property
    def parts(self) -> list[Part]:
        networks = [(self.width, self.depth), *((w, self.depth) for w in self.widths),
                    *((self.width, d) for d in self.depths)]  # fmt: skip
        return [{"width": w, "depth": d} for w, d in dict.fromkeys(networks)]

    def rows(self, part: Part) -> Iterator[Row]:
        data, loss = self.load(self.dataset), make_loss(self.loss)
        check_classes(data)
        weights, examples, noise = jax.random.split(key_of(self.seed), 3)
        model = fc(data.train_x.shape[1:], data.classes, **part)
        params = model.init(weights)
        chosen = np.asarray(jax.random.permutation(examples, len(data.train_y)))[: self.batchsize]
        batch = jnp.asarray(data.standardised(data.train_x[chosen])), jnp.asarray(data.train_y[chosen])
        about = known(model, loss, params, batch)
        main = part == self.parts[0]
        most = self.draws if main else self.axis_draws
        trials = self.estimates // (most if main else 4 * most)
        for rule, spec in self.specs.items():
            found = cosines(make("rule", spec, model, loss), params, batch, about.gradient, noise, trials, most)
            for level, values in enumerate(found):
                k = 2**level
                yield {"rule": rule, "draws": k, "cosine": float(values.mean()),
                       "error": float(values.std(ddof=1) / len(values) ** 0.5), "law": law(spec, about, k)}  # fmt: skip

    def along(self, rows: Sequence[Row], rule: str) -> dict[str, list[Row]]:
        """The rows along each axis, in its order."""
        width, depth, draws = self.width, self.depth, self.axis_draws
        return {
            "draws": where(rows, rule=rule, width=width, depth=depth),
            "width": sorted(where(rows, rule=rule, depth=depth, draws=draws), key=lambda r: r["width"]),
            "depth": sorted(where(rows, rule=rule, width=width, draws=draws), key=lambda r: r["depth"]),
        }

    def draw(self, figure: Any, rows: Sequence[Row]) -> None:
        panels: dict[str, Any] = dict(zip(("draws", "width", "depth"), figure.subplots(1, 3, sharey=True), strict=True))
        for i, rule in enumerate(self.rules):
            for axis, own in self.along(rows, rule).items():
                at = [r[axis] for r in own]
                panels[axis].errorbar(at, [r["cosine"] for r in own], [2 * r["error"] for r in own], label=rule,
                                      linestyle="none", markersize=3.5, elinewidth=1, **style(i))  # fmt: skip
                panels[axis].plot(at, [r["law"] for r in own], color=COLOURS[i % len(COLOURS)], linewidth=1)
        panels["draws"].plot([], [], color="grey", linewidth=1, label="law")
        draws = f"{self.axis_draws} draw{'s' * (self.axis_draws > 1)}"
        tidy(panels["draws"], xlabel="draws", ylabel="cosine with the gradient", xscale="log", yscale="log",
             title=f"{self.depth} x {self.width} units")  # fmt: skip
        tidy(panels["width"], xlabel="units per layer", xscale="log", title=f"depth {self.depth}, {draws}")
        tidy(panels["depth"], xlabel="hidden layers", title=f"width {self.width}, {draws}")
        for axis in ("draws", "width"):
            panels[axis].xaxis.set_major_formatter("{x:g}")
            panels[axis].xaxis.set_minor_formatter("")
        panels["width"].set_xticks(sorted({self.width, *self.widths}))
        panels["depth"].set_xticks(sorted({self.depth, *self.depths}))
        panels["draws"].yaxis.set_major_formatter("{x:g}")
        legend(figure, panels["draws"], 5)

    def findings(self, rows: Sequence[Row]) -> list[Finding]:
        findings = []
        for rule in self.rules:
            own, along = where(rows, rule=rule), self.along(rows, rule)
            apart = np.array([r["cosine"] - r["law"] for r in own])
            off, z = (float(np.sqrt(np.mean(np.square(apart / [r[unit] for r in own])))) for unit in ("law", "error"))
            findings.append(Finding(f"{rule}: measured cosines are {off:.1%} or {z:.1f} standard errors off the law "
                                    f"(rms over {len(own)} points)", off < CLOSE or z < 2))  # fmt: skip
            few = [r for r in along["draws"] if r["cosine"] < FAR]
            if len(few) > 2:
                k, cosine = (np.log([r[name] for r in few]) for name in ("draws", "cosine"))
                slope = np.polyfit(k, cosine, 1)[0]
                findings.append(Finding(f"{rule}: below a cosine of {FAR} it grows as draws^{slope:.2f}, the square "
                                        "root", bool(abs(slope - 0.5) < 0.06)))  # fmt: skip
            for axis in ("width", "depth"):
                first, last = along[axis][0], along[axis][-1]
                if first is not last:
                    findings.append(Finding(
                        f"{rule}: from {axis} {first[axis]} to {last[axis]} the cosine falls from {first['cosine']:.3g}"
                        f" to {last['cosine']:.3g}", last["cosine"] < first["cosine"]))  # fmt: skip
        return findings
