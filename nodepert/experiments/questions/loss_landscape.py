"""The loss around the paths that training takes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nodepert.core import per_example
from nodepert.errors import UserError
from nodepert.experiments.drawing import Picture, style, tidy
from nodepert.experiments.experiment import Experiment, Finding, Part, Row
from nodepert.experiments.shared.looping import followed
from nodepert.experiments.shared.tables import where
from nodepert.experiments.shared.tasks import Task, blank_state, make_hyper, make_task, train
from nodepert.training.program import standardised, task_data
from nodepert.training.replicas import Epoch

SCALES: dict[str, dict[str, Any]] = {
    "smoke": {"dataset": "digits(train=300, test=100)", "network": "fc(width=12)", "epochs": 4, "points": 5},
    "small": {},
    "paper": {"dataset": "mnist", "network": "fc", "epochs": 50, "points": 61, "examples": 10_000},
}


@dataclass(frozen=True, kw_only=True)
class LossLandscape(Experiment):
    """The loss on a plane through the end of each rule's path, all from one initialisation.

    The plane is spanned by the first two principal components of all paths (the parameters after every epoch, of all
    rules, less their mean), filter-normalised: in each direction the incoming weights of a unit are scaled to the norm
    that they have at the end of the first rule's path (Li et al. 2018). A point of the path has the coordinates (a, b)
    of its projection by least squares, and the loss is that at

        params_end + (a - a_end) d1 + (b - b_end) d2

    which at the path's end is the loss of the run itself, exactly. Losses are means over training examples.

    Args:
        rules: Learning rules, a panel each.
        rates: One learning rate for all rules, or one each.
        dataset: Data set.
        network: Network.
        loss: Loss.
        optimizer: Optimizer.
        epochs: Passes over the training data.
        batchsize: Examples per update.
        examples: Training examples over which the loss is averaged; 0 for all of them.
        points: Points of the grid along each axis.
        seed: Seed of weights, shuffling and noise.
    """

    rules: tuple[str, ...] = ("sgd", "np", "dfa")
    rates: tuple[float, ...] = (0.1,)
    dataset: str = "mnist(train=10000, test=2000)"
    network: str = "fc(width=100)"
    loss: str = "mse"
    optimizer: str = "sgd"
    epochs: int = 20
    batchsize: int = 100
    examples: int = 2000
    points: int = 25
    seed: int = 0

    across = ("rules",)
    picture = Picture("epoch", "loss", ("rule",), {"kind": "path"}, log="y")

    def __post_init__(self):
        self.at_least(3, "points")
        self.at_least(2, "epochs")
        self.at_least(1, "batchsize")
        if len(self.rates) not in (1, len(self.rules)):
            raise ValueError(f"rates are one for all {len(self.rules)} rules, or one each; got {len(self.rates)}")

    @property
    def size(self) -> tuple[float, float]:
        return 2.0 * len(self.rules) + 1, 3.4

    @cached_property
    def paths(self) -> tuple[Task, dict[str, list[Any]], np.ndarray, float]:
        """The task, every rule's parameters epoch by epoch, the two directions, (parameters, 2), and what share of the
        variance they explain."""
        task = make_task(self.load, self.dataset, self.network, self.loss, self.batchsize)
        rates = self.rates if len(self.rates) == len(self.rules) else self.rates * len(self.rules)
        found = {}
        for rule, lr in zip(self.rules, rates, strict=True):
            hyper = make_hyper(rule, lr, self.seed, self.optimizer)
            structure = jax.tree.structure(blank_state(task, hyper, self.epochs).params)
            found[rule] = [structure.unflatten(leaves) for leaves in train(task, [hyper], self.epochs, parameters)]
        stacked = np.stack([flat(params) for path in found.values() for params in path])
        if not np.isfinite(stacked).all():
            raise UserError("a run diverged; take a smaller learning rate (rates)")
        _, sizes, axes = np.linalg.svd(stacked - stacked.mean(0), full_matrices=False)
        explained = float(np.square(sizes[:2]).sum() / np.square(sizes).sum())
        end = found[self.rules[0]][-1]
        return task, found, np.stack([filter_normalised(like(axis, end), end) for axis in axes[:2]], 1), explained

    def rows(self, part: Part) -> Iterator[Row]:
        task, found, basis, explained = self.paths
        path = found[part["rule"]]
        first, end = flat(found[self.rules[0]][0]), flat(path[-1])

        def coordinates(params: Any) -> np.ndarray:
            return np.linalg.lstsq(basis, flat(params) - first, rcond=None)[0]

        a_end, b_end = coordinates(path[-1])
        loss_at = mean_loss(task, self.examples)
        for epoch, params in enumerate(path):
            a, b = coordinates(params)
            yield point("path", epoch, a, b, loss_at(params), explained)
        everywhere = np.stack([coordinates(params) for own in found.values() for params in own])
        low, high = everywhere.min(0), everywhere.max(0)
        margin = 0.25 * (high - low).max()
        axes = [np.linspace(low[i] - margin, high[i] + margin, self.points) for i in range(2)]
        grid = list(itertools.product(*axes))

        def loss_of(state: Any, number: int) -> tuple[Any, float]:
            a, b = grid[number - 1]
            moved = end + (a - a_end) * basis[:, 0] + (b - b_end) * basis[:, 1]
            return state, loss_at(like(moved, path[-1]))

        losses = followed(loss_of, (), range(1, len(grid) + 1), "point")
        for (a, b), (_, loss) in zip(grid, losses, strict=True):
            yield point("grid", -1, a, b, loss, explained)

    def draw(self, figure: Any, rows: Sequence[Row]) -> None:
        panels = figure.subplots(1, len(self.rules), sharex=True, sharey=True, squeeze=False)[0]
        finite = [math.log10(r["loss"]) for r in rows if math.isfinite(r["loss"]) and r["loss"] > 0]
        levels = np.linspace(min(finite), np.percentile(finite, 95), 14)
        for i, (rule, axes) in enumerate(zip(self.rules, panels, strict=True)):
            grid, path = (where(rows, rule=rule, kind=kind) for kind in ("grid", "path"))
            side = round(len(grid) ** 0.5)
            a, b, z = (np.array([r[name] for r in grid]).reshape(side, side) for name in ("a", "b", "loss"))
            shown = axes.contourf(a, b, np.log10(z), levels=levels, cmap="cividis", extend="both")
            x, y = ([r[name] for r in path] for name in ("a", "b"))
            axes.plot(x, y, color="white", linewidth=2.5)
            axes.plot(x, y, markersize=3, linewidth=1, color="black", marker=style(i)["marker"])
            axes.plot(x[-1], y[-1], "*", color="white", markeredgecolor="black", markersize=10)
            tidy(axes, xlabel="direction 1", title=f"{rule}\n(ends at {path[-1]['loss']:.3g})")
        panels[0].set_ylabel("direction 2")
        bar = figure.colorbar(shown, ax=list(panels), label="training loss")
        bar.set_ticks(levels[::3], labels=[f"{10**level:.2g}" for level in levels[::3]])

    def findings(self, rows: Sequence[Row]) -> list[Finding]:
        explained = rows[0]["explained"]
        findings = [Finding(f"two directions explain {100 * explained:.0f} % of the variance of the paths",
                            explained > 0.5)]  # fmt: skip
        for rule in self.rules:
            first, *_, last = where(rows, rule=rule, kind="path")
            moved = math.dist(*((r["a"], r["b"]) for r in (first, last)))
            findings.append(Finding(f"{rule}: the loss falls from {first['loss']:.3g} to {last['loss']:.3g}, over a "
                                    f"distance of {moved:.2g}", last["loss"] < first["loss"]))  # fmt: skip
        return findings


def point(kind: str, epoch: int, a: Any, b: Any, loss: float, explained: float) -> Row:
    """A row of the table."""
    return {"kind": kind, "epoch": epoch, "a": float(a), "b": float(b), "loss": loss, "explained": explained}


def parameters(epoch: Epoch) -> list[np.ndarray]:
    """The arrays of the only replica."""
    return jax.device_get(jax.tree.leaves(epoch.state(0).params))


def flat(params: Any) -> np.ndarray:
    """All parameters in one vector, float64."""
    return np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(params)])


def like(vector: np.ndarray, params: Any) -> Any:
    """The vector in the shape of these parameters."""
    leaves, structure = jax.tree.flatten(params)
    parts = np.split(vector, np.cumsum([leaf.size for leaf in leaves])[:-1])
    return structure.unflatten(
        [part.reshape(leaf.shape).astype(leaf.dtype) for part, leaf in zip(parts, leaves, strict=True)]
    )


def filter_normalised(direction: Any, params: Any) -> np.ndarray:
    """The direction, the incoming weights of each unit (the last axis) scaled to the norm that they have in `params`;
    biases are scaled as the direction as a whole."""
    whole = np.linalg.norm(flat(params)) / np.linalg.norm(flat(direction))

    def scaled(d: np.ndarray, w: np.ndarray) -> np.ndarray:
        if d.ndim < 2:
            return d * whole
        axes = tuple(range(d.ndim - 1))
        length, wanted = (np.sqrt(np.square(v).sum(axes, keepdims=True)) for v in (d, w))
        return d * wanted / np.where(length > 0, length, 1)

    return flat(jax.tree.map(scaled, direction, params))


def mean_loss(task: Task, examples: int) -> Any:
    """params -> the mean loss over the first training examples."""
    data = task_data(task.data)
    pixels, labels = (array[: examples if examples > 0 else None] for array in data["train"])
    x, y = standardised({k: jnp.asarray(data[k]) for k in ("mean", "std")}, jnp.asarray(pixels)), jnp.asarray(labels)
    compiled = jax.jit(lambda params: per_example(task.loss, task.model.apply(params, x), y).mean())
    return lambda params: float(compiled(params))
