"""Forms of node perturbation at fixed weights: the variance of each, measured and predicted."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import jax
import numpy as np

from nodepert import registry
from nodepert.core import Array, Key, Loss, Model, Params, Rule
from nodepert.diagnostics.allocation import allocated, mapped
from nodepert.diagnostics.bias import mean_and_error
from nodepert.diagnostics.gradient_check import Progress, estimator
from nodepert.diagnostics.moments import Moments, Vectors, sample, together
from nodepert.diagnostics.reference import Batch
from nodepert.diagnostics.result import Row
from nodepert.diagnostics.variance import Spread, of_gradient, spread
from nodepert.diagnostics.verdict import draws_to_half
from nodepert.errors import UserError
from nodepert.registry.spec import Spec
from nodepert.rules.between import between

SIGNS = 40  # draws by which the variance of signals is carried to that of the gradient
ROUNDING = 1e-6  # a variance below this is none: it is a difference of squared norms in float32


@dataclass(frozen=True, eq=False)
class Comparison:
    """What all forms have in common."""

    model: Model
    loss: Loss
    params: Params
    batch: Batch  # that is measured
    others: Batch  # on which guides learn
    exact: Vectors  # the gradient on `batch`
    samples: int  # draws of a step
    steps: int  # in which guides learn
    size: int  # steps of a group that is measured
    key: Key

    def table(self, forms: dict[str, Spec], progress: Progress) -> tuple[list[Row], list[Row]]:
        """(rows, nodes): a row for each form and each map, with the first form as unit of gain; and one for each node
        of a map. Raises UserError for a gradient that is zero or not finite, and for an estimate that is not finite."""
        if not 0 < self.norm < math.inf:
            raise UserError(f"there is no gradient to compare with: on this batch its norm is {self.norm:g}")
        maps = self.maps(forms)
        nodes = [row for label, (form, still) in maps.items() for row in self.allocation(label, form, still)]
        for label, (form, still) in maps.items():
            draws = {row["node"]: row["draws"] for row in nodes if row["form"] == label}
            forms = forms | {label: mapped(form, draws, still)}
        rows, states = [], {}
        for label, form in forms.items():
            row, states[label] = self.measured(form, self.key_of(label))
            rows.append({"form": label} | row)
            progress(len(rows), len(forms))
        predicted = self.predicted(forms, states)
        rows = [row | predicted[row["form"]] for row in rows]
        return [row | gains(row, rows[0]) for row in rows], nodes

    def maps(self, forms: dict[str, Spec]) -> dict[str, tuple[Spec, list[str]]]:
        """{label: (form of each node, nodes that are not perturbed)}, of the maps for which there are enough draws."""
        last = list(self.cut.last)
        found = {"draws per node": (forms["plain"], []), "draws per node, active, head": (forms["active"], last)}
        count = len(self.cut.a)
        return {
            label: (form, still) for label, (form, still) in found.items() if 1 < count - len(still) <= self.samples
        }

    @cached_property
    def cut(self) -> Any:
        return between(self.model, self.params, self.batch[0][:1])

    @cached_property
    def norm(self) -> float:
        """Of the gradient of all nodes."""
        return math.hypot(*(float(np.linalg.norm(np.asarray(g, np.float64))) for g in self.exact.values()))

    def key_of(self, use: str) -> Key:
        return jax.random.fold_in(self.key, zlib.crc32(use.encode()))

    def measured(self, form: Spec, key: Key) -> tuple[Row, Any]:
        """The columns that are measured of a form, and the state at which it is."""
        learning, noise = jax.random.split(key)
        guide = dict(form.kwargs).get("guide", "")
        rule = registry.make("rule", form, self.model, self.loss)
        state = self.learned(rule, bool(guide), learning)
        total = together(self.sampled(rule, state, noise))
        variance, error = mean_and_error(excess(total))
        cosine, cosine_error = mean_and_error(total.along / np.where(total.square > 0, np.sqrt(total.square), 1))
        if not math.isfinite(variance):
            raise UserError(f"the estimate of '{form}' is not finite")
        variance, error = (variance, error) if variance > ROUNDING else (0.0, 0.0)
        values = {"variance": variance, "variance_error": error, "cosine": cosine, "cosine_error": cosine_error,
                  "draws_to_half": draws_to_half(1, 0, self.samples * variance)}  # fmt: skip
        return {"rule": str(form), "guide": str(guide)} | {k: float(v) for k, v in values.items()}, state

    def predicted(self, forms: dict[str, Spec], states: dict[str, Any]) -> dict[str, Row]:
        """{label: the columns that are predicted}."""

        @jax.jit  # one program: the clean pass is the same
        def found(states: Any, params: Params, batch: Batch) -> dict[str, Spread]:
            return {label: spread(self.model, self.loss, form, states[label], params, batch)
                    for label, form in forms.items()}  # fmt: skip

        of = jax.jit(partial(of_gradient, self.model, draws=SIGNS))
        rows = {}
        for label, part in found(states, self.params, self.batch).items():
            variance = of(self.params, self.batch[0], part.deviation, self.key_of("signs"))
            rows[label] = {"units": float(part.units), "residual": float(part.residual),
                           "predicted_variance": float(sum(variance.values())) / self.norm**2}  # fmt: skip
        return rows

    def allocation(self, label: str, form: Spec, still: list[str]) -> list[Row]:
        """The variance of each node with one draw, where it is perturbed alone, and the draws that it should have."""
        ones = mapped(form, {name: 1 for name in self.cut.a if name not in still}, still)
        first, noise = jax.random.split(self.key_of(f"nodes, {label}"))
        rule = registry.make("rule", ones, self.model, self.loss)
        moments = self.sampled(rule, rule.init(first, self.params, self.batch[0][:1]), noise)
        variance = {name: mean_and_error(excess(m) * ((m.norm or 1) / self.norm) ** 2) for name, m in moments.items()
                    if name not in still}  # fmt: skip
        draws = allocated({name: mean for name, (mean, _) in variance.items()}, self.samples)
        return [{"form": label, "node": name, "variance": mean, "variance_error": error, "draws": draws[name]}
                for name, (mean, error) in variance.items()]  # fmt: skip

    def learned(self, rule: Rule, guided: bool, key: Key) -> Any:
        """The state of a rule at these weights: that of a guide after some steps."""
        first, order, noise = jax.random.split(key, 3)
        state = rule.init(first, self.params, self.others[0][:1])

        @jax.jit
        def after(state: Any, params: Params, others: Batch) -> Any:
            x, y = others

            def step(i: Array, state: Any) -> Any:
                chosen = jax.random.randint(jax.random.fold_in(order, i), (len(self.batch[0]),), 0, len(x))
                return rule.grads(jax.random.fold_in(noise, i), state, params, (x[chosen], y[chosen]))[1]

            return jax.lax.fori_loop(0, self.steps, step, state)

        return after(state, self.params, self.others) if guided else state

    def sampled(self, rule: Rule, state: Any, key: Key) -> dict[str, Moments]:
        """The moments of the estimates, node by node."""
        draw, given = estimator(rule, self.model, state, self.params, self.batch, key, warmup=0)
        return sample(draw, given, self.exact, self.exact, self.size, lambda drawn, of: None)


def excess(m: Moments) -> np.ndarray:
    """||g_k - g||^2 of each draw, in units of ||g||^2."""
    return m.square - 2 * m.along + (m.norm > 0)


def gains(row: Row, base: Row) -> Row:
    """How many times less variance a form has than the plain one: measured, with its standard error, and predicted."""
    if row is base:
        return {"gain": 1.0, "gain_error": 0.0, "predicted_gain": 1.0}
    gain, predicted = (base[v] / row[v] if row[v] > 0 else math.inf for v in ("variance", "predicted_variance"))
    relative = math.hypot(*(r["variance_error"] / r["variance"] if r["variance"] > 0 else 0 for r in (row, base)))
    return {"gain": gain, "gain_error": gain * relative if gain < math.inf else 0.0, "predicted_gain": predicted}
