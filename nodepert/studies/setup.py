"""Runs made ready to train: which train together, their objects built once, one step of each group rehearsed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax

from nodepert.core import Loss, Model, node_shapes
from nodepert.data import Dataset, load_dataset
from nodepert.data.dataset import sound
from nodepert.data.signature import signature_of
from nodepert.data.validation import held_out
from nodepert.errors import UserError
from nodepert.registry import check_loss, entry, make_loss, make_model, within
from nodepert.registry.generator import pinned
from nodepert.rules.noise import key_of
from nodepert.rules.rounding import warn_of_rounding
from nodepert.studies.run import Run
from nodepert.training import devices, processes
from nodepert.training.hyper import Hyper, structure
from nodepert.training.metrics import Metric, measured
from nodepert.training.predictor import Predictor
from nodepert.training.rehearsal import rehearse


class Group(NamedTuple):
    """Runs that one compiled program trains: their numbers among all runs, and what they are made of."""

    numbers: list[int]
    runs: list[Run]
    model: Model
    loss: Loss
    data: Dataset  # with a validation split where the runs have one
    hypers: list[Hyper]

    def metrics(self, requested: Sequence[str] = ()) -> dict[str, Metric]:
        """What the rows of these runs have. Raises UserError for a node that the network does not have."""
        inputs = jax.ShapeDtypeStruct((1, *self.data.train_x.shape[1:]), "float32")
        params = jax.eval_shape(self.model.init, key_of(0))
        nodes = list(node_shapes(self.model, params, inputs))
        return measured(requested, self.data.task, self.runs[0].validation > 0, nodes)

    def predictors(self) -> list[Predictor]:
        """What predicts with the network of each run."""
        signature = signature_of(self.data)
        return [Predictor.of(run.specs, signature, self.model, self.loss) for run in self.runs]

    def part(self, numbers: list[int]) -> Group:
        """The runs of this group that have these numbers."""
        at = [self.numbers.index(i) for i in numbers]
        return self._replace(numbers=numbers, runs=[self.runs[k] for k in at], hypers=[self.hypers[k] for k in at])


def groups(runs: Sequence[Run]) -> list[list[int]]:
    """Which runs one compiled program can train together: those that differ in numbers only."""
    found: dict[Any, list[int]] = {}
    for i, run in enumerate(runs):
        same = [str(run.specs[kind]) for kind in ("dataset", "network", "loss")]
        same += [run.batchsize, run.epochs, run.validation]
        found.setdefault((*same, structure(hyper_of(run))), []).append(i)
    return list(found.values())


def hyper_of(run: Run) -> Hyper:
    """A run's numbers: every default written out, so that they are alike in runs that leave them out."""
    values: dict[str, Any] = vars(run) | run.specs
    return Hyper(*(values[name] for name in Hyper._fields))


def prepare(runs: Sequence[Run], data: Dataset | None = None, data_dir: str | Path | None = None) -> list[Group]:
    """Build and rehearse groups of runs, and load their data. Warns of finite differences in low precision.

    If the registry declares the shape of the inputs, runs are checked before data are loaded.

    Raises:
        UserError: For whatever is wrong with a run or the data.
    """
    devices.start()
    for kind, name, line in ((*key, line) for run in runs for key, line in run.unnamed.items()):
        if entry(kind, name) is not line:
            raise UserError(f"the name {name} is now that of another {kind}; make the run again")
    if data is not None:
        sound(data)
    shapes = {run.dataset: known_shape(run) if data is None else shape_of(data) for run in runs}
    parts = groups(runs)
    for numbers in parts:
        if shape := shapes[runs[numbers[0]].dataset]:
            _fits(_rehearse([runs[i] for i in numbers], *shape))
    sets = {spec: data or load_dataset(spec, data_dir) for spec in shapes}
    split = cache(lambda spec, validation: held_out(sets[spec], validation))
    found = [_built(numbers, [runs[i] for i in numbers], sets, split) for numbers in parts]
    for group in found:
        if not shapes[group.runs[0].dataset]:
            _fits(_rehearse(group.runs, *shape_of(group.data)))
    warn_of_rounding([(g.model, [hyper.rule for hyper in g.hypers], shape_of(g.data)[0]) for g in found])
    return found


def _fits(needed: int) -> None:
    """Raises UserError if parameters of so many bytes do not fit into memory."""
    if needed > processes.least(devices.memory_total()):
        raise devices.full(needed)


@pinned()
def check_runs(runs: Sequence[Run]) -> None:
    """Rehearse what can be rehearsed without data. Raises UserError."""
    devices.start()
    for group in groups(runs):
        if shape := known_shape(runs[group[0]]):
            _rehearse([runs[i] for i in group], *shape)


def known_shape(run: Run) -> tuple[tuple[int, ...], int, str, int] | None:
    """`shape_of` a run's data by the registry; None where only the data tell."""
    names = within("dataset", run.specs["dataset"])
    lines = [entry("dataset", name) for name in names]
    if len(lines) > 1 or not lines[0].shape:
        return None
    return lines[0].shape, lines[0].outputs, lines[0].task, lines[0].steps


def shape_of(data: Dataset) -> tuple[tuple[int, ...], int, str, int]:
    """Input shape, number of outputs, task, and time steps of the targets."""
    return data.train_x.shape[1:], data.outputs, data.task, data.steps


def _rehearse(runs: Sequence[Run], shape: tuple[int, ...], outputs: int, task: str, steps: int) -> int:
    run = runs[0]
    check_loss(run.specs["loss"], task, run.specs["dataset"])
    model, loss = make_model(run.specs["network"], shape, outputs), make_loss(run.specs["loss"])
    of = f" (network {run.network}, rule {run.rule}, loss {run.loss}, inputs of shape {shape})"
    return rehearse(model, loss, [hyper_of(run) for run in runs], shape, of, outputs, task, steps)


def _built(
    numbers: list[int], runs: list[Run], sets: Mapping[str, Dataset], split: Callable[[str, float], Dataset]
) -> Group:
    run = runs[0]
    whole = sets[run.dataset]
    if whole.name != run.specs["dataset"].name:
        raise UserError(f"these data are {whole.name}, but the run's data set is {run.dataset}")
    data = split(run.dataset, run.validation)
    if run.batchsize > len(data.train_y):
        raise UserError(f"batchsize must be at most the {len(data.train_y):,} training examples; got {run.batchsize}")
    model = make_model(run.specs["network"], data.train_x.shape[1:], data.outputs)
    return Group(numbers, runs, model, make_loss(run.specs["loss"]), data, [hyper_of(run) for run in runs])
