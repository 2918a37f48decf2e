"""Carry out runs: build what their specs name, train, and (for the command line) write as it goes."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, overload

import jax
import jax.numpy as jnp

from nodepert import devices
from nodepert.cache import keep_programs
from nodepert.config import Run, checked, run_id
from nodepert.core import Loss, Model, Params, Rule
from nodepert.data import Dataset, load_dataset
from nodepert.data.dataset import fingerprint
from nodepert.hyper import Hyper, structure
from nodepert.registry import UserError, check, full, make, make_loss
from nodepert.replicas import Epoch, fit_all
from nodepert.rows import Row, diverged
from nodepert.store import FINISHED, INTERRUPTED, RunFolder, open_run
from nodepert.training import rehearse

OnRow = Callable[..., Any]
FILES = 256  # open at a time, beside the runs' locks


class Result(NamedTuple):
    """What came of a run: `rows` per epoch, `status` ("finished" or "diverged at epoch e"), final `params`."""

    run: Run
    rows: list[Row]
    status: str
    params: Params | None = None  # None where the rows were read back
    folder: Path | None = None

    @property
    def test_acc(self) -> float:
        """Test accuracy after the last epoch, per cent."""
        return self.rows[-1]["test_acc"]


def make_model(spec: str, input_shape: tuple[int, ...], classes: int) -> Model:
    """A network by spec: `make_model("fc(width=100)", (28, 28, 1), 10)`. Raises UserError."""
    return make("network", spec, input_shape, classes)


def make_rule(spec: str, model: Model, loss: Loss) -> Rule:
    """A learning rule by spec: `make_rule("np(sigma=1e-3)", model, loss)`. Raises UserError."""
    return make("rule", spec, model, loss)


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
    """Check all that can be checked before the data are there, on a stand-in for their shape. Raises UserError."""
    for group in groups(runs):
        run = checked(runs[group[0]])
        model = make_model(run.network, (32, 32, 3), 10)
        batch = jax.ShapeDtypeStruct((2, 32, 32, 3), "float32"), jax.ShapeDtypeStruct((2,), "int32")
        hypers = [hyper(runs[i]) for i in group]
        rehearse(model, make_loss(run.loss), hypers, batch, batchsize=run.batchsize, epochs=run.epochs)


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


@overload
def train(runs: Run, **options: Any) -> Result: ...
@overload
def train(runs: Sequence[Run], **options: Any) -> list[Result]: ...
def train(
    runs: Run | Sequence[Run],
    *,
    data_dir: str | Path | None = None,
    data: Dataset | None = None,
    on_row: OnRow = lambda row, *_: None,
    name: str | None = None,
    out: str | Path = "runs",
    **how: Any,
) -> Result | list[Result]:
    """Train one run and give its `Result`, or a list of runs and give theirs. `on_row` is called with each row as it
    comes, of a list with (row, i).

    Runs of a list that differ in numbers only (seed, lr, wd, whatever a rule or an optimizer takes as a float) are
    replicas of one compiled program, and each has the rows that it would have alone. `how`: lanes, on and memory, as
    replicas.fit_all takes them.

    Of several processes (see devices.py) the first one writes, and calls `on_row`.

    With a `name` runs are also kept, in `<out>/<name>/<id>/`: metrics.csv is whole after every epoch, an interruption
    leaves what was reached, and a run that is finished there is not computed again.
    Raises UserError for anything in a run or the data that the user can put right.
    """
    if isinstance(runs, Run):
        return _train([runs], data_dir, data, lambda row, i: on_row(row), name, out, how)[0]
    return _train(list(runs), data_dir, data, on_row, name, out, how)


def _train(runs, data_dir, data, on_row, name, out, how) -> list[Result]:
    for run in runs:
        if not isinstance(run, Run):
            raise UserError(f"train takes a run, as in npt.train(npt.Run(rule='np')); got {type(run).__name__}")
    if len({run_id(run) for run in runs}) < len(runs):
        raise UserError("two of these runs are the same")
    keep_programs()
    if len(runs) > 1:
        devices.cores_apart(len(runs))
    if data is None:
        precheck(runs)  # a wrong option is found before a missing or slow data set
    sets = {spec: data or load_dataset(spec, data_dir) for spec in dict.fromkeys(checked(run).dataset for run in runs)}

    def epochs(numbers: Sequence[int]) -> Iterator[Epoch]:
        run = checked(runs[numbers[0]])
        built = build([runs[i] for i in numbers], sets[run.dataset])
        return fit_all(*built, batchsize=run.batchsize, epochs=run.epochs, **how)

    # `fit_all` complains about sizes and rates now, so that nothing is written for a run that cannot start.
    work = [(numbers, epochs(numbers)) for numbers in groups(runs)]
    results: dict[int, Result] = {}
    with ExitStack() as stack:
        folders: dict[int, RunFolder] = {}
        refused = None
        try:
            if name is not None and devices.writes():
                try:
                    for i, folder in enumerate(_folders(stack, runs, sets, str(name), out)):
                        folders[i] = folder
                except UserError as error:
                    refused = error
            if devices.agreed([refused is not None])[0]:  # so that no process waits for one that has stopped
                raise refused or UserError("the first process of this job could not begin; it says why")
            done = devices.agreed([i in folders and folders[i].done for i in range(len(runs))])
            for i, run in enumerate(runs):
                if done[i]:
                    results[i] = _read_back(run, folders.get(i))
                    for row in results[i].rows:
                        on_row(row, i)
            for numbers, trained in work:
                left = [i for i in numbers if i not in results]
                if left:
                    found = trained if left == numbers else epochs(left)
                    results |= _carry_out(runs, left, found, on_row, folders)
        finally:
            for folder in folders.values():
                if not folder.done:
                    folder.set_status(INTERRUPTED)
    return [results[i] for i in range(len(runs))]


def _folders(stack: ExitStack, runs: Sequence[Run], sets: dict[str, Dataset], name: str, out: str | Path):
    """Every run's folder, locked until the stack is closed. Raises UserError where so many files cannot be open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = len(runs) + FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        if hard != resource.RLIM_INFINITY and hard < needed:
            raise UserError(f"{len(runs):,} runs at once need {needed:,} open files, and this system allows {hard:,} "
                            "(ulimit -n); train them in parts")  # fmt: skip
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
    prints = {spec: fingerprint(data) for spec, data in sets.items()}
    for run in runs:
        spec = checked(run).dataset
        facts = {"device": device(), "source": sets[spec].source}
        yield stack.enter_context(open_run(Path(out), name, run, prints[spec], **facts))


