"""What trackers share: what a run is called there, its metrics, and that they never end training."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from nodepert.errors import UserError
from nodepert.registry import check, make
from nodepert.studies.callbacks import Callback, Callbacks, StateOf
from nodepert.studies.run import Run
from nodepert.training import processes
from nodepert.training.metrics import Row, columns_of, metric_of

log = logging.getLogger("nodepert")


def make_tracker(spec: str) -> Callback:
    """A tracker by spec. What fails in it is a warning, and never ends training.

    Args:
        spec: "tensorboard", "wandb(project=mine)", ...

    Returns:
        A `Callback` for `npt.train(..., callbacks=[...])`.

    Raises:
        UserError: For an unknown tracker, or where its library is missing.
    """
    return Surviving(str(check("tracker", spec)), make("tracker", spec))


def trackers(specs: Sequence[str]) -> list[Callback]:
    """Trackers by their specs, each one once."""
    return [make_tracker(spec) for spec in dict.fromkeys(specs)]


def called_in(callbacks: Iterable[Callback], specs: Sequence[str], more: Sequence[Callback] = ()) -> Callbacks:
    """All callbacks, trackers and `more`, in the process that calls them. Raises UserError for what is no callback."""
    if not isinstance(callbacks, Iterable):
        raise UserError(f"callbacks is a list, as in callbacks=[Show()]; got {type(callbacks).__name__}")
    callbacks = list(callbacks)
    if wrong := [one for one in callbacks if not isinstance(one, Callback)]:
        raise UserError(f"callbacks are instances of npt.Callback; got {type(wrong[0]).__name__}")
    sent = processes.by_first(lambda: trackers(specs)) or []
    return Callbacks([*callbacks, *sent, *more] if processes.writes() else ())


def title(run: Run) -> str:
    """What a run is called: what it trains, and its id."""
    rate = [f"lr={run.lr:g}"] if run.lr is not None else [run.optimizer]  # an object has its own
    return ", ".join([run.rule, run.network, run.dataset, *rate, f"seed={run.seed}", run.id])


def study_of(folder: Path | None) -> tuple[str, Path]:
    """The study of a run in this folder, and its path; of a run that is not saved, the working folder."""
    return (folder.parent.name, folder.parent) if folder else ("nodepert", Path())


def folder_name(text: str) -> str:
    """A text as the name of a folder: of a long one both ends, since a title ends with the run's id."""
    name = re.sub(r"[^\w=.,+()-]+", "_", text)
    return name if len(name) <= 200 else f"{name[:180]}...{name[-13:]}"


def charted(row: Row) -> dict[str, float]:
    """The metrics of a row by "chart/series": "accuracy/test", ..."""
    return {metric_of(name).chart or name: row[name] for name in columns_of([row])}


class Surviving(Callback):
    """A tracker whose first failure is a warning: from then on it is left out, and what it has open is closed."""

    def __init__(self, spec: str, tracker: Callback):
        self.spec, self.tracker, self.failed = spec, tracker, False
        self.open: dict[Run, None] = {}

    def _call(self, method: Callable[..., None], *arguments: Any) -> None:
        if self.failed:
            return
        try:
            method(*arguments)
        except Exception as error:
            self.failed = True
            said = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            log.warning("--log %s failed, and is left out from now on; training continues (%s)", self.spec, said)
            for run in self.open:
                with suppress(Exception):
                    self.tracker.on_end(run, "left out")

    def on_begin(self, run: Run, folder: Path | None) -> None:
        self.open[run] = None
        self._call(self.tracker.on_begin, run, folder)

    def on_epoch(self, run: Run, row: Row, state: StateOf) -> None:
        self._call(self.tracker.on_epoch, run, row, state)

    def on_end(self, run: Run, status: str) -> None:
        self.open.pop(run, None)
        self._call(self.tracker.on_end, run, status)
