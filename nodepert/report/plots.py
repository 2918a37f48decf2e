"""Pictures of runs and checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from nodepert.experiments.drawing import COLOURS, MARKERS, saved


def learning_curves(runs: Mapping[str, Sequence[Any]], path: str | Path, title: str = "") -> Path:
    """Accuracy and loss against epochs, one colour per legend: test solid, training dashed. Writes a PNG.

    runs: {legend: rows}, rows as `nodepert.train` gives them, or {legend: [rows, ...]} of several seeds: then a curve
    is their mean (while all last), in a band from the least to the greatest test value. Raises UserError where `path`
    cannot be written.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    columns = max(1, min(4, 110 // (8 + max(map(len, runs), default=1))))  # of the legend below the axes
    figure = Figure(figsize=(9, 3.8 + 0.2 * (len(runs) // columns)), layout="constrained")
    accuracy, loss = figure.subplots(1, 2)
    for i, (label, several) in enumerate(runs.items()):
        style: dict[str, Any] = {"color": COLOURS[i % len(COLOURS)], "linewidth": 1.8}
        alike = list(zip(*([several] if isinstance(several[0], dict) else several), strict=False))  # epoch by epoch
        epochs = [rows[0]["epoch"] for rows in alike]
        for axes, quantity in ((accuracy, "acc"), (loss, "loss")):
            values = [[row[f"test_{quantity}"] for row in rows] for rows in alike]
            test = list(map(fmean, values))
            train = [fmean(row[f"train_{quantity}"] for row in rows) for rows in alike]
            if len(values[0]) > 1:
                band = list(map(min, values)), list(map(max, values))
                axes.fill_between(epochs, *band, color=style["color"], alpha=0.2, linewidth=0)
            axes.plot(
                epochs, test, marker=MARKERS[(i + i // len(COLOURS)) % len(MARKERS)], markersize=4, label=label, **style
            )
            axes.plot(epochs, train, linestyle="--", alpha=0.7, **style)
    accuracy.set(ylabel="accuracy (%)", ylim=(0, 100))
    loss.set(ylabel="loss (log scale)", yscale="log")
    for axes in (accuracy, loss):
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    low, high = loss.get_ylim()
    loss.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 500 * low else (1,)))
    loss.yaxis.set_major_formatter("{x:g}")
    loss.yaxis.set_minor_formatter("")
    accuracy.plot([], [], "--", color="grey", label="training set")
    figure.legend(*accuracy.get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=columns)
    if title:
        figure.suptitle(title)
    return saved(figure, path)


def check_figure(
    rows: Sequence[dict[str, Any]], path: str | Path, title: str = "", steps: Sequence[dict[str, Any]] = ()
) -> Path:
    """What a check found: cosine, gain and bias by node, and its study of sigma. Writes a PNG.

    rows, steps: those of a `nodepert.check`. Bars are two standard errors. Raises UserError where `path` cannot be
    written.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    panels = 4 if steps else 3
    figure = Figure(figsize=(1 + 2.9 * panels, 2.1 + 0.3 * len(rows)), layout="constrained")
    cosine, gain, bias, *study = figure.subplots(1, panels)
    at = {row["node"]: -i for i, row in enumerate(rows)}  # the first node on top
    known = [row for row in rows if row["verdict"] != "no gradient"]
    y = [at[row["node"]] for row in known]
    blue, red, green = COLOURS[:3]
    spot: dict[str, Any] = {"linestyle": "none", "markersize": 6, "capsize": 3}

    def column(name: str) -> list[float]:
        return [row[name] for row in known]

    cosine.plot(column("cosine"), y, "o", color=blue, label="one draw")
    cosine.plot(column("cosine_mean"), y, "D", color=blue, fillstyle="none", label="mean of all draws")
    least = min([0.0, *column("cosine"), *column("cosine_mean")])
    cosine.set(xlabel="cosine with the gradient", xlim=(least - 0.05, 1.05))
    cosine.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, columnspacing=1, handletextpad=0)
    for row, place in zip(known, y, strict=True):
        style = {"color": red, "marker": "s"} if row["verdict"] == "biased" else {"color": green, "marker": "o"}
        gain.errorbar(row["gain"], place, xerr=2 * row["gain_error"], **spot, **style)
        low, high = row["bias"] - row["bias_low"], row["bias_high"] - row["bias"]
        bias.errorbar(100 * row["bias"], place, xerr=[[100 * low], [100 * high]], **spot, **style)
    gain.set(xlabel="gain (1 without bias)", xlim=_around(gain.get_xlim(), 0.98, 1.02))
    bias.set(xlabel="bias (% of the gradient)", xlim=_around(bias.get_xlim(), -0.2, 5))
    for verdict, marker, colour in (("exact or unbiased", "o", green), ("biased", "s", red)):
        gain.plot([], [], marker, color=colour, label=verdict)
    gain.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, columnspacing=1, handletextpad=0)
    for axes, reference in ((cosine, (0, 1)), (gain, (1,)), (bias, (0,))):
        for x in reference:
            axes.axvline(x, color="grey", linewidth=1, zorder=0)
        axes.set_yticks(list(at.values()), list(at) if axes is cosine else [""] * len(at))
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(0.6 - len(rows), 0.6)
        axes.axhline(1.5 - len(rows), color="grey", linewidth=1, linestyle=":")  # above "all nodes"
        axes.xaxis.set_major_locator(MaxNLocator(5))
    for axes in study:
        _sigma_study(axes, steps)
    for axes in figure.axes:
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    if title:
        figure.suptitle(title)
    return saved(figure, path)


def _sigma_study(axes: Any, steps: Sequence[dict[str, Any]]) -> None:
    """Correlation of finite differences with exact slopes, against sigma."""
    for i, difference in enumerate(dict.fromkeys(row["difference"] for row in steps)):
        own = [row for row in steps if row["difference"] == difference]
        sigma, correlation = [row["sigma"] for row in own], [row["correlation"] for row in own]
        style: dict[str, Any] = {"color": COLOURS[4 + i], "marker": MARKERS[i], "markersize": 4}
        axes.plot(sigma, correlation, label=difference, **style)
        for row in own:
            if row["own"]:
                axes.plot(row["sigma"], row["correlation"], "o", color="black", fillstyle="none", markersize=11)
    axes.plot([], [], "o", color="black", fillstyle="none", markersize=9, label="this rule")
    axes.axhline(0.99, color="grey", linewidth=1, linestyle="--", zorder=0)
    axes.set(xlabel="sigma", ylabel="correlation with exact slopes", xscale="log", ylim=(None, 1.02))
    axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.4, 1), ncols=3, columnspacing=1, handletextpad=0.4)


def _around(limits: tuple[float, float], low: float, high: float) -> tuple[float, float]:
    """Limits of an axis that take in a range as well."""
    return min(limits[0], low), max(limits[1], high)
