"""The metrics of runs against epochs, as a figure (`figure_of`) or its file (`learning_curves`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from nodepert.studies.drawing import save_figure, style, tidy
from nodepert.training.metrics import Row, columns_of, metric_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def learning_curves(runs: Mapping[str, Sequence[Any]], path: str | Path, title: str = "") -> Path:
    """Draw metrics against epochs: a panel per chart, a colour per label, test set solid and training set dashed.

    Args:
        runs: {label: rows} with the rows of `npt.train`; or {label: [rows, ...]} with those of several seeds. Then a
            curve is their mean, as long as all have rows, and a band spans the lowest to the highest test value.
        path: The file, .png or .svg.
        title: Title of the figure.

    Returns:
        The path.

    Raises:
        UserError: If `path` cannot be written.

    Examples:
        >>> result = npt.train(npt.Run(dataset="digits", network="fc(width=10)", epochs=2))
        >>> npt.learning_curves({"np": result.rows}, "curves.png")
        PosixPath('curves.png')
    """
    return save_figure(figure_of(runs, title), path)


def figure_of(runs: Mapping[str, Sequence[Any]], title: str = "") -> Figure:
    """The figure of `learning_curves`."""
    from matplotlib.figure import Figure

    several = {label: [rows] if isinstance(rows[0], dict) else rows for label, rows in runs.items()}
    charts = charts_of([rows[-1] for own in several.values() for rows in own if rows])
    columns = max(1, min(4, 110 // (8 + max(map(len, runs), default=1))))  # of the legend below the axes
    figure = Figure(figsize=(4.5 * len(charts), 3.8 + 0.2 * (len(runs) // columns)), layout="constrained")
    panels = figure.subplots(1, len(charts), squeeze=False)[0]
    for axes, (chart, names) in zip(panels, charts.items(), strict=True):
        for i, (label, own) in enumerate(several.items()):
            _draw_runs(axes, list(zip(*own, strict=False)), names, i, label)
        _finish(axes, chart, names)
    panels[0].plot([], [], "--", color="grey", label="training set")
    figure.legend(*panels[0].get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=columns)
    if title:
        figure.suptitle(title)
    return figure


def charts_of(rows: Sequence[Row]) -> dict[str, list[str]]:
    """The metrics of these rows by chart, as in {"accuracy": ["train_acc", "test_acc"], "loss": ...}."""
    found: dict[str, list[str]] = {}
    for name in columns_of(rows):
        if name != "epoch_time":
            metric = metric_of(name)
            found.setdefault(metric.chart.partition("/")[0] if metric.split else metric.heading, []).append(name)
    return found


def _draw_runs(axes: Any, epochs: Sequence[Sequence[Row]], names: Sequence[str], i: int, label: str) -> None:
    """Draw the curves of one label; `epochs`: for each epoch, the rows of all its runs."""
    look = style(i)
    for name in names:
        complete = [rows for rows in epochs if all(name in row for row in rows)]
        x, values = [rows[0]["epoch"] for rows in complete], [[row[name] for row in rows] for rows in complete]
        means = list(map(fmean, values))
        if metric_of(name).split == "train":
            axes.plot(x, means, "--", color=look["color"], alpha=0.7, linewidth=1.8)
            continue
        if values and len(values[0]) > 1:
            axes.fill_between(x, list(map(min, values)), list(map(max, values)), color=look["color"], alpha=0.2,
                              linewidth=0)  # fmt: skip
        axes.plot(x, means, markersize=4, label=label, linewidth=1.8, **look)


def _finish(axes: Any, chart: str, names: Sequence[str]) -> None:
    """Set scales, ticks and labels of a panel: per cent from 0 to 100, others of which more is better on a linear
    scale, all else on a logarithmic scale."""
    from matplotlib.ticker import LogLocator

    tidy(axes, xlabel="epoch")
    axes.xaxis.get_major_locator().set_params(integer=True)
    metric = metric_of(names[0])
    if metric.unit == "%":
        axes.set(ylabel=f"{chart} (%)", ylim=(0, 100))
        return
    if metric.better == "higher":
        values = [max(v, metric.lowest) for line in axes.lines for v in line.get_ydata()]
        low, high = min(values, default=0), max(values, default=1)
        margin = 0.05 * (high - low or 1)
        axes.set(ylabel=chart, ylim=(low - margin, high + margin))
        return
    axes.set(ylabel=f"{chart} (log scale)", yscale="log")
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 500 * low else (1,)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")
