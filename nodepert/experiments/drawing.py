"""What all pictures share: colours that colour-blind readers can tell apart, curves with bands, tidy axes.

Works on the matplotlib axes that it is given, and imports nothing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from nodepert.studies.store.records import writing

COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]  # Okabe and Ito
MARKERS = "osD^vPX"


class Picture(NamedTuple):
    """The columns of a table with which a report opens its picture; without a name it takes the first and the last."""

    x: str = ""
    y: str = ""  # "-change" is the column change with its sign turned round: what falls, drawn upwards
    by: Sequence[str] = ()  # a line for each of their values; two columns at most
    where: Mapping[str, Any] = {}  # the value of each of these columns in the rows that are drawn
    log: str = ""  # axes that are logarithmic: "x", "y" or "xy"


def style(i: int) -> dict[str, Any]:
    """Colour and marker of curve i; no two of the first 49 are alike."""
    return {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[(i + i // len(COLOURS)) % len(MARKERS)]}


def curve(
    axes: Any, x: Sequence[float], means: Sequence[float], errors: Sequence[float] | None, i: int, label: str = "",
    **more: Any,
) -> None:  # fmt: skip
    """Curve i, in a band of one standard error to both sides."""
    axes.plot(x, means, label=label, **({"markersize": 3.5, "linewidth": 1.5} | style(i) | more))
    if errors is not None and any(errors):
        low, high = ([m + sign * e for m, e in zip(means, errors, strict=True)] for sign in (-1, 1))
        axes.fill_between(x, low, high, color=more.get("color", style(i)["color"]), alpha=0.2, linewidth=0)


def tidy(axes: Any, **settings: Any) -> None:
    """Set labels, scales and limits; a light grid, no frame."""
    axes.set(**settings)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def decades(low: float, high: float) -> list[float]:
    """1, 2, 5, 10, 20, ... between two numbers: ticks of a logarithmic axis that is short."""
    return [t for t in (m * 10.0**e for e in range(-6, 7) for m in (1, 2, 5)) if low <= t <= high]


def legend(figure: Any, axes: Any, columns: int = 4) -> None:
    """The legend of these axes, below the figure."""
    figure.legend(*axes.get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=columns,
                  handlelength=1.6, columnspacing=1.4)  # fmt: skip


def saved(figure: Any, path: str | Path) -> Path:
    """Write a figure as PNG or SVG, by its name, in one step: it is there whole or not at all."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            figure.savefig(
                temporary, dpi=160, format=path.suffix[1:], metadata={"Date": None} if path.suffix == ".svg" else None
            )
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    return path
