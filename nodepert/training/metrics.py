"""The metrics of a run. One entry each: training computes it, and every table, figure and file follows.

A row is one epoch of a run, `{"epoch": e, metric: value, ...}`, of plain values.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from statistics import fmean, stdev
from typing import Any, TypeAlias

from nodepert.errors import UserError, did_you_mean
from nodepert.training.measures import Metric as Metric
from nodepert.training.measures import (
    absolute_error,
    alignment,
    correct,
    f1,
    gradient_norm,
    labels_right,
    loss_of,
    mae,
    r2,
    rmse,
    signal_and_noise,
    signal_to_noise,
    squared_error,
    update_norm,
    weight_norm,
)  # fmt: skip

Row: TypeAlias = dict[str, Any]
SAMPLED = 20  # updates per epoch in which an expensive metric is measured, about
CLASSES, LABELS, VALUES = ("classes", "probabilities", "steps"), ("multilabel",), ("values", "series")


def _with_validation(metrics: Mapping[str, Metric]) -> dict[str, Metric]:
    """These metrics and, after each of the test split, the one of the validation split."""
    found: dict[str, Metric] = {}
    for name, metric in metrics.items():
        found[name] = metric
        if metric.split == "test":
            label, heading = metric.label.replace("test", "validation", 1), metric.heading.replace("test", "val", 1)
            chart = metric.chart.replace("/test", "/val")
            found[name.replace("test", "val", 1)] = metric._replace(
                label=label, heading=heading, chart=chart, split="val"
            )
    return found


METRICS: dict[str, Metric] = _with_validation({
    "epoch_time": Metric("time per epoch", "s", "lower", "s/epoch", ".3g", "seconds/epoch"),
    "train_acc": Metric("training accuracy", "%", "higher", "train %", ".2f", "accuracy/train", "train", correct,
                        tasks=CLASSES, score=True),
    "test_acc": Metric("test accuracy", "%", "higher", "test %", ".2f", "accuracy/test", "test", correct,
                       tasks=CLASSES, score=True),
    "train_r2": Metric("training R2", "", "higher", "train R2", ".4f", "R2/train", "train", squared_error, r2,
                       tasks=VALUES, score=True, lowest=0),
    "test_r2": Metric("test R2", "", "higher", "test R2", ".4f", "R2/test", "test", squared_error, r2,
                      tasks=VALUES, score=True, lowest=0),
    "train_rmse": Metric("training RMSE", "", "lower", "train RMSE", ".4g", "RMSE/train", "train", squared_error, rmse,
                         tasks=VALUES),
    "test_rmse": Metric("test RMSE", "", "lower", "test RMSE", ".4g", "RMSE/test", "test", squared_error, rmse,
                        tasks=VALUES),
    "train_mae": Metric("training mean absolute error", "", "lower", "train MAE", ".4g", "MAE/train", "train",
                        absolute_error, mae, on_request=True, tasks=VALUES),
    "test_mae": Metric("test mean absolute error", "", "lower", "test MAE", ".4g", "MAE/test", "test",
                       absolute_error, mae, on_request=True, tasks=VALUES),
    "train_f1": Metric("training F1, mean over examples", "%", "higher", "train F1 %", ".2f", "F1/train", "train",
                       f1, tasks=LABELS, score=True),
    "test_f1": Metric("test F1, mean over examples", "%", "higher", "test F1 %", ".2f", "F1/test", "test",
                      f1, tasks=LABELS, score=True),
    "train_label_acc": Metric("training accuracy per label", "%", "higher", "train label %", ".2f", "labels/train",
                              "train", labels_right, tasks=LABELS),
    "test_label_acc": Metric("test accuracy per label", "%", "higher", "test label %", ".2f", "labels/test", "test",
                             labels_right, tasks=LABELS),
    "train_loss": Metric("training loss", "", "lower", "train loss", ".4g", "loss/train", "train", loss_of),
    "test_loss": Metric("test loss", "", "lower", "test loss", ".4g", "loss/test", "test", loss_of),
    "grad_norm": Metric("norm of the estimated gradient", "", "", "grad norm", ".3g", "gradient/norm",
                        update=gradient_norm, on_request=True),
    "update_norm": Metric("norm of the change of the weights", "", "", "update norm", ".3g", "update/norm",
                          update=update_norm, on_request=True),
    "weight_norm": Metric("norm of the weights", "", "", "weight norm", ".4g", "weights/norm", update=weight_norm,
                          on_request=True),
    "alignment": Metric("cosine of the estimate with the gradient", "", "higher", "alignment", ".3f", "alignment/all",
                        update=alignment, on_request=True, lowest=-1, cost="backpropagation"),
    "signal_to_noise": Metric("signal-to-noise ratio of the estimate", "", "higher", "SNR", ".3g",
                              "signal to noise/all", update=signal_and_noise, shape=(2,), of_mean=signal_to_noise,
                              on_request=True, lowest=0, cost="a further estimate by the rule"),
})  # fmt: skip


def measured(
    requested: Iterable[str] = (), task: str = "classes", validation: bool = False, nodes: Sequence[str] = ()
) -> dict[str, Metric]:
    """The metrics of a run with this task, those of the validation split if it has one: those that are always measured,
    and those requested: "alignment" of all parameters, "alignment/fc0" and "alignment/fc*" of single nodes.

    Raises UserError for unknown names and, where the `nodes` are given, for nodes that the network does not have.
    """
    asked = [name.partition("/") for name in requested]
    for name, slash, pattern in asked:
        if name not in METRICS:
            there = [name for name, metric in METRICS.items() if metric.on_request]
            raise UserError(f"unknown metric '{name}'{did_you_mean(name, there)}; there are: {', '.join(there)}")
        if slash and not METRICS[name].update:
            there = ", ".join(name for name, metric in METRICS.items() if metric.update)
            raise UserError(f"metric '{name}{slash}{pattern}': {name} is not measured per node; these are: {there}")
        if slash and nodes and not any(fnmatchcase(node, pattern) for node in nodes):
            raise UserError(f"metric '{name}{slash}{pattern}' matches no node; the nodes are: {', '.join(nodes)}")
    whole = {name for name, slash, _ in asked if not slash}
    found: dict[str, Metric] = {}
    for name, metric in METRICS.items():
        fits = (not metric.tasks or task in metric.tasks) and (validation or metric.split != "val")
        if fits and (not metric.on_request or name in whole):
            found[name] = metric
        patterns = [pattern for asked_name, slash, pattern in asked if slash and asked_name == name]
        at = [f"{name}/{node}" for node in nodes if any(fnmatchcase(node, p) for p in patterns)]
        found |= {column: metric_of(column) for column in at}
    return found


def scores(names: Iterable[str], split: str = "test") -> list[str]:
    """The metrics among these by which runs are compared: one for each kind of task."""
    names = set(names)
    return [name for name, metric in METRICS.items() if metric.score and metric.split == split and name in names]


def score_of(row: Iterable[str]) -> str:
    """The metric by which a run with such rows is compared; without rows, that of classes."""
    return next(iter(scores(row)), "test_acc")


def best_epoch(rows: Sequence[Row]) -> int:
    """The epoch whose network a run results in: the first with the best score, or loss, on the validation split, and
    without such a split the last."""
    last = len(rows) - 1
    name = next(iter(scores(rows[-1], "val")), "val_loss")
    sign = 1 if metric_of(name).better == "higher" else -1
    values = {e: sign * row[name] for e, row in enumerate(rows) if math.isfinite(row.get(name, math.nan))}
    return max(values, key=lambda e: values[e], default=last)


def final(rows: Sequence[Row]) -> Row:
    """The row of the network that a run results in; an empty one without rows."""
    return rows[best_epoch(rows)] if rows else {}


def main_ones(names: Iterable[str]) -> list[str]:
    """Those of these metrics that a narrow terminal shows: scores of both splits, and what is in per cent."""
    return [name for name in names if metric_of(name).score or metric_of(name).unit == "%"]


def columns_of(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The metrics that these rows have: those of METRICS in its order, then others that a later version wrote."""
    found = dict.fromkeys(name for row in rows for name in row if name != "epoch")
    places = {name: i for i, name in enumerate(METRICS)}
    return sorted(found, key=lambda name: places.get(name.partition("/")[0], len(places)))


