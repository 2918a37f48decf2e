"""How well an estimate points along the gradient, against draws, width and depth: measurement and law."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nodepert.errors import UserError
from nodepert.experiments.drawing import COLOURS, Picture, legend, style, tidy
from nodepert.experiments.experiment import Experiment, Finding, Load, Part, Row
from nodepert.experiments.shared.cosines import cosines, known, law, unbiased
from nodepert.models.fc import fc
from nodepert.registry import make, make_loss
from nodepert.registry.ranges import at_least
from nodepert.training.program import standardised, task_data

SCALES: dict[str, dict[str, Any]] = {
    "smoke": {"dataset": "digits", "batchsize": 20, "width": 20, "widths": (10,), "depths": (1,), "draws": 32,
              "axis_draws": 8, "estimates": 512, "rules": ("np", "inp", "wp")},
    "small": {},
    "paper": {"width": 500, "widths": (25, 50, 100, 200, 400, 800, 1600, 3200), "depths": (1, 2, 3, 4, 6, 8, 12, 16),
              "draws": 4096, "axis_draws": 256, "estimates": 65536},
}  # fmt: skip
FAR = 0.3  # cosines below this grow as the square root of draws
CLOSE = 0.05  # of the law, relative


def alignment(
    load: Load, *, rules: tuple[str, ...] = ("np", "inp", "wp"), dataset: str = "mnist",
    loss: str = "cross-entropy", batchsize: int = 100, width: int = 100, depth: int = 2,
    widths: tuple[int, ...] = (25, 50, 200, 400), depths: tuple[int, ...] = (1, 3, 5, 8), draws: int = 256,
    axis_draws: int = 16, estimates: int = 1024, seed: int = 0,
) -> Experiment:  # fmt: skip
    """The cosine of an estimate with the gradient g of the batch-mean loss, in networks as they are initialised. An
    unbiased estimate, the mean over K draws that have variance V = E||estimate - g||^2 each, has nearly

        cosine = c ||g|| / sqrt(||g||^2 + V / K)

    V has no free parameter. With B examples, g_b the gradient of one, and in example b delta_l the derivative of its
    loss with respect to the n_l pre-activations of node l, D = sum_l ||delta_l||^2, z_l the node's input and a 1 for
    the biases, B^2 V is the sum over examples of

        np    sum_l ||z_l||^2 (n_l D + 2 ||delta_l||^2) - ||g_b||^2    (other noise than gaussian: without the 2)
        inp   sum_l ||z_l||^2 n_l ||delta_l||^2 - ||g_b||^2

    and V = (d + 1) ||g||^2 for wp in d weights (other noise: d - 1). c = 1, but for wp, whose K draws serve all
    examples at once: c = sqrt(2/K) Gamma((K+1)/2) / Gamma(K/2), which is 0.80 for one draw and 0.98 for 16.

    Werfel, Xie and Seung 2005 for one linear layer; Hiratani et al. 2022; Ren et al. 2023 (the variance of forward
    gradients).

    Args:
        rules: np, inp and wp. They take difference=jvp, hence no bias, unless they say another.
        dataset: Where the batch comes from.
        loss: The loss.
        batchsize: Examples in the batch.
        width: Units in each hidden layer of the network that has the most draws.
        depth: Hidden layers of it.
        widths: Further widths, at that depth.
        depths: Further depths, at that width.
        draws: Up to how many are averaged in that network, a power of 2.
        axis_draws: How many are averaged in the others, a power of 2.
        estimates: Of one draw, for each rule, in that network, and a quarter of it in the others: as many independent
            means as they suffice for.
        seed: Seed of batch, weights and noise.
    """
    for name, value in (("draws", draws), ("axis_draws", axis_draws)):
        if value < 1 or value & (value - 1) or value > draws:
            raise UserError(f"{name} must be a power of 2, axis_draws at most draws; got {value}")
    at_least("estimates", estimates, 2 * max(draws, 4 * axis_draws))
    at_least("batchsize", batchsize, 1)
    specs = {rule: unbiased(rule) for rule in rules}
    at_least("the number of rules", len(specs), 1)
    loss_fn = make_loss(loss)
    networks = list(dict.fromkeys([(width, depth), *((w, depth) for w in widths), *((width, d) for d in depths)]))
    for one in networks:
        fc((1,), 2, width=one[0], depth=one[1])

    def rows(part: Part) -> Iterator[Row]:
        data = load(dataset)
        weights, examples, noise = jax.random.split(jax.random.key(seed), 3)
        model = fc(data.train_x.shape[1:], data.classes, width=part["width"], depth=part["depth"])
        params = model.init(weights)
        chosen = np.asarray(jax.random.permutation(examples, len(data.train_y)))[:batchsize]
        batch = standardised(task_data(data), jnp.asarray(data.train_x[chosen])), jnp.asarray(data.train_y[chosen])
        about = known(model, loss_fn, params, batch)
        main = (part["width"], part["depth"]) == (width, depth)
        most, trials = (draws, estimates // draws) if main else (axis_draws, estimates // (4 * axis_draws))
        for rule, spec in specs.items():
            found = cosines(make("rule", spec, model, loss_fn), params, batch, about.gradient, noise, trials, most)
            for level, values in enumerate(found):
                k = 2**level
                yield {"rule": rule, "draws": k, "cosine": float(values.mean()),
                       "error": float(values.std(ddof=1) / len(values) ** 0.5), "law": law(spec, about, k)}  # fmt: skip

    def of(rows: Sequence[Row], rule: str, **where: Any) -> list[Row]:
        return [r for r in rows if r["rule"] == rule and all(r[name] == value for name, value in where.items())]

    def axes_of(rows: Sequence[Row], rule: str) -> dict[str, list[Row]]:
        """The rows along each axis, in its order."""
        return {
            "draws": of(rows, rule, width=width, depth=depth),
            "width": sorted(of(rows, rule, depth=depth, draws=axis_draws), key=lambda r: r["width"]),
            "depth": sorted(of(rows, rule, width=width, draws=axis_draws), key=lambda r: r["depth"]),
        }

    def draw(figure: Any, rows: Sequence[Row]) -> None:
        panels: dict[str, Any] = dict(zip(("draws", "width", "depth"), figure.subplots(1, 3, sharey=True), strict=True))
        for i, rule in enumerate(rules):
            for axis, own in axes_of(rows, rule).items():
                at = [r[axis] for r in own]
                panels[axis].errorbar(at, [r["cosine"] for r in own], [2 * r["error"] for r in own], label=rule,
                                      linestyle="none", markersize=3.5, elinewidth=1, **style(i))  # fmt: skip
                panels[axis].plot(at, [r["law"] for r in own], color=COLOURS[i % len(COLOURS)], linewidth=1)
        panels["draws"].plot([], [], color="grey", linewidth=1, label="law")
        tidy(panels["draws"], xlabel="draws", ylabel="cosine with the gradient", xscale="log", yscale="log",
             title=f"{depth} x {width} units")  # fmt: skip
        tidy(panels["width"], xlabel="units per layer", xscale="log", title=f"depth {depth}, {axis_draws} "
             f"draw{'s' * (axis_draws > 1)}")  # fmt: skip
        tidy(panels["depth"], xlabel="hidden layers", title=f"width {width}, {axis_draws} draw{'s' * (axis_draws > 1)}")
        for axis in ("draws", "width"):
            panels[axis].xaxis.set_major_formatter("{x:g}")
            panels[axis].xaxis.set_minor_formatter("")
        panels["width"].set_xticks(sorted({width, *widths}))
        panels["depth"].set_xticks(sorted({depth, *depths}))
        panels["draws"].yaxis.set_major_formatter("{x:g}")
        legend(figure, panels["draws"], 5)

    def findings(rows: Sequence[Row]) -> list[Finding]:
        said = []
        for rule in rules:
            own = of(rows, rule)
            apart = np.array([r["cosine"] - r["law"] for r in own])
            off, z = (float(np.sqrt(np.mean(np.square(apart / [r[unit] for r in own])))) for unit in ("law", "error"))
            said.append(Finding(f"{rule}: measured cosines are {off:.1%} or {z:.1f} standard errors off the law (rms "
                                f"over {len(own)} points)", off < CLOSE or z < 2))  # fmt: skip
            along = axes_of(rows, rule)
            few = [r for r in along["draws"] if r["cosine"] < FAR]
            if len(few) > 2:
                k, cosine = (np.log([r[name] for r in few]) for name in ("draws", "cosine"))
                slope = np.polyfit(k, cosine, 1)[0]
                said.append(Finding(f"{rule}: below a cosine of {FAR} it grows as draws^{slope:.2f}, the square root",
                                    bool(abs(slope - 0.5) < 0.06)))  # fmt: skip
            for axis in ("width", "depth"):
                first, last = along[axis][0], along[axis][-1]
                if first is not last:
                    said.append(Finding(
                        f"{rule}: from {axis} {first[axis]} to {last[axis]} the cosine falls from {first['cosine']:.3g}"
                        f" to {last['cosine']:.3g}", last["cosine"] < first["cosine"]))  # fmt: skip
        return said

    picture = Picture("draws", "cosine", ("rule",), {"width": width, "depth": depth}, log="xy")
    return Experiment([{"width": w, "depth": d} for w, d in networks], rows, draw, findings, picture, (7.0, 3.4))
