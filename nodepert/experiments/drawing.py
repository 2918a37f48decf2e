"""What all figures share: colours for colour-blind readers, curves with bands, tidy axes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nodepert.studies.store.records import write_whole, writing

COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]  # Okabe and Ito
MARKERS = "osD^vPX"


class Picture(NamedTuple):
    """The columns of a table that a report draws first; without names it takes the first and the last."""

    x: str = ""
    y: str = ""  # "-change" is minus the column change
    by: Sequence[str] = ()  # one line for each of their values; at most two columns
    where: Mapping[str, Any] = {}  # only the rows with these values
    log: str = ""  # logarithmic axes: "x", "y" or "xy"


def style(i: int) -> dict[str, Any]:
    """Colour and marker of curve i; the first 49 differ."""
    return {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[(i + i // len(COLOURS)) % len(MARKERS)]}


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


def tidy(axes: Any, **settings: Any) -> None:
    """Set labels, scales and limits; a light grid, no frame."""
    axes.set(**settings)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def decades(low: float, high: float) -> list[float]:
    """1, 2, 5, 10, 20, ... between two numbers: ticks of a short logarithmic axis."""
    return [t for t in (m * 10.0**e for e in range(-6, 7) for m in (1, 2, 5)) if low <= t <= high]


def legend(figure: Any, axes: Any, columns: int = 4) -> None:
    """The legend of these axes, below the figure."""
    figure.legend(*axes.get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=columns,
                  handlelength=1.6, columnspacing=1.4)  # fmt: skip


def save_figure(figure: Any, path: str | Path) -> Path:
    """Write a figure atomically, as PNG or SVG by the suffix of the path. Raises UserError."""
    path, image = Path(path), io.BytesIO()
    figure.savefig(image, dpi=160, format=path.suffix[1:], metadata={"Date": None} if path.suffix == ".svg" else None)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, image.getvalue())
    return path
