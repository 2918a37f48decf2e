"""Experiments that compute nothing: for tests of how experiments are executed, saved and called."""

from dataclasses import dataclass

import numpy as np

from nodepert.experiments import Experiment, Finding
from nodepert.experiments.shared.looping import followed

SCALES = {"smoke": {"sizes": (1, 2)}, "small": {}, "paper": {"sizes": (1, 2, 3, 4)}}


@dataclass(frozen=True, kw_only=True)
class Toy(Experiment):
    """Multiples of a size.

    Args:
        sizes: Sizes, one part each.
        factor: Multiplier.
        count: Rows of each part.
    """

    sizes: tuple[int, ...] = (1, 2, 3)
    factor: float = 0.1
    count: int = 3

    across = ("sizes",)

    def __post_init__(self):
        self.at_least(1, "sizes", "count")
        self.positive("factor")

    def rows(self, part):
        for i in range(self.count):
            yield {"i": i, "label": f"row {i}", "value": self.factor * i * part["size"], "none": float("nan")}

    def draw(self, figure, rows):
        figure.subplots().plot([row["i"] for row in rows], [row["value"] for row in rows])

    def findings(self, rows):
        top = max(row["value"] for row in rows)
        return [Finding(f"the largest value is {top:g}", True), Finding("a value is negative", top < 0)]


class Slow(Toy):
    """Multiples of a size, in steps.

    Args:
        sizes: Sizes, one part each.
        factor: Multiplier.
        count: Rows of each part.
    """

    def rows(self, part):
        def step(state, i):
            return state + 1, {"i": i, "label": f"row {i}", "value": self.factor * i * part["size"] + int(state)}

        return (found | {"none": float("nan")} for _, found in followed(step, np.int32(0), range(self.count), "look"))