def metric_of(name: str) -> Metric:
    """The entry of a metric, as "alignment" or at a node "alignment/fc0"; of a name that this version does not know, a
    plain one."""
    whole, _, node = name.partition("/")
    if not node or whole not in METRICS:
        return METRICS.get(name) or Metric(name, heading=name)
    metric = METRICS[whole]
    chart = f"{metric.chart.partition('/')[0]}/{node}"
    return metric._replace(label=f"{metric.label}, {node}", heading=f"{metric.heading} {node}", chart=chart, node=node)


def in_words(name: str, value: float) -> str:
    """A value with its name and unit, as in "train  93.1%" or "test loss 0.212"."""
    metric = metric_of(name)
    if metric.unit == "%":
        return f"{metric.heading.removesuffix(' %')} {value:5.1f}%"
    return f"{seconds(value)} s" if metric.unit == "s" else f"{metric.heading} {value:{metric.form}}"


def seconds(value: float) -> str:
    """Seconds with three significant digits."""
    return f"{value:.3g}" if value < 999.5 else f"{value:.0f}"


def diverged(row: Row) -> bool:
    """Whether a loss of this row is not finite."""
    return not (math.isfinite(row["train_loss"]) and math.isfinite(row["test_loss"]))


def mean_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard error; (nan, 0) of no values, and an error of 0 of one value."""
    if not values:
        return math.nan, 0.0
    return fmean(values), stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0


def with_error(mean: float | None, error: float | None, form: str = ".4g") -> str:
    """A mean with its error, as in "93.42 ± 0.13": two digits of the error, and as many decimals of the mean.

    `form` is for a mean without error (None); no mean is a dash.
    """
    if mean is None:
        return "-"
    if error is None or not (0 < error < math.inf and math.isfinite(mean)):
        return f"{mean:{form}}" + ("" if error is None else f" ± {error:.2g}")
    last = int(f"{error:.1e}".partition("e")[2]) - 1  # power of ten of the second digit
    if last < -6 or last > 3:
        first = int(f"{mean:.0e}".partition("e")[2])
        return f"{mean:.{max(0, first - last - 1)}e} ± {error:.0e}"
    return f"{round(mean, -last):.{max(0, -last)}f} ± {round(error, -last):.{max(0, -last)}f}"


def finite_or_none(value: Any) -> Any:
    """A value as JSON has it: null for what is not finite."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
