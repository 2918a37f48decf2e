"""The objects that runs name by their specs, and which runs train together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from nodepert.core import Loss, Model
from nodepert.data import Dataset
from nodepert.errors import UserError
from nodepert.registry import check, entry, full, make_loss, make_model, within
from nodepert.studies.run import Run, checked
from nodepert.training import devices
from nodepert.training.hyper import Hyper, structure
from nodepert.training.program import rehearse


class Built(NamedTuple):
    """The objects of runs that train together, as `fit_all` takes them."""

    model: Model
    loss: Loss
    data: Dataset
    hypers: list[Hyper]


def build(runs: Sequence[Run], data: Dataset) -> Built:
    """Build what runs of one group name. Raises UserError."""
    run = checked(runs[0])
    if data.name != check("dataset", run.dataset).name:
        raise UserError(f"these data are {data.name}, but the run's data set is {run.dataset}")
    model = make_model(run.network, data.train_x.shape[1:], data.classes)
    return Built(model, make_loss(run.loss), data, [hyper(run) for run in runs])


def precheck(runs: Sequence[Run]) -> None:
    """Check all that can be checked before the data are there, on a stand-in for their shape. Raises UserError.

    Not so for a network or data of the user's own, which may be made for one shape: training checks them.
    """
    devices.start()
    for group in groups(runs):
        run = checked(runs[group[0]])
        if any(entry(kind, name).own for kind in ("network", "dataset") for name in within(kind, getattr(run, kind))):
            continue
        model = make_model(run.network, (32, 32, 3), 10)
        batch = jax.ShapeDtypeStruct((2, 32, 32, 3), "float32"), jax.ShapeDtypeStruct((2,), "int32")
        hypers = [hyper(runs[i]) for i in group]
        rehearse(model, make_loss(run.loss), hypers, batch, batchsize=run.batchsize, epochs=run.epochs,
                 of=f" (network {run.network}, rule {run.rule}, loss {run.loss}, tried on made-up images)")  # fmt: skip


def hyper(run: Run) -> Hyper:
    """A run's numbers: every default written out, so that they are alike in runs that leave them out."""
    run = checked(run)
    return Hyper(full("rule", run.rule), full("optimizer", run.optimizer), run.lr, run.wd, run.seed)


def groups(runs: Sequence[Run]) -> list[list[int]]:
    """Which runs one compiled program can train together: those that differ in numbers only."""
    found: dict[Any, list[int]] = {}
    for i, run in enumerate(map(checked, runs)):
        same = run.dataset, str(full("network", run.network)), run.loss, run.batchsize, run.epochs
        found.setdefault((*same, structure(hyper(run))), []).append(i)
    return list(found.values())
