"""What `nodepert check` measures on: a network, initial or trained, and its data; and its progress bar."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from nodepert.cli.parser import was_given
from nodepert.errors import UserError
from nodepert.studies.run import Run

if TYPE_CHECKING:
    from nodepert.studies.result import Result

TASK = ("dataset", "network", "loss")  # options that a trained run gives


class Setting(NamedTuple):
    """A network and its data."""

    model: Any
    params: Any  # None: initial weights
    data: Any
    standardised: Callable[[Any], Any]  # inputs as the network receives them

    def examples(self, count: int, seed: int) -> tuple[Any, Any]:
        """Random training examples, (x, y), as in training."""
        import numpy as np

        n = len(self.data.train_y)
        if not 1 <= count <= n:
            raise UserError(f"batchsize must be in 1..{n:,}, the training examples; got {count}")
        chosen = np.random.default_rng(seed).permutation(n)[:count]
        return self.standardised(self.data.train_x[chosen]), self.data.targets(self.data.train_y[chosen])


def setting_of(run: Run, trained: Result | None, data_dir: Path | None) -> Setting:
    """The network and data of a run, at the weights of a trained one."""
    from nodepert.data import load_dataset
    from nodepert.registry import check_loss, make_model

    data = load_dataset(run.dataset, data_dir)
    check_loss(run.specs["loss"], data.task, run.specs["dataset"])
    if trained:
        return Setting(trained.model, trained.params, data, trained.standardised)
    return Setting(make_model(run.network, data.train_x.shape[1:], data.outputs), None, data, data.standardised)


def of_run(trained: str, out: Path, data_dir: Path | None) -> Result:
    """A trained run. Raises UserError for options that it gives itself."""
    from nodepert.studies.load import load
    from nodepert.training import devices

    if given := next((option for option in TASK if was_given(f"--{option}")), None):
        raise UserError(f"--{given} is that of the trained run; leave it out")
    devices.start()
    return load(trained, out=out, data_dir=data_dir)


def writable(folder: Path) -> Path:
    """The folder of the results. Raises UserError before anything is computed, if it cannot be made."""
    parent = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not (parent.is_dir() and os.access(parent, os.W_OK)):
        raise UserError(f"cannot write {folder}: {parent} is not a writable folder; choose another path with --out")
    return folder


@contextmanager
def measuring(label: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on a terminal. A ValueError, of a network, a loss or a rule against its contract, is one line."""
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from nodepert.cli import display

    columns = SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(16), TimeElapsedColumn()
    with Progress(*columns, console=display.console, transient=True, disable=not display.console.is_terminal) as bar:
        task = bar.add_task(label, total=None)
        try:
            yield lambda done, of: bar.update(task, completed=done, total=of)
        except UserError:
            raise
        except ValueError as error:
            raise UserError(str(error)) from error
