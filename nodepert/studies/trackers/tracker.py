"""What trackers have in common: what a run is called there, its figures, and that they never end training."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from nodepert.registry import check, make, short
from nodepert.studies.callbacks import Callback, StateOf
from nodepert.studies.run import Run, run_id
from nodepert.training.metrics import Row

FIGURES = {  # what a figure is called elsewhere: those of one chart have one beginning
    "train_acc": "accuracy/train", "test_acc": "accuracy/test", "train_loss": "loss/train", "test_loss": "loss/test",
    "epoch_time": "seconds/epoch",
}  # fmt: skip
log = logging.getLogger("nodepert")


def make_tracker(spec: str) -> Callback:
    """A tracker by spec, which says what fails but never ends training. Raises UserError, also where its library is
    missing."""
    return Surviving(str(check("tracker", spec)), make("tracker", spec))


def trackers(specs: Sequence[str]) -> list[Callback]:
    """Trackers by their specs, each one once."""
    return [make_tracker(spec) for spec in dict.fromkeys(specs)]


def title(run: Run) -> str:
    """What a run is called: what it trains, and its id."""
    words = [short("rule", run.rule), short("network", run.network), short("dataset", run.dataset)]
    return ", ".join([*map(str, words), f"lr={run.lr:g}", f"seed={run.seed}", run_id(run)])


def study_of(folder: Path | None) -> tuple[str, Path]:
    """The study of a run in this folder, and where it is; of a run that is not kept, the working folder."""
    return (folder.parent.name, folder.parent) if folder else ("nodepert", Path())


def folder_name(text: str) -> str:
    """A text as the name of a folder: of a long one both ends, since a title ends with the run's id."""
    name = re.sub(r"[^\w=.,+()-]+", "_", text)
    return name if len(name) <= 200 else f"{name[:180]}...{name[-13:]}"


def figures(row: Row) -> dict[str, float]:
    """The figures of a row, under the names that they have elsewhere."""
    return {name: row[key] for key, name in FIGURES.items() if key in row}


class Surviving(Callback):
    """A tracker whose failures are warned of: after the first it is left out, and what it has open is closed."""

    def __init__(self, spec: str, tracker: Callback):
        self.spec, self.tracker, self.failed = spec, tracker, False
        self.begun: dict[Run, None] = {}

    def _call(self, method: Callable[..., None], *arguments: Any) -> None:
        if self.failed:
            return
        try:
            method(*arguments)
        except Exception as error:
            self.failed = True
            said = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            log.warning("--log %s failed, and is left out from here on; training goes on (%s)", self.spec, said)
            for run in self.begun:
                with suppress(Exception):
                    self.tracker.on_end(run, "left out")

    def on_begin(self, run: Run, folder: Path | None) -> None:
        self.begun[run] = None
        self._call(self.tracker.on_begin, run, folder)

    def on_epoch(self, run: Run, row: Row, state: StateOf) -> None:
        self._call(self.tracker.on_epoch, run, row, state)

    def on_end(self, run: Run, status: str) -> None:
        self.begun.pop(run, None)
        self._call(self.tracker.on_end, run, status)
