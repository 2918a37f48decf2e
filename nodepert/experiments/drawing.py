"""What figures of experiments share: curves with bands, ticks, legends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from nodepert.studies.drawing import COLOURS as COLOURS
from nodepert.studies.drawing import MARKERS as MARKERS
from nodepert.studies.drawing import save_figure as save_figure
from nodepert.studies.drawing import style as style
from nodepert.studies.drawing import tidy as tidy


class Picture(NamedTuple):
    """The columns of a table that a report draws first; without names it takes the first and the last."""

    x: str = ""
    y: str = ""  # "-change" is minus the column change
    by: Sequence[str] = ()  # one line for each of their values; at most two columns
    where: Mapping[str, Any] = {}  # only the rows with these values
    log: str = ""  # logarithmic axes: "x", "y" or "xy"


def curve(
    axes: Any, x: Sequence[float], means: Sequence[float], errors: Sequence[float] | None, i: int, label: str = "",
    **more: Any,
) -> None:  # fmt: skip
    """Curve i, with a band of plus and minus one standard error."""
    axes.plot(x, means, label=label, **({"markersize": 3.5, "linewidth": 1.5} | style(i) | more))
    if errors is not None and any(errors):
        low, high = ([m + sign * e for m, e in zip(means, errors, strict=True)] for sign in (-1, 1))
        axes.fill_between(x, low, high, color=more.get("color", style(i)["color"]), alpha=0.2, linewidth=0)


def mean_curve(axes: Any, found: Mapping[Any, tuple[float, float]], i: int, label: str = "", **more: Any) -> None:
    """Curve i of {x: (mean, standard error)}."""
    curve(axes, list(found), [m for m, _ in found.values()], [e for _, e in found.values()], i, label, **more)


def decades(low: float, high: float) -> list[float]:
    """1, 2, 5, 10, 20, ... between two numbers: ticks of a short logarithmic axis."""
    return [t for t in (m * 10.0**e for e in range(-6, 7) for m in (1, 2, 5)) if low <= t <= high]


def legend(figure: Any, axes: Any, columns: int = 4) -> None:
    """The legend of these axes, below the figure."""
    figure.legend(*axes.get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=columns,
                  handlelength=1.6, columnspacing=1.4)  # fmt: skip
