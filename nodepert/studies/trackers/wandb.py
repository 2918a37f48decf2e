"""Weights & Biases, by its own library."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from nodepert.errors import UserError
from nodepert.studies.callbacks import Callback, StateOf
from nodepert.studies.run import Run
from nodepert.studies.store.run_folder import has_result
from nodepert.studies.trackers.tracker import charted, study_of, title
from nodepert.training.metrics import Row


def wandb(*, project: str = "", entity: str = "", mode: str = "") -> Callback:
    """One run of Weights & Biases for each run, in a project of the study's name: its configuration, and its metrics
    against epochs. Files go to OUT/NAME/wandb.

    `mode` is that of wandb, online or offline, else WANDB_MODE; `wandb sync` sends what was written offline. A run that
    resumes keeps its id.

    Raises UserError where wandb is missing, and without a login.
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
            project=self.project or study, id=f"{study}-{run.id}", name=title(run), config=run.config,
            dir=str(place), reinit="create_new", resume="allow", settings=settings, **self.how,
        )  # fmt: skip

    def on_epoch(self, run: Run, row: Row, state: StateOf) -> None:
        self.runs[run].log(charted(row), step=row["epoch"])

    def on_end(self, run: Run, status: str) -> None:
        own = self.runs.pop(run)
        own.summary["status"] = status
        own.finish(exit_code=0 if has_result(status) else 1)
