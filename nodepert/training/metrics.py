"""The metrics of a run. One entry each: training computes it, and every table, figure and file follows.

A row is one epoch of a run, `{"epoch": e, metric: value, ...}`, of plain values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any, NamedTuple, TypeAlias

from nodepert.errors import UserError, did_you_mean

Row: TypeAlias = dict[str, Any]


class Metric(NamedTuple):
    """A number that training measures each epoch.

    It is a mean over the examples of a split (`example`), a mean over the updates of the epoch (`update`), or, where
    it has neither, measured by the trainer itself.
    """

    label: str  # in a sentence or on an axis
    unit: str = ""
    better: str = ""  # "higher" or "lower"; "" where neither is
    heading: str = ""  # of a table's column
    form: str = ".4g"  # of a single value in a table
    chart: str = ""  # "group/series": series of one group are drawn in one chart
    split: str = ""  # of `example`: "train" or "test"
    example: Callable[[Any, Any, Any], Any] | None = None  # (outputs, targets, losses (B,)) -> (B,)
    of_mean: Callable[[Any, Any], Any] | None = None  # of an `example` with n values, (B, n): (mean, units) -> ()
    update: Callable[[Any], Any] | None = None  # training.program.Update -> ()
    on_request: bool = False  # measured only where `metrics=` names it
    tasks: tuple[str, ...] = ()  # whose runs have it; () for all
    score: bool = False  # runs of its tasks are compared by it, on the test split
    lowest: float = -math.inf  # in a chart

    @property
    def scale(self) -> float:
        """The factor that converts a mean to `unit`."""
        return 100 if self.unit == "%" else 1

    def value(self, found: float) -> float:
        """A measured value as a row has it: a share in per cent to what float32 counts allow."""
        return round(found, 4) if self.unit == "%" else found


def correct(outputs: Any, targets: Any, losses: Any) -> Any:
    """Whether the largest output is the target class, or the most probable one, (B,)."""
    return (outputs.argmax(-1) == (targets.argmax(-1) if targets.ndim > 1 else targets)).astype("float32")


def loss_of(outputs: Any, targets: Any, losses: Any) -> Any:
    return losses


def labels_right(outputs: Any, targets: Any, losses: Any) -> Any:
    """The share of labels that are right, of an output above 0 for each label, (B,)."""
    return ((outputs > 0) == (targets > 0.5)).mean(-1)


def f1(outputs: Any, targets: Any, losses: Any) -> Any:
    """F1 of the labels of each example, 2 |found and there| / (|found| + |there|), (B,); 1 where there are none."""
    import jax.numpy as jnp

    found, there = outputs > 0, targets > 0.5
    both, total = (found & there).sum(-1), found.sum(-1) + there.sum(-1)
    return jnp.where(total > 0, 2 * both / jnp.maximum(total, 1), 1)


def squared_error(outputs: Any, targets: Any, losses: Any) -> Any:
    """The squared error of each standardised value, (B, n)."""
    return (outputs - targets) ** 2


def absolute_error(outputs: Any, targets: Any, losses: Any) -> Any:
    return abs(outputs - targets)


def r2(mean: Any, units: Any) -> Any:
    """1 - error / variance, of the mean squared errors; mean over the values that are not constant in the split."""
    import jax.numpy as jnp

    varies = units["variance"] > 0
    share = jnp.where(varies, mean / jnp.where(varies, units["variance"], 1), 0)
    return 1 - share.sum() / varies.sum()


def rmse(mean: Any, units: Any) -> Any:
    """Root of the mean squared errors, over all values, in their own units."""
    return (mean * units["std"] ** 2).mean() ** 0.5


def mae(mean: Any, units: Any) -> Any:
    return (mean * units["std"]).mean()


def gradient_norm(update: Any) -> Any:
    """||g||, of the whole estimated gradient."""
    import jax
    import jax.numpy as jnp

    return jnp.sqrt(sum(jnp.square(leaf.astype("float32")).sum() for leaf in jax.tree.leaves(update.grads)))


CLASSES, LABELS, VALUES = ("classes", "probabilities"), ("multilabel",), ("values",)
METRICS: dict[str, Metric] = {
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
}  # fmt: skip


def measured(requested: Iterable[str] = (), task: str = "classes") -> dict[str, Metric]:
    """The metrics of a run with this task: those that are always measured, and those requested.

    Raises UserError for unknown names.
    """
    requested = list(requested)
    for name in requested:
        if name not in METRICS:
            there = [name for name, metric in METRICS.items() if metric.on_request]
            raise UserError(f"unknown metric '{name}'{did_you_mean(name, there)}; there are: {', '.join(there)}")
    return {
        name: metric
        for name, metric in METRICS.items()
        if (not metric.tasks or task in metric.tasks) and (not metric.on_request or name in requested)
    }


def scores(names: Iterable[str], split: str = "test") -> list[str]:
    """The metrics among these by which runs are compared: one for each kind of task."""
    names = set(names)
    return [name for name, metric in METRICS.items() if metric.score and metric.split == split and name in names]


def score_of(row: Iterable[str]) -> str:
    """The metric by which a run with such rows is compared; without rows, that of classes."""
    return next(iter(scores(row)), "test_acc")


def main_ones(names: Iterable[str]) -> list[str]:
    """Those of these metrics that a narrow terminal shows: scores of both splits, and what is in per cent."""
    return [name for name in names if metric_of(name).score or metric_of(name).unit == "%"]


def columns_of(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The metrics that these rows have: those of METRICS in its order, then others that a later version wrote."""
    found = dict.fromkeys(name for row in rows for name in row if name != "epoch")
    return [*(name for name in METRICS if name in found), *(name for name in found if name not in METRICS)]


def metric_of(name: str) -> Metric:
    """The entry of a metric; of a name that this version does not know, a plain one."""
    return METRICS.get(name) or Metric(name, heading=name)


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
