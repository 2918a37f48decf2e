"""What a check found, as tables and in words."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

Row = dict[str, Any]
PROMISES = ("exact", "unbiased", "biased")  # from the best to the worst
ALL = "all nodes"


class Check(NamedTuple):
    """What `check` found: `rows` and `steps` are tables of plain values, `str` says it in words.

    A row per node, and last one for "all nodes". With g the exact gradient, g_k the estimate of draw k and m its mean:

    - units, parameters: of the node
    - cosine, cosine_error: of one draw with g, mean and standard error; cosine_mean: of m with g
    - gain, gain_error: <m, g> / ||g||^2 and its standard error; 1 without bias
    - mixing, mixing_error: 0 without bias; 1 for a rule that averages errors and activity over the batch before it
      multiplies them, mean(delta) mean(z)^T; nan where that makes no difference
    - bias, bias_low, bias_high: ||m - g|| / ||g||, less what noise adds to it; from -2 to +2 standard errors
    - variance: of one draw, the sum over parameters, / ||g||^2; norm_ratio: rms ||g_k|| / ||g||
    - draws_to_half: draws whose mean is predicted to have cosine 1/2 with g; inf where no number of them has
    - verdict: exact, unbiased (within error), biased; or "no gradient" where g = 0, and the figures are nan
    """

    rule: str
    draws: int
    rows: list[Row]
    declared: str | None  # exact, unbiased or biased, by the "Bias: ..." of the rule's docstring; None for a Rule
    steps: list[Row]  # difference, sigma, correlation, slope, own: see stepsize.py; none for a rule without sigma
    recommendation: str  # on sigma and difference
    note: str = ""  # what may explain a bias that was not declared

    @property
    def verdict(self) -> str:
        """Of all nodes; biased where one of them is."""
        return self.rows[-1]["verdict"]

    @property
    def agrees(self) -> bool | None:
        """Whether the rule is at least as good as declared; None where nothing is declared, or there is no gradient."""
        if self.declared is None or self.verdict not in PROMISES:
            return None
        return PROMISES.index(self.verdict) <= PROMISES.index(self.declared)

    def __str__(self) -> str:
        said = [f"{self.rule}: {self._finding()}"]
        if self.agrees is False:
            said.append(f"WARNING: {self.rule} is declared {self.declared}, but here it is {self.verdict}.")
        return "\n".join(line for line in (*said, self.note, self.recommendation) if line)

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
        found = t["draws_to_half"]
        half = f"{found:,.0f} draws would have 0.5" if math.isfinite(found) else "any number stays below 0.5"
        noise = f"One draw has cosine {t['cosine']:.2g} with the gradient; the mean of {half}."
        gain = f"gain {t['gain']:.3f} ± {t['gain_error']:.3f}"
        if t["verdict"] == "unbiased":
            coarse = " A gain of 0.8 could hide in this noise: take more draws." if t["gain_error"] > 0.05 else ""
            return f"unbiased within error; {gain}, bias below {percent(t['bias_high'])}, {draws}.{coarse} {noise}"
        mixed = t["mixing"] > 5 * t["mixing_error"] and abs(t["mixing"] - 1) < 3 * t["mixing_error"]
        mixes = " It mixes examples, as mean(delta) mean(z)^T does." if mixed else ""
        span = f"{percent(t['bias_low'])} to {percent(t['bias_high'])}"
        return f"{biased}; {gain}, bias {bias} of the gradient's norm ({span}), {draws}.{mixes} {noise}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; None for what is nan or infinite."""
        rows = [{k: plain(v) for k, v in row.items()} for row in self.rows]
        said = {"verdict": self.verdict, "agrees": self.agrees, "text": str(self)}
        return self._asdict() | {"rows": rows} | said


def plain(value: Any) -> Any:
    """A value as JSON knows it."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def percent(share: float) -> str:
    """A share in per cent: whole, or to two digits."""
    return f"{100 * share:.0f}%" if share >= 0.095 else f"{100 * share:.2g}%"
