"""Weights & Biases, by its own library."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from nodepert.errors import UserError
from nodepert.studies.callbacks import Callback, StateOf
from nodepert.studies.run import Run, complete, run_id
from nodepert.studies.store.run_folder import through
from nodepert.studies.trackers.tracker import figures, study_of, title
from nodepert.training.metrics import Row


def wandb(*, project: str = "", entity: str = "", mode: str = "") -> Callback:
    """One run of Weights & Biases for each run, in a project of the study's name: its configuration, and its figures
    against epochs. Files go to OUT/NAME/wandb.

    `mode` is that of wandb, online or offline, and else what WANDB_MODE says; what was written offline is sent by
    `wandb sync`. A run that goes on after an interruption keeps its id.

    Raises UserError where wandb is missing, and where nobody is logged in.
    """
    try:
        import wandb as library  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UserError('--log wandb needs wandb: pip install "nodepert[wandb]"') from None
    mode = mode or os.environ.get("WANDB_MODE", "online")
    if mode not in ("online", "offline", "disabled", "shared"):
        raise UserError(f"wandb's mode is online or offline; got '{mode}'")
    if mode in ("online", "shared") and not logged_in(library):
        raise UserError("wandb is not logged in: wandb login; or keep what it records here: WANDB_MODE=offline")
    return WeightsAndBiases(library, project, entity, mode)


def logged_in(library: Any) -> bool:
    """Whether wandb has a key, without asking for one."""
    try:
        return bool(library.login(prompt=False, verify=False))
    except Exception:
        return False


class WeightsAndBiases(Callback):
    def __init__(self, library: Any, project: str, entity: str, mode: str):
        self.library, self.runs = library, dict[Run, Any]()
        self.how = {"mode": mode, "entity": entity or None}
        self.project = project

    def on_begin(self, run: Run, folder: Path | None) -> None:
        study, place = study_of(folder)
        settings = self.library.Settings(silent=True, console="off", disable_git=True, x_disable_stats=True)
        self.runs[run] = self.library.init(
            project=self.project or study, id=f"{study}-{run_id(run)}", name=title(run), config=complete(run),
            dir=str(place), reinit="create_new", resume="allow", settings=settings, **self.how,
        )  # fmt: skip

    def on_epoch(self, run: Run, row: Row, state: StateOf) -> None:
        self.runs[run].log(figures(row), step=row["epoch"])

    def on_end(self, run: Run, status: str) -> None:
        own = self.runs.pop(run)
        own.summary["status"] = status
        own.finish(exit_code=0 if through(status) else 1)
