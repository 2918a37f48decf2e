"""TensorBoard, by tensorboardX."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from nodepert.errors import UserError
from nodepert.studies.callbacks import Callback, StateOf
from nodepert.studies.run import Run
from nodepert.studies.store import open_files
from nodepert.studies.trackers.tracker import charted, folder_name, study_of, title
from nodepert.training.metrics import Row


def tensorboard(*, dir: str = "") -> Callback:
    """Event files for TensorBoard: accuracy/train, accuracy/test, loss/train, loss/test, seconds/epoch against epochs.

    They go to `dir`, or to OUT/NAME/tensorboard, one folder per run, with a file that is open while the run trains. A
    run that resumes, or is read back, is written again from its first row.

    Raises UserError where tensorboardX is missing.
    """
    try:
        from tensorboardX import SummaryWriter  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UserError('--log tensorboard needs tensorboardX: pip install "nodepert[tensorboard]"') from None
    return TensorBoard(SummaryWriter, dir)


class TensorBoard(Callback):
    def __init__(self, writer: Any, dir: str):
        self.make, self.dir, self.writers = writer, dir, dict[Run, Any]()

    def on_begin(self, run: Run, folder: Path | None) -> None:
        open_files.check_room()  # one file a run
        place = Path(self.dir) if self.dir else study_of(folder)[1] / "tensorboard"
        writer = self.writers[run] = self.make(str(place / folder_name(title(run))), purge_step=0)
        writer.add_text("configuration", f"```json\n{json.dumps(run.config, indent=1)}\n```")

    def on_epoch(self, run: Run, row: Row, state: StateOf) -> None:
        for name, value in charted(row).items():
            self.writers[run].add_scalar(name, value, row["epoch"])
        self.writers[run].flush()

    def on_end(self, run: Run, status: str) -> None:
        writer = self.writers.pop(run)
        writer.add_text("status", status)
        writer.close()
