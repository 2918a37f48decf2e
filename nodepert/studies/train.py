"""Carry out runs: build what their specs name, train, and (for the command line) write as it goes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, overload

import jax
import jax.numpy as jnp

from nodepert.core import Params
from nodepert.data import Dataset, load_dataset
from nodepert.data.dataset import sound
from nodepert.errors import UserError
from nodepert.studies.callbacks import All, Callback, StateOf
from nodepert.studies.recorder import Keeper, begun, checked_interval, ended, open_folders, word_for
from nodepert.studies.run import Run, checked, run_id
from nodepert.studies.setup import build, groups, precheck
from nodepert.studies.stopping import Stopped
from nodepert.studies.store import checkpoints
from nodepert.studies.store.checkpoints import Checkpoint
from nodepert.studies.store.run_folder import RunFolder
from nodepert.training import devices, processes
from nodepert.training.compile_cache import keep_programs
from nodepert.training.metrics import Row
from nodepert.training.program import State
from nodepert.training.replicas import Epoch, fit_all

IN_USE = "in use by another process"


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


@overload
def train(runs: Run, **options: Any) -> Result: ...
@overload
def train(runs: Sequence[Run], **options: Any) -> list[Result]: ...
def train(
    runs: Run | Sequence[Run],
    *,
    data_dir: str | Path | None = None,
    data: Dataset | None = None,
    callbacks: Iterable[Callback] = (),
    name: str | None = None,
    out: str | Path = "runs",
    checkpoint_every: float = 60.0,
    skip: bool = False,
    stop: Callable[[], bool] = lambda: False,
    **how: Any,
) -> Result | list[Result]:
    """Train one run and give its `Result`, or a list of runs and give theirs. `callbacks` are told of each row as it
    comes (callbacks.py).

    Runs of a list that differ in numbers only (seed, lr, wd, whatever a rule or an optimizer takes as a float) are
    replicas of one compiled program, and each has the rows that it would have alone. `how`: lanes, on and memory, as
    replicas.fit_all takes them.

    Of several processes (see devices.py) the first one writes, and tells the callbacks.

    With a `name` runs are also kept, in `<out>/<name>/<id>/`: metrics.csv is whole after every epoch, and a run that is
    finished there is not computed again. An interrupted one goes on from its last checkpoint, and ends with the bits
    that it would have had without the break; there is one every `checkpoint_every` seconds, at the end of an epoch
    (0: after each), and a last one that stays. A run that another process is at is an error, or with `skip` left to it
    (status "in use by another process").

    Where `stop()` is true after an epoch, checkpoints are written and `Stopped` is raised. Raises UserError for
    anything in a run or the data that the user can put right.
    """
    several = [runs] if isinstance(runs, Run) else list(runs)
    checked_interval(checkpoint_every)
    for run in several:
        if not isinstance(run, Run):
            raise UserError(f"train takes a run, as in npt.train(npt.Run(rule='np')); got {type(run).__name__}")
    if len({run_id(run) for run in several}) < len(several):
        raise UserError("two of these runs are the same")
    keep_programs()
    if len(several) > 1:
        devices.cores_apart(len(several))
    if data is None:
        precheck(several)  # a wrong option is found before a missing or slow data set
    else:
        sound(data)
    sets = {spec: data or load_dataset(spec, data_dir) for spec in dict.fromkeys(checked(r).dataset for r in several)}
    work = _Work(several, sets, how, _told(callbacks), stop, checkpoint_every)
    found = work.carried_out(name, out, skip)
    return found[0] if isinstance(runs, Run) else found


class _Work:
    """Runs that are carried out together."""

    def __init__(self, runs: Sequence[Run], sets: dict[str, Dataset], how: dict[str, Any], told: All,
                 stop: Callable[[], bool], every: float):  # fmt: skip
        self.runs, self.sets, self.how, self.told, self.stop, self.every = runs, sets, how, told, stop, every
        self.results: dict[int, Result] = {}

    def carried_out(self, name: str | None, out: str | Path, skip: bool) -> list[Result]:
        """All results, in order."""
        try:
            self.carry_out(name, out, skip)
        except BaseException as error:
            self.told.broke({result.run: result.status for result in self.results.values()}, word_for(error))
            raise
        return [self.results[i] for i in range(len(self.runs))]

    def carry_out(self, name: str | None, out: str | Path, skip: bool) -> None:
        # `fit_all` complains about sizes and rates now, so that nothing is written for a run that cannot start.
        work = [(numbers, self.epochs(numbers)) for numbers in groups(self.runs)]
        with ExitStack() as stack:
            folders = {} if name is None else self.folders(stack, name, out, skip)
            for numbers, trained in work:
                left = [i for i in numbers if i not in self.results]
                if left:
                    own = {i: folders[i] for i in left if i in folders}
                    self.group(left, trained if left == numbers else None, own)

    def folders(self, stack: ExitStack, name: str, out: str | Path, skip: bool) -> dict[int, RunFolder]:
        """The runs' folders, in the process that writes; what needs no training has its result then."""
        folders = processes.by_first(lambda: open_folders(stack, self.runs, self.sets, name, out, skip)) or {}
        count = range(len(self.runs))
        done = processes.agreed([i in folders and folders[i].done for i in count])
        free = processes.agreed([i in folders for i in count])
        for i, run in enumerate(self.runs):
            if not free[i]:
                self.results[i] = Result(run, [], IN_USE)
            elif done[i]:  # its rows are in the process that writes
                folder = folders.get(i)
                self.results[i] = Result(run, folder.rows() if folder else [], folder.status if folder else "finished",
                                         None, folder and folder.path)  # fmt: skip
                self.told.on_begin(run, folder and folder.path)
                for row in self.results[i].rows:
                    self.told.on_epoch(run, row, StateOf())
                self.told.on_end(run, self.results[i].status)
        return folders

    def epochs(self, numbers: Sequence[int], begun: Sequence[Checkpoint] = ()) -> Iterator[Epoch]:
        """Training of runs of one group, from their checkpoints where there are some."""
        run = checked(self.runs[numbers[0]])
        built = build([self.runs[i] for i in numbers], self.sets[run.dataset])
        more = {"begin": begun[0].epoch, "states": [checkpoint.state for checkpoint in begun]} if begun else {}
        return fit_all(*built, batchsize=run.batchsize, epochs=run.epochs, **self.how, **more)

    def group(self, numbers: Sequence[int], trained: Iterator[Epoch] | None, folders: dict[int, RunFolder]) -> None:
        """Train the runs of one group; those that go on from one epoch together."""
        keeper = Keeper(self.runs, folders, self.every)
        try:
            found = begun(self.runs, self.sets, folders)
            source = self.sets[checked(self.runs[numbers[0]]).dataset].source
            for i, folder in folders.items():
                folder.begin(found[i].epoch if i in found else 0, device=device(), source=source)
            for i in numbers:
                self.told.on_begin(self.runs[i], folders[i].path if i in folders else None)
            for i, checkpoint in found.items():
                for row in checkpoint.rows:
                    self.told.on_epoch(self.runs[i], row, StateOf())
                status = ended(checkpoint.rows[-1], self.runs[i].epochs)
                if status:  # it was killed just before its status was written
                    checkpoints.keep_last(folders[i].path)
                    keeper.end(i, status, checkpoint.rows)
                    self.result(i, checkpoint.rows, status, checkpoint.state.params, folders[i])
                    self.told.on_end(self.runs[i], status)
            going = {i: checkpoint for i, checkpoint in found.items() if i not in self.results}
            for epoch in sorted({checkpoint.epoch for checkpoint in going.values()}):
                own = [i for i in going if going[i].epoch == epoch]
                earlier = {i: going[i].rows for i in own}
                self.follow(own, self.epochs(own, [going[i] for i in own]), keeper, earlier)
            if fresh := [i for i in numbers if i not in found]:
                self.follow(fresh, trained if trained and not found else self.epochs(fresh), keeper, {})
        except BaseException as error:
            keeper.broke(error)
            raise

    def follow(
        self, numbers: Sequence[int], epochs: Iterator[Epoch], keeper: Keeper, earlier: dict[int, list[Row]]
    ) -> None:
        """Go through the epochs, and write each as it comes. `earlier`: the rows before the first of these."""
        rows: dict[int, list[Row]] = {i: list(earlier.get(i, ())) for i in numbers}
        for found, state in epochs:
            stopping = processes.agreed([self.stop()])[0]
            trained = any(row["epoch"] for row in found.values())
            alone = jax.process_count() == 1  # orbax waits for all processes; and several begin anew anyway
            checkpoint = alone and trained and (stopping or keeper.due())
            for k, row in found.items():
                i = numbers[k]
                rows[i].append(row)
                status = ended(row, self.runs[i].epochs)
                now = state(k) if status or checkpoint else None  # a computation of all processes
                keeper.row(i, rows[i], now if alone else None)
                if now and status:
                    self.result(i, rows[i], status, now.params, keeper.folders.get(i))
                self.told.on_epoch(self.runs[i], row, StateOf(partial(_copied, state, k)))
                if status:
                    self.told.on_end(self.runs[i], status)
            if stopping and len(self.results) < len(self.runs):
                left = "goes on where it was" if alone and keeper.folders else "begins anew"
                raise Stopped(f"the same command {left}")

    def result(self, i: int, rows: list[Row], status: str, params: Params, folder: RunFolder | None) -> None:
        params = jax.tree.map(jnp.asarray, jax.device_get(params))  # not bound to the devices of the group
        self.results[i] = Result(self.runs[i], rows, status, params, folder and folder.path)


def _told(callbacks: Iterable[Callback]) -> All:
    """Who is told, in this process. Raises UserError for what is no callback."""
    if not isinstance(callbacks, Iterable):
        raise UserError(f"callbacks is a list, as in callbacks=[Show()]; got {type(callbacks).__name__}")
    callbacks = list(callbacks)
    for one in callbacks:
        if not isinstance(one, Callback):
            raise UserError(f"callbacks are instances of npt.Callback; got {type(one).__name__}")
    return All(callbacks if processes.writes() else ())


def _copied(state: Callable[[int], State], k: int) -> State:
    """A state that outlives the next epoch. Raises UserError where several processes have it."""
    if jax.process_count() > 1:
        raise UserError("a callback cannot ask for the state of training that several processes share")
    return jax.tree.map(jnp.asarray, jax.device_get(state(k)))


def device() -> str:
    """The device that computes, in words."""
    return f"{jax.default_backend()} ({jax.devices()[0].device_kind})"
