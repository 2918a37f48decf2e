"""Measurements at one update of a rule, node by node: its gradient against the true one, weights, activity."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nodepert.core import Array, Model, Params, differentiate, node_shapes, per_example, recording
from nodepert.diagnostics.reference import by_node
from nodepert.diagnostics.verdict import ALL
from nodepert.errors import UserError
from nodepert.experiments.drawing import COLOURS as PALETTE
from nodepert.experiments.drawing import curve, legend, tidy
from nodepert.experiments.experiment import Experiment, Row
from nodepert.experiments.shared.replaying import Pieces, at, in_pieces
from nodepert.experiments.shared.steps import refuse_adapting
from nodepert.experiments.shared.tables import gathered
from nodepert.experiments.shared.tasks import Task, make_task
from nodepert.training.group import fetched
from nodepert.training.hyper import Hyper
from nodepert.training.metrics import mean_error
from nodepert.training.program import State, standardised

QUANTITIES = {  # columns of the rows; the first group in the network's own units
    "norm": "norm of the rule's gradient",
    "norm_sgd": "norm of the gradient on the same batch, by backpropagation",
    "norm_true": "norm of the true gradient",
    "rule_sgd": "norm of the difference of the first two",
    "rule_true": "norm of the rule's gradient less the true one",
    "sgd_true": "norm of the batch's gradient less the true one",
    "symmetry": "share of components with the sign of the true gradient, in per cent of those that are 0 in neither",
    "symmetry_sgd": "the same, of the batch's gradient",
    "angle": "angle of the rule's gradient to the true one, in degrees",
    "angle_sgd": "the same, of the batch's gradient",
    "weight_norm": "norm of the parameters",
    "weight_variance": "variance of the parameters",
    "activity": "root mean square of the presynaptic activity",
    "loss": "loss on the examples of the true gradient, before the update; of the network as a whole",
    "decrease": "how much the update lowers it",
}
BLACK, COLOURS = PALETTE[-1], PALETTE[:-1]
Measure = Callable[[Pieces, State, Array, int], list[Row]]


def measuring(task: Task, large: int) -> Measure:
    """`measure(run, state, order, batch)`: a row per node, and one of all nodes, of the update that batch would make.

    The true gradient is that of `large` training examples, always the same ones. Raises UserError for too few examples.
    """
    there = len(task.data.train_y)
    if large > there:
        raise UserError(f"large must be at most the {there:,} training examples; got {large}")
    chosen = np.sort(np.random.default_rng(0).choice(there, large, replace=False))
    model, loss = task.model, task.loss
    sample = jax.ShapeDtypeStruct((1, *task.data.train_x.shape[1:]), "float32")

    @partial(jax.jit, static_argnums=(0, 1))
    def measured(grads: Any, step: Any, state: State, numbers: Any, data: Any, order: Array, batch: Any):
        def examples_of(indices):
            return standardised(data, data["train"][0][indices]), data["train"][1][indices]

        indices, params = at(order, batch, task.batchsize), state.params
        few, many = examples_of(indices), examples_of(chosen)
        rule = grads(state, numbers, data, indices)[0]
        after, _ = step(state, numbers, data, indices)
        sgd, true = (differentiate(model, loss, params, some)[0] for some in (few, many))
        x, _ = few
        g, b, t, w = (parts(model, tree, x) for tree in (rule, sgd, true, params))
        z = activities(model, params, x)
        before, then = (per_example(loss, model.apply(p, many[0]), many[1]) for p in (params, after.params))
        found = {name: compared(g[name], b[name], t[name]) | {
            "weight_norm": jnp.linalg.norm(w[name]), "weight_variance": w[name].var(), "activity": z[name],
            "loss": jnp.nan, "decrease": jnp.nan} for name in g}  # fmt: skip
        found[ALL] |= {"loss": before.mean(), "decrease": (before - then).mean()}  # the mean of the differences
        return found

    def measure(run: Pieces, state: State, order: Array, batch: int) -> list[Row]:
        found = fetched(measured(run.pure.grads, run.pure.step, state, run.hyper, run.data, order, batch))
        names = [name for name in node_shapes(model, state.params, sample) if name in found]  # as in the network
        return [{"node": name} | {q: float(found[name][q]) for q in QUANTITIES} for name in [*names, ALL]]

    return measure


@dataclass(frozen=True, kw_only=True)
class Dynamics(Experiment):
    """What experiments share that measure every update, or some of them."""

    rule: str = "np"
    lr: float = 0.01
    dataset: str = "mnist"
    network: str = "fc"
    loss: str = "mse"
    batchsize: int = 100
    epochs: int = 50
    large: int = 2000
    seeds: int = 3

    across = ("seeds",)
    size = (7.0, 8.0)

    def __post_init__(self):
        self.at_least(1, "batchsize", "epochs", "large", "seeds")
        self.positive("lr")
        refuse_adapting((self.rule,))

    @cached_property
    def prepared(self) -> tuple[Callable[[Hyper], Pieces], Measure]:
        """Runs in pieces, and what measures them."""
        task = make_task(self.load, self.dataset, self.network, self.loss, self.batchsize)
        return in_pieces(task, self.epochs), measuring(task, self.large)


def nodes(rows: Sequence[Row]) -> list[str]:
    """The nodes in the rows, in the order of the network."""
    return [name for name in dict.fromkeys(r["node"] for r in rows) if name != ALL]


def parts(model: Model, tree: Params, x: Array) -> dict[str, Array]:
    """{node: its part of a pytree shaped as params, as a vector}, and that of all nodes together."""
    found = by_node(model, tree, x)
    return found | {ALL: jnp.concatenate(list(found.values()))}


def activities(model: Model, params: Params, x: Array) -> dict[str, Array]:
    """{node: root mean square of its presynaptic activity}, and that of all units that project to a node."""
    squares: dict[str, Array] = {}

    def node(name, op, params, h):
        squares[name] = jnp.square(h).reshape(-1)
        return op(params, h)

    model.apply(params, x, recording({}, node))
    return {name: jnp.sqrt(s.mean()) for name, s in (squares | {ALL: jnp.concatenate(list(squares.values()))}).items()}


def compared(rule: Array, sgd: Array, true: Array) -> dict[str, Array]:
    """The columns that compare three gradients of one node."""

    def angle(a):
        return jnp.degrees(jnp.arccos(jnp.clip(a @ true / (jnp.linalg.norm(a) * jnp.linalg.norm(true)), -1, 1)))

    def symmetry(a):
        both = (a != 0) & (true != 0)  # a component that the batch does not touch has no sign
        return 100 * ((jnp.sign(a) == jnp.sign(true)) & both).sum() / both.sum()

    return {
        "norm": jnp.linalg.norm(rule), "norm_sgd": jnp.linalg.norm(sgd), "norm_true": jnp.linalg.norm(true),
        "rule_sgd": jnp.linalg.norm(rule - sgd), "rule_true": jnp.linalg.norm(rule - true),
        "sgd_true": jnp.linalg.norm(sgd - true), "symmetry": symmetry(rule), "symmetry_sgd": symmetry(sgd),
        "angle": angle(rule), "angle_sgd": angle(sgd),
    }  # fmt: skip


# ----------------------------------------------------------------------------------------- drawing

PANELS = (  # quantity, label, whether the axis is logarithmic
    ("norm", "norm of the gradient", True),
    ("angle", "angle to the true\ngradient, degrees", False),
    ("symmetry", "components of the\ntrue sign, %", False),
    ("weight_norm", "norm of the weights\n/ norm at the start", False),
    ("activity", "presynaptic\nactivity, rms", False),
    ("loss", "loss", False),
)
LEVELS = {"angle": 90, "symmetry": 50}  # of a random direction


def draw_panels(figure: Any, rows: Sequence[Row], x: str, xlabel: str, title: str, smooth: int = 1) -> None:
    """Six quantities against the column `x`, one colour per node, black for all; means over what else varies, with
    bands of plus and minus a standard error. `smooth`: points of a running mean, for all but the loss."""
    panels = figure.subplots(3, 2, sharex=True)
    names = nodes(rows)
    colours = dict(zip(names, COLOURS * len(names), strict=False)) | {ALL: BLACK}
    start = {(r["seed"], r["node"]): r["weight_norm"] for r in rows if r[x] == rows[0][x]}
    rows = [r | {"weight_norm": r["weight_norm"] / start[r["seed"], r["node"]]} for r in rows]
    for axes, (quantity, label, log) in zip(panels.flat, PANELS, strict=True):
        width = 1 if quantity == "loss" else smooth
        for node in colours:
            own = [r for r in rows if r["node"] == node]
            line(axes, own, x, quantity, width, color=colours[node], label=node, linewidth=1.5 if node == ALL else 1)
        for other, dashes, words in ((f"{quantity}_sgd", "--", "all nodes, batch gradient"),
                                     (f"{quantity}_true", ":", "all nodes, true gradient")):  # fmt: skip
            if other in QUANTITIES:
                line(axes, own, x, other, width, color=BLACK, linestyle=dashes, label=words, linewidth=1)
        if quantity in LEVELS:
            axes.axhline(LEVELS[quantity], color="grey", linewidth=0.8)
        tidy(axes, ylabel=label, yscale="log" if log else "linear")
        if log:
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter("")
    for axes in panels[-1]:
        axes.set(xlabel=xlabel)
    figure.align_ylabels()
    figure.suptitle(title, fontsize="medium")
    legend(figure, panels[0, 0])


def line(axes: Any, rows: Sequence[Row], x: str, quantity: str, smooth: int, **more: Any) -> None:
    """One quantity of one node, where it is finite."""
    found = {at: mean_error(values) for at, values in gathered(rows, x, quantity).items() if values}
    means = running([m for m, _ in found.values()], smooth)
    curve(axes, list(found), means, running([e for _, e in found.values()], smooth), 0, marker="", **more)


def running(values: Sequence[float], width: int) -> list[float]:
    """Means over the last `width` values, or as many as there are."""
    return [math.fsum(values[max(0, i - width + 1) : i + 1]) / min(i + 1, width) for i in range(len(values))]
