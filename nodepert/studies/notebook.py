"""Progress in a notebook: one line that is updated, as plain text."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from statistics import fmean
from typing import Any

from nodepert.studies.callbacks import Callback, StateOf
from nodepert.studies.run import Run
from nodepert.training.metrics import Row, in_words, score_of

EVERY = 0.25  # seconds between two updates


def progress(runs: Sequence[Run]) -> list[Callback]:
    """The line of these runs under a Jupyter kernel; nothing elsewhere."""
    ipython = sys.modules.get("IPython")
    shell = ipython and ipython.get_ipython()
    return [Line(runs, sys.modules["IPython"].display.display)] if hasattr(shell, "kernel") else []


class Line(Callback):
    """The line: runs that have ended, the latest epoch and its score, the speed, the time left.

    It appears with the first epoch that is trained, and a failure to show it does not end training.
    """

    def __init__(self, runs: Sequence[Run], display: Callable[..., Any], clock: Callable[[], float] = time.monotonic):
        self.left = {run: run.epochs for run in runs}
        self.times: dict[Run, float] = {}
        self.display, self.clock = display, clock
        self.handle, self.shown, self.ended = None, -EVERY, 0

    def on_epoch(self, run: Run, row: Row, state: StateOf) -> None:
        self.left[run] = run.epochs - row["epoch"]
        if state.read_back or not row["epoch"]:
            return
        self.times[run] = row["epoch_time"]
        if self.clock() - self.shown >= EVERY:
            score = score_of(row)
            measured = " ".join(in_words(score, row.get(score, float("nan"))).split())
            epoch = f"epoch {row['epoch']}/{run.epochs}"
            self.show(", ".join([*self._runs(), epoch, measured, *self._time()]))

    def on_end(self, run: Run, status: str) -> None:
        self.left[run] = 0
        self.ended += 1
        if self.handle and self.ended == len(self.left):
            self.show(f"{self.ended} runs have ended" if self.ended > 1 else f"{run.rule}: {status}")

    def _runs(self) -> list[str]:
        return [f"{self.ended}/{len(self.left)} runs"] if len(self.left) > 1 else []

    def _time(self) -> list[str]:
        """Seconds per epoch of a run, and those left; a run that has not trained an epoch counts as the others."""
        pace = fmean(self.times.values())
        left = sum(self.times.get(run, pace) * epochs for run, epochs in self.left.items())
        return [f"{pace:.3g} s/epoch", f"about {left:.0f} s left"]

    def show(self, text: str) -> None:
        self.shown = self.clock()
        bundle = {"text/plain": text}
        with suppress(Exception):
            if self.handle is None:
                self.handle = self.display(bundle, raw=True, display_id=True)
            else:
                self.handle.update(bundle, raw=True)
