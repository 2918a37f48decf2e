"""What a metric is, and what those of `METRICS` measure: functions of examples, of their mean, and of an update."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple


class Metric(NamedTuple):
    """A number that training measures each epoch.

    It is a mean over the examples of a split, in time over all steps that are graded (`example`), a mean over the
    updates of the epoch (`update`), or, where it has neither, measured by the trainer itself.
    """

    label: str  # in a sentence or on an axis
    unit: str = ""
    better: str = ""  # "higher" or "lower"; "" where neither is
    heading: str = ""  # of a table's column
    form: str = ".4g"  # of a single value in a table
    chart: str = ""  # "group/series": series of one group are drawn in one chart
    split: str = ""  # of `example`: "train", "val" or "test"
    example: Callable[[Any, Any, Any], Any] | None = None  # (outputs, targets, losses (B,)) -> (B,), or (B, T)
    of_mean: Callable[[Any, Any], Any] | None = None  # (mean, units) -> (); of an `example` with n values, (B, ..., n)
    update: Callable[[Any], Any] | None = None  # training.updates.Update -> `shape`
    shape: tuple[int, ...] = ()  # of what `update` returns; with a shape, `of_mean` gives the metric
    node: str = ""  # of `update`: measured at this node alone
    cost: str = ""  # what measuring it takes, where that is not negligible
    on_request: bool = False  # measured only where `metrics=` names it
    tasks: tuple[str, ...] = ()  # whose runs have it; () for all
    score: bool = False  # runs of its tasks are compared by it, on the test split
    lowest: float = -math.inf  # in a chart

    @property
    def sampled(self) -> bool:
        """Whether it is measured in some updates of an epoch only, since it has a cost."""
        return bool(self.cost)

    @property
    def scale(self) -> float:
        """The factor that converts a mean to `unit`."""
        return 100 if self.unit == "%" else 1

    def value(self, found: float) -> float:
        """A measured value as a row has it: a share in per cent to what float32 counts allow."""
        return round(found, 4) if self.unit == "%" else found


def correct(outputs: Any, targets: Any, losses: Any) -> Any:
    """Whether the largest output is the target class, or the most probable one, (B,); for class indices in time,
    (B, T), where a step that is not graded, -1, counts as wrong."""
    return (outputs.argmax(-1) == (targets.argmax(-1) if targets.dtype.kind == "f" else targets)).astype("float32")


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
    """The squared error of each standardised value, (B, n); in time (B, T, n), 0 where a step is not graded."""
    return absolute_error(outputs, targets, losses) ** 2


def absolute_error(outputs: Any, targets: Any, losses: Any) -> Any:
    from nodepert.core import as_values

    return abs(outputs - as_values(targets, outputs))


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


def dot(a: Any, b: Any) -> Any:
    """The inner product of two pytrees, in float32."""
    import jax

    products = jax.tree.map(lambda u, v: (u.astype("float32") * v.astype("float32")).sum(), a, b)
    return sum(jax.tree.leaves(products))


def norm(tree: Any) -> Any:
    return dot(tree, tree) ** 0.5


def gradient_norm(update: Any) -> Any:
    """||g||, of the estimated gradient."""
    return norm(update.grads)


def update_norm(update: Any) -> Any:
    """||W' - W||."""
    return norm(update.updates)


def weight_norm(update: Any) -> Any:
    """||W||, before the update."""
    return norm(update.params)


def alignment(update: Any) -> Any:
    """<g, grad L> / (||g|| ||grad L||) on the examples of the update; 0 where one of them is 0."""
    import jax.numpy as jnp

    exact = update.exact()
    size = norm(update.grads) * norm(exact)
    return jnp.where(size > 0, dot(update.grads, exact) / jnp.where(size > 0, size, 1), 0)


def signal_and_noise(update: Any) -> Any:
    """(<g, g'>, ||g - g'||^2 / 2) of two independent estimates: unbiased for ||E g||^2 and E ||g - E g||^2."""
    import jax
    import jax.numpy as jnp

    again = update.again()
    difference = jax.tree.map(jnp.subtract, update.grads, again)
    return jnp.stack([dot(update.grads, again), dot(difference, difference) / 2])


def signal_to_noise(mean: Any, units: Any) -> Any:
    """||E g|| / sqrt(E ||g - E g||^2); 0 where the signal is below what these estimates resolve."""
    import jax.numpy as jnp

    signal, noise = mean
    return jnp.sqrt(jnp.maximum(signal, 0) / noise)
