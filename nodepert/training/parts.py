"""How many steps to compute between two reports."""

from __future__ import annotations

PART, GROWTH = 1.0, 8  # seconds, and how fast a part may grow to last that long


class Parts:
    """Parts of a loop that last about a second. `steps`: of the next one."""

    def __init__(self, steps: int = 1):
        self.steps = steps

    def took(self, steps: int, seconds: float) -> None:
        """A part of so many steps took so long."""
        self.steps = min(max(1, int(steps * PART / max(seconds, 1e-9))), GROWTH * steps)
