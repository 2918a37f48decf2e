"""The result of a check, as tables and as text."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from nodepert.diagnostics.declared import BIASES
from nodepert.diagnostics.verdict import ALONG, IN_ALL
from nodepert.training.metrics import finite_or_none

Row = dict[str, Any]


class Check(NamedTuple):
    """The result of `check`: `rows` and `steps` are tables of plain values, `str` is the finding as text.

    There is a row per node, and a last one for "all nodes". With g the exact gradient, g_k the estimate of draw k and
    m the mean of all draws, its columns are

    - units, parameters: their number at the node
    - cosine, cosine_error: cosine of one draw with g, mean and standard error; cosine_mean: of m with g
    - gain, gain_error: <m, g> / ||g||^2 and its standard error; 1 without bias
    - mixing, mixing_error: 0 without bias; 1 for a rule that averages errors and activity over the batch before it
      multiplies them, mean(delta) mean(z)^T; nan where that makes no difference
    - bias, bias_low, bias_high: ||m - g|| / ||g|| without the contribution of noise; from -2 to +2 standard errors
    - variance: of one draw, summed over parameters, / ||g||^2; norm_ratio: rms ||g_k|| / ||g||
    - draws_to_half: number of draws whose mean is predicted to have cosine 1/2 with g; inf where no number has
    - draws_to_decide: number of draws after which a rule without bias would be found unbiased, not undecided
    - verdict: exact, biased, unbiased (within error) or undecided. Unbiased: no bias is found, a gain of 0.8 or 1.2
      (and as large a bias of mixing) is excluded, and bias_high is at most 0.5. Undecided: no bias is found, but these
      draws are too few to exclude so much. "no gradient" where g = 0, and the other columns are nan

    Attributes:
        rule: The rule, as a spec.
        draws: Number of draws.
        rows: The table above.
        declared: exact, unbiased or biased, from the "Bias: ..." of the rule's docstring; None for a Rule.
        steps: The table of `sigma.step_study` (difference, sigma, correlation, slope, own); empty for a rule without
            sigma.
        recommendation: Advice on sigma and difference; empty for a rule without sigma.
        note: What may explain a bias that was not declared.
        about: What the gradient is, where it is not the exact one but that of the smoothed loss.
    """

    rule: str
    draws: int
    rows: list[Row]
    declared: str | None
    steps: list[Row]
    recommendation: str
    note: str = ""
    about: str = ""

    @property
    def verdict(self) -> str:
        """Of all nodes together; biased where one of them is."""
        return self.rows[-1]["verdict"]

    @property
    def agrees(self) -> bool | None:
        """Whether the rule is at least as good as declared; None where nothing is declared, there is no gradient, or
        the verdict is undecided."""
        if self.declared is None or self.verdict not in BIASES:
            return None
        return BIASES.index(self.verdict) <= BIASES.index(self.declared)

    def __str__(self) -> str:
        text = [f"{self.rule}: {self._finding()}"]
        if self.agrees is False:
            text.append(f"WARNING: {self.rule} is declared {self.declared}, but here it is {self.verdict}.")
        return "\n".join(
            line for line in (*text, self._undecided(), self.about, self.note, self.recommendation) if line
        )

    def _undecided(self) -> str:
        """The nodes, or all of them together, that need more draws, and how many."""
        rows = [row for row in self.rows if row["verdict"] == "undecided"]
        if not rows:
            return ""
        draws = max(row["draws_to_decide"] for row in rows)
        where = ", ".join(row["node"] for row in rows)
        hidden = f"a bias of {percent(ALONG)} along the gradient, or {percent(IN_ALL)} in all, could hide in this noise"
        return f"Undecided at {where}: {hidden}; take about {draws:,.0f} draws."

    def _finding(self) -> str:
        t, draws = self.rows[-1], f"by {self.draws:,} draws"
        if t["verdict"] == "no gradient":
            return "nothing to compare with, as the true gradient is zero at every node."
        if t["verdict"] == "exact":
            return f"exact; all {self.draws:,} draws are the gradient, to rounding."
        where = ", ".join(row["node"] for row in self.rows[:-1] if row["verdict"] == "biased")
        biased, bias = f"biased (at {where})" if where else "biased", percent(t["bias"])
        if t["variance"] == 0:
            return f"{biased}, without noise; cosine with the gradient {t['cosine']:.2g}, bias {bias} of its norm."
        k = t["draws_to_half"]
        half = f"{k:,.0f} draws would have 0.5" if math.isfinite(k) else "any number stays below 0.5"
        noise = f"One draw has cosine {t['cosine']:.2g} with the gradient; the mean of {half}."
        gain = f"gain {t['gain']:.3f} ± {t['gain_error']:.3f}"
        if t["verdict"] != "biased":
            verdict = "unbiased within error" if t["verdict"] == "unbiased" else "undecided"
            return f"{verdict}; {gain}, bias below {percent(t['bias_high'])}, {draws}. {noise}"
        mixed = t["mixing"] > 5 * t["mixing_error"] and abs(t["mixing"] - 1) < 3 * t["mixing_error"]
        mixes = " It mixes examples, as mean(delta) mean(z)^T does." if mixed else ""
        span = f"{percent(t['bias_low'])} to {percent(t['bias_high'])}"
        return f"{biased}; {gain}, bias {bias} of the gradient's norm ({span}), {draws}.{mixes} {noise}"

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values for JSON; None for what is nan or infinite."""
        rows = [{k: finite_or_none(v) for k, v in row.items()} for row in self.rows]
        return self._asdict() | {"rows": rows, "verdict": self.verdict, "agrees": self.agrees, "text": str(self)}


def percent(share: float) -> str:
    """A share in per cent: as a whole number, or to two digits."""
    return f"{100 * share:.0f}%" if share >= 0.095 else f"{100 * share:.2g}%"
