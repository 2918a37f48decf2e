"""An experiment on the terminal: the part and the loop that are computed, their pace, the time left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from nodepert.cli import display, live
from nodepert.cli.pace import Pace, duration

if TYPE_CHECKING:  # it imports JAX
    from nodepert.experiments.session import Steps

TICK = 0.5  # seconds over which a pace is measured, at least


class View:
    """The state of an experiment, from what `execute` reports."""

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic):
        self.name, self.clock = name, clock
        self.part, self.label, self.begun = 0, "", clock()
        self.steps: Steps | None = None
        self.pace, self.parts = Pace({}), Pace({})
        self.measured: tuple[float, float] | None = None  # the steps that were done after these seconds of the loop

    def on_part(self, i: int, of: int, part: dict[str, Any], seconds: float | None) -> None:
        """A part is complete: print a line."""
        self.known(of)
        self.part, self.steps, self.begun = i, None, self.clock()
        if seconds is None:
            self.parts.ended(i)
        else:
            self.parts.trained(i, 0, seconds, self.begun)
        end = "saved before" if seconds is None else f"{seconds:.1f} s"
        print(f"[{i}/{of}] {label(part) or self.name}: {end}", flush=True)

    def on_steps(self, i: int, of: int, part: dict[str, Any], steps: Steps) -> None:
        """Steps of a loop are done."""
        self.known(of)
        self.part, self.label, self.steps = i, label(part) or self.name, steps
        left = steps.of - steps.done if steps.of else 0
        if steps.seconds is None:
            self.pace, self.measured = Pace({self.name: left}, steps.unit), None
        elif self.measured is None:
            self.measured = steps.done, steps.seconds
        elif steps.seconds >= self.measured[1] + TICK and steps.done > self.measured[0]:
            share = (steps.seconds - self.measured[1]) / (steps.done - self.measured[0])
            self.pace.trained(self.name, left, share, self.clock())
            self.measured = steps.done, steps.seconds

    def known(self, parts: int) -> None:
        if not self.parts.left:
            self.parts = Pace(dict.fromkeys(range(1, parts + 1), 1))

    def footer(self, seconds: float) -> list[str]:
        """The line, in pieces."""
        if not self.steps:
            return ["drawing" if self.part and self.part == len(self.parts.left) else "starting"]
        now, steps = self.clock(), self.steps
        head = f"[{self.part}/{len(self.parts.left)}] {self.label}: "
        if self.measured is None:
            return [f"{head}compiling", duration(now - self.begun)]
        of = f" of {steps.of:,}" if steps.of else ""
        pieces = [f"{head}{steps.unit} {int(steps.done):,}{of}", self.pace.text(now - self.begun, now, [self.name])]
        whole, left = self.parts.seconds_left(now, [self.part]), self.pace.seconds_left(now, [self.name])
        if self.parts.measured and whole and sum(self.parts.left.values()) > 1:
            pieces.append(f"all parts about {duration(max(whole, left or 0.0))}")
        return pieces


def label(part: dict[str, Any]) -> str:
    """A part as text."""
    return ", ".join(f"{key} {value}" for key, value in part.items())


@contextmanager
def shown(view: View) -> Iterator[None]:
    """The line on a terminal, elsewhere nothing but the lines of parts."""
    if not display.console.is_terminal:
        yield
        return
    with live.drawn(None, view.footer):
        yield
