"""The result of `recommend`, as tables and as text."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from nodepert.diagnostics.result import Row, percent
from nodepert.training.metrics import finite_or_none


class Recommendation(NamedTuple):
    """The result of `recommend`: `rows` is a table of plain values, `str` is the finding as text.

    There is a row per form, the plain one first. Its columns are

    - form, rule, guide: a label, the spec, and its guide or ""
    - units: number of perturbed units of an example; residual: squared norm of what noise has to find of the error
      signals (without the outputs' and what a guide predicts), as a share of theirs
    - variance, variance_error: E||g - grad||^2 / ||grad||^2 of one step, measured, and its standard error
    - predicted_variance: the same in closed form, from `units` and `residual` of each example
    - cosine, cosine_error: cosine of one step's estimate with the gradient
    - draws_to_half: number of draws whose mean is predicted to have cosine 1/2 with the gradient
    - gain, gain_error: the variance of the plain form in units of this one; how many times fewer draws do the same
    - predicted_gain: the same, of predicted_variance

    Attributes:
        plain: The plain form, as a spec.
        draws: Steps that were measured.
        steps: Steps in which guides learned.
        rows: The table above.
        nodes: For each map, a row per node that is perturbed alone: form, node, variance and variance_error with one
            draw, in units of the squared norm of the whole gradient, and the draws that it has in the map.
    """

    plain: str
    draws: int
    steps: int
    rows: list[Row]
    nodes: list[Row]

    @property
    def best(self) -> Row:
        """The simplest form (the first row) whose variance is the lowest, within two standard errors."""
        return _lowest(self.rows)

    @property
    def rule(self) -> str:
        """The recommended form, as a spec."""
        return self.best["rule"]

    def __str__(self) -> str:
        best = self.best
        if best is self.rows[0]:
            return f"Recommended: {self.plain}. No form has less variance on this network."
        unguided = _lowest([row for row in self.rows if not row["guide"]])
        lines = [" ".join(self._reasons(best)), f"Recommended: {self._line(best)}"]
        return "\n".join(lines + ([f"Without a guide: {self._line(unguided)}"] if unguided is not best else []))

    def _line(self, row: Row) -> str:
        if row["variance"] == 0:
            return f"{row['rule']}, which is exact, draw by draw."
        return (f"{row['rule']}, {times(row['gain'])} fewer draws than {self.plain} for the same variance "
                f"({times(row['predicted_gain'])} predicted).")  # fmt: skip

    def _reasons(self, best: Row) -> list[str]:
        """A sentence for each part of a form, with the numbers of this network."""
        rows = {row["form"]: row for row in self.rows}
        plain, active, head = rows["plain"], rows["active"], rows["head"]
        form, guide, found = best["form"], best["guide"], []
        if "active" in form:
            share = percent(active["units"] / plain["units"])
            found.append(f"{share} of the perturbed units are active: active=True saves {times(active['gain'])}.")
        if "head" in form:
            share = percent(1 - head["residual"] / plain["residual"])
            found.append(f"The outputs have {share} of the squared norm of the error signals: head=evaluated saves "
                         f"{times(head['gain'])}.")  # fmt: skip
        if guide:
            without = rows[form.removesuffix(f", {guide}")]
            share = percent(best["residual"] / without["residual"])
            found.append(f"guide={guide} leaves {share} of the squared norm of the signals after {self.steps:,} steps: "
                         f"it saves {times(best['gain'] / without['gain'])}.")  # fmt: skip
        if draws := [f"{row['node']} {row['draws']}" for row in self.nodes if row["form"] == form]:
            without = rows["active, head" if "head" in form else "plain"]
            found.append(f"Draws per node ({', '.join(draws)}) save {times(best['gain'] / without['gain'])}.")
        return found

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values for JSON; None for what is nan or infinite."""
        tables = {name: [{k: finite_or_none(v) for k, v in row.items()} for row in getattr(self, name)]
                  for name in ("rows", "nodes")}  # fmt: skip
        return self._asdict() | tables | {"rule": self.rule, "text": str(self)}


def _lowest(rows: list[Row]) -> Row:
    best = min(rows, key=lambda row: row["variance"])

    def beaten(row: Row) -> bool:
        return row["variance"] - best["variance"] > 2 * math.hypot(row["variance_error"], best["variance_error"])

    return next(row for row in rows if not beaten(row))


def times(factor: float) -> str:
    """A factor, as 2.6x or 41x."""
    if factor == math.inf:
        return "all draws"
    return f"{factor:.2g}x" if factor < 10 else f"{factor:,.0f}x"
