"""`tune`: a search of learning rates, with the same number of trials for every run, on held-out training examples."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from nodepert.data import Dataset, load_dataset
from nodepert.data.validation import for_tuning
from nodepert.errors import UserError
from nodepert.registry import passes
from nodepert.studies.execution import Execution, execution_of
from nodepert.studies.result import Result
from nodepert.studies.run import Run
from nodepert.studies.train import train
from nodepert.training.metrics import METRICS, diverged, score_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BETWEEN = 1e-5, 1e-1
TRIALS = 4, 60  # fewest and most: more would be closer together than four digits tell
Trial = dict[str, Any]


@dataclass(frozen=True)
class Tuned:
    """A run at the learning rate that was best on the held-out examples, and the trials of the search.

    `trials` are sorted by rate: {"lr", "score", "loss", "status"} after the last epoch, the score (test accuracy, R2,
    F1, by the task) and the loss on the held-out examples. `epochs` and `passes` are what the search cost: epochs of
    training, and forward passes of a batch (None where the rule does not declare them).
    """

    run: Run
    trials: list[Trial]
    metric: str
    epochs: int
    passes: int | None

    @property
    def lr(self) -> float:
        """The best learning rate."""
        return self.run.lr

    @property
    def score(self) -> float:
        """The score at the best learning rate, on the held-out examples."""
        return self._best["score"]

    @property
    def loss(self) -> float:
        """The loss at the best learning rate, on the held-out examples."""
        return self._best["loss"]

    @property
    def _best(self) -> Trial:
        return next(trial for trial in self.trials if trial["lr"] == self.lr)

    @property
    def at_edge(self) -> bool:
        """Whether the best rate is the lowest or the highest that was tried: a better one may be beyond."""
        return self.lr in (self.trials[0]["lr"], self.trials[-1]["lr"])


@overload
def tune(runs: Run, **options: Any) -> Tuned: ...
@overload
def tune(runs: Sequence[Run], **options: Any) -> list[Tuned]: ...
def tune(
    runs: Run | Sequence[Run],
    *,
    trials: int = 12,
    between: tuple[float, float] = BETWEEN,
    data: Dataset | None = None,
    name: str | None = None,
    out: str | Path = "runs",
    execution: Execution | None = None,
    **options: Any,
) -> Tuned | list[Tuned]:
    """Find the learning rate of each run, with the same budget for all.

    A tenth of the training examples is held out, and the score on them decides. Half of the trials are spread over the
    range, evenly in log(lr); a quarter around the best of them; the last quarter around the best so far. Where the best
    rate is at an edge, the next trials go beyond it. Trials of one rule train as replicas of one program.

    Args:
        runs: A `Run`, or several that share a data set. Their own learning rates do not matter.
        trials: Trials of each run, 4 to 60.
        between: Lowest and highest learning rate of the first trials.
        data: The data set, in place of the one that the runs name.
        name: Name of the study that saves the trials; they are read back if the search is repeated. Without one
            nothing is saved.
        out: Folder of all results.
        execution: An `Execution`; its fields are keywords as well:
        **options: data_dir, callbacks, and others as for `train`.

    Returns:
        A `Tuned`, or a list of them: `tuned.run` is the run with the best rate, to be trained on all examples.

    Raises:
        UserError: As `train`, and for a number of trials or a range that is wrong.

    Examples:
        >>> run = npt.Run(dataset="digits(train=200,test=50)", network="fc(width=10)", epochs=1)
        >>> tuned = npt.tune(run, trials=4)
        >>> result = npt.train(tuned.run)
    """
    several = [runs] if isinstance(runs, Run) else list(runs)
    callbacks = options.pop("callbacks", ())
    execution = execution_of(execution, **options)

    def trained(asked: list[Run], data: Dataset) -> list[Result]:
        return train(asked, data=data, callbacks=callbacks, name=name, out=out, execution=execution)

    found = search(several, trials, between, data, execution.data_dir, trained)
    return found[0] if isinstance(runs, Run) else found


def search(
    runs: Sequence[Run], trials: int, between: Sequence[float], data: Dataset | None, data_dir: Path | None,
    trained: Callable[[list[Run], Dataset], list[Result]],
) -> list[Tuned]:  # fmt: skip
    """`tune`, whose trials `trained` trains."""
    low, high = between
    if not TRIALS[0] <= trials <= TRIALS[1]:
        raise UserError(f"a search of learning rates takes from {TRIALS[0]} to {TRIALS[1]} trials; got {trials}")
    if not 0 < low < high < math.inf:
        raise UserError(f"learning rates are searched between a lower and a higher one, both above 0; got {low:g} and "
                        f"{high:g}")  # fmt: skip
    if len({run.dataset for run in runs}) != 1:
        raise UserError("runs that are tuned together share a data set")
    held = for_tuning(data or load_dataset(runs[0].dataset, data_dir))
    first = (trials + 1) // 2
    second = (trials - first + 1) // 2
    done: list[dict[float, Result]] = [{} for _ in runs]
    for count in (first, second, trials - first - second):
        rounds = [[replace(run, lr=lr) for lr in (around(results, count) if results else spread(low, high, count))]
                  for run, results in zip(runs, done, strict=True)]  # fmt: skip
        found = iter(trained([one for own in rounds for one in own], held))
        for own, results in zip(rounds, done, strict=True):
            results.update({one.lr: next(found) for one in own})
    return [_tuned(run, results, len(held.train_y)) for run, results in zip(runs, done, strict=True)]


def spread(low: float, high: float, count: int) -> list[float]:
    """So many learning rates from low to high, evenly in log(lr), with four digits."""
    return [float(f"{lr:.3e}") for lr in np.geomspace(low, high, count)]


def around(results: dict[float, Result], count: int) -> list[float]:
    """So many learning rates between the best one and its neighbours, most on the better side; where it has only one
    neighbour, beyond it, at the same distances."""
    rates = sorted(results)
    at = rates.index(best(results))
    here = rates[at]
    if at in (0, len(rates) - 1):
        ratio = here / rates[1 if at == 0 else at - 1]
        return spread(here * ratio, here * ratio**count, count)
    better, worse = sorted((rates[at - 1], rates[at + 1]), key=lambda rate: quality(results[rate]), reverse=True)
    sides = (better, count - count // 2), (worse, count // 2)
    return [lr for end, n in sides for lr in spread(here, end, n + 2)[1:-1]]


def best(results: dict[float, Result]) -> float:
    """The rate of the best result; of equal ones the lowest."""
    return max(sorted(results), key=lambda rate: quality(results[rate]))


def quality(result: Result) -> tuple[float, float]:
    """What a result is compared by: its score, then its loss; the worst of all where it has diverged."""
    last = result.rows[-1]
    return (-math.inf, -math.inf) if diverged(last) else (result.score, -last["test_loss"])


def _tuned(run: Run, results: dict[float, Result], examples: int) -> Tuned:
    rows = [{"lr": rate, "score": results[rate].score, "loss": results[rate].rows[-1]["test_loss"],
             "status": results[rate].status} for rate in sorted(results)]  # fmt: skip
    epochs, per_step = run.epochs * len(rows), passes(run.rule)
    steps = epochs * math.ceil(examples / run.batchsize)
    metric = score_of(results[rows[0]["lr"]].rows[-1])
    return Tuned(replace(run, lr=best(results)), rows, metric, epochs, per_step and per_step * steps)


def figure_of(tuned: dict[str, Tuned], title: str = "") -> Figure:
    """The scores on the held-out examples against the learning rate, a curve per label, the best rate marked."""
    from matplotlib.figure import Figure

    from nodepert.studies.drawing import style, tidy

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for i, (label, one) in enumerate(tuned.items()):
        sound = [trial for trial in one.trials if math.isfinite(trial["loss"])]
        axes.plot([t["lr"] for t in sound], [t["score"] for t in sound], label=label, markersize=4, **style(i))
        axes.plot(one.lr, one.score, "o", markersize=11, fillstyle="none", color=style(i)["color"])
    metric = METRICS[next(iter(tuned.values())).metric]
    what = metric.chart.partition("/")[0] + (f" ({metric.unit})" if metric.unit else "")
    tidy(axes, xscale="log", xlabel="learning rate (ring: best)", ylabel=f"{what} on held-out examples", title=title)
    axes.legend(frameon=False)
    return figure
