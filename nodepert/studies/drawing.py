"""What all figures share: colours for colour-blind readers, tidy axes, and how a figure is written."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from nodepert.studies.store.records import as_path, write_whole, writing

COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]  # Okabe and Ito
MARKERS = "osD^vPX"


def style(i: int) -> dict[str, Any]:
    """Colour and marker of curve i; the first 49 differ."""
    return {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[(i + i // len(COLOURS)) % len(MARKERS)]}


def tidy(axes: Any, **settings: Any) -> None:
    """Set labels, scales and limits; a light grid, no frame."""
    axes.set(**settings)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def save_figure(figure: Any, path: str | Path) -> Path:
    """Write a figure atomically, as PNG or SVG by the suffix of the path. Raises UserError."""
    path, image = as_path(path), io.BytesIO()
    figure.savefig(image, dpi=160, format=path.suffix[1:], metadata={"Date": None} if path.suffix == ".svg" else None)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, image.getvalue())
    return path