def _read_back(run: Run, folder: RunFolder | None) -> Result:
    """A run that was finished before; its rows are in the process that writes."""
    return Result(run, folder.rows(), folder.status, None, folder.path) if folder else Result(run, [], FINISHED)


def _carry_out(
    runs: Sequence[Run], numbers: Sequence[int], epochs: Iterator[Epoch], on_row: OnRow, folders: dict[int, RunFolder]
) -> dict[int, Result]:
    """Go through the epochs of a group, and write each as it comes."""
    rows: dict[int, list[Row]] = {i: [] for i in numbers}
    results: dict[int, Result] = {}
    for found, state in epochs:
        for k, row in found.items():
            i = numbers[k]
            rows[i].append(row)
            folder = folders.get(i)
            last = diverged(row) or row["epoch"] == runs[i].epochs
            if folder:
                folder.write_rows(rows[i], last)
            if last:
                status = f"diverged at epoch {row['epoch']}" if diverged(row) else FINISHED
                params = jax.tree.map(jnp.asarray, jax.device_get(state(k).params))  # not bound to the group's devices
                results[i] = Result(runs[i], rows[i], status, params, folder.path if folder else None)
                if folder:
                    folder.set_status(status)
            if devices.writes():
                on_row(row, i)
    return results


def device() -> str:
    """The device that computes, in words."""
    return f"{jax.default_backend()} ({jax.devices()[0].device_kind})"
