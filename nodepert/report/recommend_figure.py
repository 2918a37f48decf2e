"""The figure of a recommendation: the gain of each form of node perturbation, measured and predicted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nodepert.experiments.drawing import COLOURS, decades, save_figure, tidy


def recommend_figure(rows: Sequence[dict[str, Any]], path: str | Path, title: str = "") -> Path:
    """Draw the gains of all forms, with bars of ± two standard errors.

    Args:
        rows: Those of `nodepert.recommend`.
        path: The file, .png or .svg.
        title: Title of the figure.

    Returns:
        The path.

    Raises:
        UserError: If `path` cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 1.4 + 0.3 * len(rows)), layout="constrained")
    axes = figure.subplots()
    finite = {-i: row for i, row in enumerate(rows) if math.isfinite(row["gain"])}  # the first form on top
    errors = [2 * row["gain_error"] for row in finite.values()]
    axes.errorbar([row["gain"] for row in finite.values()], list(finite), xerr=errors, fmt="o", capsize=3,
                  color=COLOURS[0], label="measured")  # fmt: skip
    axes.plot([row["predicted_gain"] for row in finite.values()], list(finite), "D", color=COLOURS[1],
              fillstyle="none", label="predicted")  # fmt: skip
    axes.axvline(1, color="grey", linewidth=1, zorder=0)
    axes.set_yticks([-i for i in range(len(rows))], [row["form"] for row in rows])
    axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2)
    tidy(axes, xlabel="gain: variance of the plain form / variance", xscale="log")
    axes.set_xticks(*_ticks(axes.get_xlim()))
    axes.minorticks_off()
    if title:
        figure.suptitle(title)
    return save_figure(figure, path)


def _ticks(limits: tuple[float, float]) -> tuple[list[float], list[str]]:
    ticks = decades(*limits)
    return ticks, [f"{tick:g}" for tick in ticks]
