"""Which losses should answer for the noise of a time step: bias, variance and learning, by the length of a sequence."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nodepert.contract.loops import scan
from nodepert.core import Array, Loss, Model, Node, Params, backprop, plain
from nodepert.diagnostics.declared import bias_of_spec
from nodepert.experiments.drawing import Picture, curve, legend, mean_curve, tidy
from nodepert.experiments.experiment import Experiment, Finding, Part, Row, combinations
from nodepert.experiments.shared.cosines import vector
from nodepert.experiments.shared.looping import followed
from nodepert.experiments.shared.tables import best_rate, finite, means, where
from nodepert.experiments.shared.tasks import curves, make_hyper, make_task
from nodepert.registry import check, make
from nodepert.rules.directional import ROWS_AT_ONCE
from nodepert.rules.noise import key_of
from nodepert.training.losses import linear_mse
from nodepert.training.metrics import mean_error

UNIT, RNN, LEARNING = "linear unit", "rnn", "learning"
AT_ONCE = 256  # draws in one program
APART = 3  # times what noise alone would show, from which on there is a bias
COLUMNS = ("bias", "resolution", "variance", "law_bias", "law_variance", "lr", "seed", "epoch", "loss")
SCALES: dict[str, dict[str, Any]] = {
    "smoke": {"credits": ("own",), "steps": (3,), "draws": 512, "batchsize": 4, "width": 4,
              "dataset": "copying(length=1, delay=1, symbols=3, train=60, test=20)", "lrs": (1e-2,), "epochs": 2,
              "seeds": 2},
    "small": {},
    "paper": {"steps": (1, 3, 10, 30, 100, 300), "draws": 131_072, "width": 100, "dataset": "copying", "epochs": 200},
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class CreditInTime(Experiment):
    """Noise xi_t on the pre-activation a_t, with c_t the change of the losses that answer for it, gives the signal
    s_t = c_t xi_t, whose mean is d(c_t)/d(a_t). One linear unit

        a_t = w a_{t-1} + x_t,    a_0 = 1,    L_t = a_t^2 / 2,    c_t = sum_t' M_tt' dL_t'

    has the gradient estimate sum_t s_t a_{t-1} = xi^T H xi with H = diag(a_{t-1}) M diag(a) A, A_t't = w^(t'-t) for
    t' >= t. For Gaussian noise and exact slopes its mean is tr H, and its variance tr H H + tr H H^T. M is the unit
    matrix for own, all ones for trial, and gamma^(t'-t) for t' >= t for future. A recurrent network that learns to
    imitate the unit is measured beside it, at initialisation. Bias is in units of the norm of the gradient, variance
    in units of its square.

    Args:
        credits: Which losses answer for noise.
        steps: Lengths of a sequence.
        w: Weight of the linear unit.
        batchsize: Sequences of standard normal inputs in the batch, and sequences per update.
        width: Units of the recurrent network.
        draws: Estimates from which a mean and a variance are measured, a multiple of 256.
        dataset: Data set of the learning curves, with a target for every time step.
        samples: Draws per update of the learning curves.
        optimizer: Optimizer.
        lrs: Learning rates; each credit has its best one.
        epochs: Passes over the training data.
        seeds: Runs at each learning rate.
    """

    credits: tuple[str, ...] = ("own", "future", "trial", "future(gamma=0.7)")
    steps: tuple[int, ...] = (1, 3, 10, 30, 100)
    w: float = 0.9
    batchsize: int = 10
    width: int = 20
    draws: int = 32_768
    dataset: str = "copying(length=3, delay=2, symbols=6, train=1000)"
    samples: int = 8
    optimizer: str = "adam"
    lrs: tuple[float, ...] = (3e-3, 1e-2)
    epochs: int = 40
    seeds: int = 3

    size = (7.0, 4.4)
    picture = Picture("steps", "variance", ("credit",), {"measure": UNIT}, log="xy")

    def __post_init__(self):
        self.at_least(1, "steps", "batchsize", "width", "samples", "epochs", "seeds")
        self.require(lambda n: n > 0 and n % AT_ONCE == 0, f"a multiple of {AT_ONCE}", "draws")
        self.positive("lrs")
        self.require(lambda w: 0 < abs(w) <= 1, "in [-1, 1] and not 0", "w")
        for credit in self.credits:
            make("credit", credit)

    @property
    def parts(self) -> list[Part]:
        found = combinations(credit=[str(check("credit", c)) for c in self.credits], steps=[0])
        measured = combinations(measure=(UNIT, RNN), credit=[p["credit"] for p in found], steps=self.steps)
        return [*({"measure": LEARNING} | part for part in found), *measured]

    def rows(self, part: Part) -> Iterator[Row]:
        found = self.learning(part["credit"]) if part["measure"] == LEARNING else [self.measured(**part)]
        for row in found:
            yield {column: row.get(column, math.nan) for column in COLUMNS}

    def learning(self, credit: str) -> Iterator[Row]:
        """Learning curves on the data set."""
        network = f"rnn(width={self.width}, readout=every)"
        task = make_task(self.load, self.dataset, network, "by-target", self.batchsize, any_target=True)
        rule = f"np(samples={self.samples}, credit={credit})"
        hypers = [make_hyper(rule, lr, seed, self.optimizer) for lr in self.lrs for seed in range(self.seeds)]
        for hyper, run in zip(hypers, curves(task, hypers, self.epochs), strict=True):
            for row in run:
                yield {"lr": hyper.lr, "seed": hyper.seed, "epoch": row["epoch"], "loss": row["train_loss"]}

    def measured(self, measure: str, credit: str, steps: int) -> Row:
        """Bias and variance on sequences of so many steps, and what the law says of them."""
        x = jax.random.normal(key_of(0), (self.batchsize, steps, 1))
        unit = linear_unit(self.w)
        a = unit.apply({"w": jnp.float32(self.w)}, x)
        if measure == UNIT:
            return deviations(unit, half_square, (x, a), credit, self.draws) | law(self.w, np.asarray(a), credit)
        model = make("network", f"rnn(width={self.width}, readout=every)", (steps, 1), 1)
        return deviations(model, linear_mse, (x, a), credit, self.draws)

    def draw(self, figure: Any, rows: Sequence[Row]) -> None:
        places = [[f"{measure}, {of}" for measure in (UNIT, RNN)] + [LEARNING] for of in ("bias", "variance")]
        panels = figure.subplot_mosaic(places, width_ratios=(1, 1, 1.3))
        credits = list(dict.fromkeys(row["credit"] for row in rows))
        for i, credit in enumerate(credits):
            for measure in (UNIT, RNN):
                own = sorted(where(rows, measure=measure, credit=credit), key=lambda r: r["steps"])
                for of in ("bias", "variance"):
                    axes, at = panels[f"{measure}, {of}"], [r["steps"] for r in own]
                    if measure == UNIT:
                        curve(axes, at, [r[f"law_{of}"] for r in own], None, i, marker="")
                    curve(axes, at, [r[of] for r in own], None, i, **({"linestyle": ""} if measure == UNIT else {}))
            mean_curve(panels[LEARNING], means(self.best(rows, credit), "epoch", "loss"), i, credit, marker="")
        tidy(panels[LEARNING], xlabel="epoch", ylabel="training loss per step", yscale="log")
        for name, axes in panels.items():
            axes.set_title(name.split(",")[0], fontsize=9)
            if name != LEARNING:
                tidy(axes, xscale="log", yscale="log" if "variance" in name else "linear")
                axes.set_xticks(self.steps, map(str, self.steps), fontsize=8)
                axes.minorticks_off()
                axes.set_xlabel("steps T" if "variance" in name else "")
        panels[f"{UNIT}, bias"].set_ylabel("bias / gradient")
        panels[f"{UNIT}, variance"].set_ylabel("variance / gradient$^2$")
        legend(figure, panels[LEARNING])

    def best(self, rows: Sequence[Row], credit: str) -> list[Row]:
        """Learning curves at the learning rate with the lowest mean loss at the end."""
        own = where(rows, measure=LEARNING, credit=credit)
        return where(own, lr=best_rate(own, "loss", epoch=self.epochs))

    def findings(self, rows: Sequence[Row]) -> list[Finding]:
        off = max(abs(r["variance"] / r["law_variance"] - 1) for r in where(rows, measure=UNIT))
        found = [Finding(f"{UNIT}: the largest deviation of a variance from the law is {off:.1%}", off < 0.2)]
        last, ends = max(self.steps), {}
        for credit in dict.fromkeys(row["credit"] for row in rows):
            ends[credit] = mean_error(finite(where(self.best(rows, credit), epoch=self.epochs), "loss"))[0]
            unit, rnn = (where(rows, measure=m, credit=credit, steps=last)[0] for m in (UNIT, RNN))
            biased = bias_of_spec(check("rule", f"np(credit={credit})")) == "biased"
            apart = [r["bias"] > APART * r["resolution"] for r in (unit, rnn)]
            says = ", ".join(f"{r['bias']:.2g} ± {r['resolution']:.1g} ({r['measure']})" for r in (unit, rnn))
            found.append(Finding(f"{credit}, {last} steps: bias over gradient {says}; the law of the unit says "
                                 f"{unit['law_bias']:.2g}", apart == [biased] * 2))  # fmt: skip
        return [*found, *self.compared(rows, last), *self.learned(ends)]

    def compared(self, rows: Sequence[Row], last: int) -> Iterator[Finding]:
        """The variance of trial beside that of future."""
        for measure in (UNIT, RNN):
            both = [where(rows, measure=measure, credit=c, steps=last) for c in ("trial", "future")]
            if all(both):
                ratio = both[0][0]["variance"] / both[1][0]["variance"]
                yield Finding(f"{measure}, {last} steps: trial has {ratio:.2g} times the variance of future", ratio > 1)

    def learned(self, ends: dict[str, float]) -> Iterator[Finding]:
        """The losses after training."""
        listed = ", ".join(f"{credit} {end:.3g}" for credit, end in ends.items())
        holds = all(ends[c] >= ends["future"] for c in ("own", "trial") if {c, "future"} <= {*ends})
        yield Finding(f"training loss per step after {self.epochs} epochs: {listed}", holds)


def linear_unit(w: float) -> Model:
    """a_t = w a_{t-1} + x_t from a_0 = 1, (B, T, 1), with one node."""

    def apply(params: Params, x: Array, node: Node = plain) -> Array:
        def step(node: Node, a: Array, x: Array) -> tuple[Array, Array]:
            a = node("unit", lambda w, a: w * a, params["w"], a) + x
            return a, a

        return scan(step, node, jnp.ones_like(x[:, 0]), x)[1]

    return Model(lambda key: {"w": jnp.float32(w)}, apply)


def half_square(outputs: Array, targets: Array) -> Array:
    return jnp.square(outputs).sum(-1) / 2


def law(w: float, a: np.ndarray, credit: str) -> Row:
    """Bias and variance of the estimate of dL/dw on activity a, (B, T, 1), in units of the gradient."""
    batch, steps, _ = a.shape
    parts = np.broadcast_to(make("credit", credit)(jnp.eye(steps), jnp.zeros((steps, steps, 1))).T, (steps, steps))
    lag = np.subtract.outer(np.arange(steps), np.arange(steps))
    passed = np.where(lag >= 0, float(w) ** np.maximum(lag, 0), 0)  # A
    before = np.concatenate([np.ones((batch, 1)), a[:, :-1, 0]], 1)

    def product(parts: Any) -> np.ndarray:  # H of every sequence
        return before[:, :, None] * np.einsum("ts,bs,sj->btj", parts, a[..., 0], passed)

    h, gradient = product(parts), np.trace(product(np.ones((steps, steps))), axis1=1, axis2=2).mean()
    off = np.trace(h, axis1=1, axis2=2).mean() - gradient
    variance = (np.einsum("btj,bjt->", h, h) + np.einsum("btj,btj->", h, h)) / batch**2
    return {"law_bias": float(abs(off / gradient)), "law_variance": float(variance / gradient**2)}


def deviations(model: Model, loss: Loss, batch: Any, credit: str, draws: int) -> Row:
    """Bias and variance of np with exact slopes, and the bias that noise alone would show (resolution)."""
    rule = make("rule", f"np(difference=jvp, credit={credit})", model, loss)
    params = jax.jit(model.init)(key_of(1))

    @jax.jit
    def some(number: Array) -> tuple[Array, Array]:
        def one(i: Array) -> Array:
            return vector(rule.grads(jax.random.fold_in(key_of(2), number * AT_ONCE + i), (), params, batch)[0])

        off = jax.lax.map(one, jnp.arange(AT_ONCE), batch_size=side_by_side) - exact
        return off.mean(0), jnp.square(off).sum(1).mean()

    side_by_side = min(AT_ONCE, max(1, ROWS_AT_ONCE // batch[1].size))
    exact = jax.jit(lambda: vector(backprop(model, loss).grads(key_of(2), (), params, batch)[0]))()
    loop = followed(lambda state, i: (state, some(i - 1)), (), range(1, draws // AT_ONCE + 1), f"{AT_ONCE} draws")
    means, squares = (np.asarray(part, np.float64) for part in zip(*(found for _, found in loop), strict=True))
    off, norm = means.mean(0), float(np.square(np.asarray(exact, np.float64)).sum())
    variance = (squares.mean() - off @ off) * draws / (draws - 1)
    bias = max(off @ off - variance / draws, 0)
    return {"bias": math.sqrt(bias / norm), "resolution": math.sqrt(variance / draws / norm),
            "variance": float(variance / norm)}  # fmt: skip
