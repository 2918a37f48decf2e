"""From which checkpoints runs resume: their own or, if asked for more epochs, those of the shorter run."""

from __future__ import annotations

import logging
import os
import re
from typing import Any

import jax
import numpy as np

from nodepert.errors import UserError
from nodepert.studies.run import Run, id_of
from nodepert.studies.setup import Group
from nodepert.studies.store import checkpoints
from nodepert.studies.store.checkpoints import Checkpoint
from nodepert.studies.store.run_folder import RunFolder
from nodepert.training.hyper import stacked
from nodepert.training.program import Program, task_data

log = logging.getLogger("nodepert")


def find_checkpoints(group: Group, folders: dict[int, RunFolder]) -> dict[int, Checkpoint]:
    """{i: the last checkpoint of run i}, of the runs of a group that have folders and were interrupted, or that have
    finished there with fewer epochs. The folder of the shorter run is only read.

    Several processes that share a computation have none: they start again.
    """
    sources = {i: folder if checkpoints.exist(folder.path) else _shorter(run, folder)
               for i, run in zip(group.numbers, group.runs, strict=True) if (folder := folders.get(i))}  # fmt: skip
    if not any(sources.values()) or jax.process_count() > 1:
        return {}
    run, found, other = group.runs[0], {}, []
    step = _Step(group, run.epochs)
    best = step.state.params if run.validation else None
    for i, source in sources.items():
        if source and not step.is_that_of(source.record["config"]["epochs"]):
            other.append(source.path)
        elif source and (checkpoint := checkpoints.latest(source.path, step.state, source.record["data"], best)):
            found[i] = checkpoint
    if other:
        more = f" (as do {len(other) - 1} more)" * (len(other) > 1)
        log.warning("%s has this run with fewer epochs, but its schedule ends with the last one: training starts at "
                    "epoch 0%s; with schedule=constant it would resume", other[0], more)  # fmt: skip
    return found


def _shorter(run: Run, folder: RunFolder) -> RunFolder | None:
    """The folder of the longest run in this study that differs in having fewer epochs only, and has its result."""
    config, others = run.config, set(os.listdir(folder.path.parent)) - {folder.path.name}
    for epochs in range(run.epochs - 1, 0, -1) if others else ():  # there may be a million
        if (name := id_of(config | {"epochs": epochs})) in others:
            try:
                found = RunFolder.read(folder.path.with_name(name))
            except UserError:
                continue
            same = all(found.record.get(key) == folder.record.get(key) for key in ("data", "code", "settings"))
            if same and found.done and checkpoints.exist(found.path):
                return found
    return None


class _Step:
    """One update of a group's runs as JAX traces it, and the state that it changes."""

    def __init__(self, group: Group, epochs: int):
        self.group = group
        self.hyper = jax.tree.map(lambda a: a[0], stacked(group.hypers[:1]))
        self.data = jax.eval_shape(lambda: task_data(group.data))
        self.task = self.of(epochs)
        self.state = jax.eval_shape(self.task.init, self.hyper, self.data)

    def of(self, epochs: int) -> Program:
        return Program(self.group.model, self.group.loss, self.group.runs[0].batchsize, epochs)

    def is_that_of(self, epochs: int) -> bool:
        """Whether a run with so many epochs has the same updates: not under a schedule that ends with the run."""
        if epochs == self.task.epochs:
            return True
        (here, constants), (there, others) = map(self._traced, (self.task, self.of(epochs)))
        return here == there and jax.tree.all(jax.tree.map(np.array_equal, constants, others))

    def _traced(self, task: Program) -> tuple[str, Any]:
        indices = jax.ShapeDtypeStruct((task.batchsize,), "int32")
        closed = jax.make_jaxpr(task.step)(self.state, self.hyper, self.data, indices)
        return re.sub("0x[0-9a-f]+", "", str(closed.jaxpr)), closed.consts  # of functions in it
