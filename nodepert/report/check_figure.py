"""The figure of a check: cosine, gain and bias by node, and the study of sigma."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nodepert.experiments.drawing import COLOURS, MARKERS, save_figure


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
    _draw_estimate(cosine, gain, bias, known, y)
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
    return save_figure(figure, path)


def _draw_estimate(cosine: Any, gain: Any, bias: Any, known: Sequence[dict[str, Any]], y: Sequence[int]) -> None:
    """Cosine, gain and bias of each node, from the top."""
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
