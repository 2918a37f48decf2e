"""Pictures. Colours are the Okabe-Ito palette, which colour-blind readers can tell apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nodepert.store import writing

COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
MARKERS = "osD^vPX"


def learning_curves(runs: Mapping[str, Sequence[dict[str, Any]]], path: str | Path, title: str = "") -> Path:
    """Accuracy and loss against epochs, one colour per run: test solid, training dashed. Writes a PNG.

    runs: {legend: rows}, rows as `nodepert.train` gives them. Raises UserError where `path` cannot be written.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    columns = max(1, min(4, 110 // (8 + max(map(len, runs), default=1))))  # of the legend below the axes
    figure = Figure(figsize=(9, 3.8 + 0.2 * (len(runs) // columns)), layout="constrained")
    accuracy, loss = figure.subplots(1, 2)
    for i, (label, rows) in enumerate(runs.items()):
        style: dict[str, Any] = {"color": COLOURS[i % len(COLOURS)], "linewidth": 1.8}
        epochs = [row["epoch"] for row in rows]
        for axes, quantity in ((accuracy, "acc"), (loss, "loss")):
            test = [row[f"test_{quantity}"] for row in rows]
            train = [row[f"train_{quantity}"] for row in rows]
            axes.plot(epochs, test, marker=MARKERS[i % len(MARKERS)], markersize=4, label=label, **style)
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
    path = Path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=160)
    return path
