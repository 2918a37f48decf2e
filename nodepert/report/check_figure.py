"""The figure of a check: cosine, gain and bias by node, and the correlation of finite differences against sigma."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nodepert.experiments.drawing import COLOURS, MARKERS, save_figure, tidy

LEGEND: dict[str, Any] = {"frameon": False, "loc": "lower center", "bbox_to_anchor": (0.5, 1), "ncols": 2,
                          "columnspacing": 1, "handletextpad": 0}  # fmt: skip


def check_figure(
    rows: Sequence[dict[str, Any]], path: str | Path, title: str = "", steps: Sequence[dict[str, Any]] = ()
) -> Path:
    """Draw the result of a check: cosine, gain and bias by node with bars of ± two standard errors, and sigma.

    Args:
        rows, steps: Those of `nodepert.check`.
        path: The file, .png or .svg.
        title: Title of the figure.

    Returns:
        The path.

    Raises:
        UserError: If `path` cannot be written.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    panels = 4 if steps else 3
    figure = Figure(figsize=(1 + 2.9 * panels, 2.1 + 0.3 * len(rows)), layout="constrained")
    cosine, gain, bias, *study = figure.subplots(1, panels)
    nodes = [row["node"] for row in rows]
    known = {-i: row for i, row in enumerate(rows) if row["verdict"] != "no gradient"}  # the first node on top
    _draw_cosine(cosine, known)
    _draw_gain_and_bias(gain, bias, known)
    for axes, references in ((cosine, (0, 1)), (gain, (1,)), (bias, (0,))):
        for x in references:
            axes.axvline(x, color="grey", linewidth=1, zorder=0)
        axes.set_yticks([-i for i in range(len(nodes))], nodes if axes is cosine else [""] * len(nodes))
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(0.6 - len(rows), 0.6)
        axes.axhline(1.5 - len(rows), color="grey", linewidth=1, linestyle=":")  # above "all nodes"
        axes.xaxis.set_major_locator(MaxNLocator(5))
    for axes in study:
        _draw_sigma(axes, steps)
    for axes in figure.axes:
        tidy(axes)
    if title:
        figure.suptitle(title)
    return save_figure(figure, path)


def _draw_cosine(axes: Any, known: dict[int, dict[str, Any]]) -> None:
    """Cosine of each node, one draw and the mean of all; `known`: {y: row}."""
    one, mean = ([row[name] for row in known.values()] for name in ("cosine", "cosine_mean"))
    axes.plot(one, list(known), "o", color=COLOURS[0], label="one draw")
    axes.plot(mean, list(known), "D", color=COLOURS[0], fillstyle="none", label="mean of all draws")
    axes.set(xlabel="cosine with the gradient", xlim=(min([0.0, *one, *mean]) - 0.05, 1.05))
    axes.legend(**LEGEND)


def _draw_gain_and_bias(gain: Any, bias: Any, known: dict[int, dict[str, Any]]) -> None:
    """Gain and bias of each node, with error bars."""
    styles = {"biased": {"color": COLOURS[1], "marker": "s"}, "undecided": {"color": COLOURS[3], "marker": "^"},
              "exact or unbiased": {"color": COLOURS[2], "marker": "o"}}  # fmt: skip
    verdicts = [row["verdict"] for row in known.values()]
    styles = {name: look for name, look in styles.items() if name != "undecided" or name in verdicts}
    for y, row in known.items():
        look = {"linestyle": "none", "markersize": 6, "capsize": 3}
        look |= styles.get(row["verdict"], styles["exact or unbiased"])
        gain.errorbar(row["gain"], y, xerr=2 * row["gain_error"], **look)
        low, high = row["bias"] - row["bias_low"], row["bias_high"] - row["bias"]
        bias.errorbar(100 * row["bias"], y, xerr=[[100 * low], [100 * high]], **look)
    gain.set(xlabel="gain (1 without bias)", xlim=_around(gain.get_xlim(), 0.98, 1.02))
    bias.set(xlabel="bias (% of the gradient)", xlim=_around(bias.get_xlim(), -0.2, 5))
    for verdict in reversed(styles):
        gain.plot([], [], linestyle="none", label=verdict, **styles[verdict])
    gain.legend(**LEGEND)


def _draw_sigma(axes: Any, steps: Sequence[dict[str, Any]]) -> None:
    """Correlation of finite differences with exact slopes, against sigma; a circle marks the sigma of the rule."""
    for i, difference in enumerate(dict.fromkeys(row["difference"] for row in steps)):
        points = [row for row in steps if row["difference"] == difference]
        sigma, correlation = [row["sigma"] for row in points], [row["correlation"] for row in points]
        style: dict[str, Any] = {"color": COLOURS[4 + i], "marker": MARKERS[i], "markersize": 4}
        axes.plot(sigma, correlation, label=difference, **style)
        for row in points:
            if row["own"]:
                axes.plot(row["sigma"], row["correlation"], "o", color="black", fillstyle="none", markersize=11)
    axes.plot([], [], "o", color="black", fillstyle="none", markersize=9, label="this rule")
    axes.axhline(0.99, color="grey", linewidth=1, linestyle="--", zorder=0)
    axes.set(xlabel="sigma", ylabel="correlation with exact slopes", xscale="log", ylim=(None, 1.02))
    axes.legend(**LEGEND | {"bbox_to_anchor": (0.4, 1), "ncols": 3, "handletextpad": 0.4})


def _around(limits: tuple[float, float], low: float, high: float) -> tuple[float, float]:
    """Limits of an axis that include a range."""
    return min(limits[0], low), max(limits[1], high)
