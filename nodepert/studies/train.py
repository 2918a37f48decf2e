"""`train`: execute runs, and save what comes out as they go."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path
from typing import Any, overload

import jax
import jax.numpy as jnp

from nodepert.data import Dataset
from nodepert.data.dataset import fingerprint
from nodepert.errors import UserError
from nodepert.registry.generator import pinned
from nodepert.studies import notebook
from nodepert.studies.callbacks import Callback, Callbacks, StateOf
from nodepert.studies.course import Course, copied
from nodepert.studies.execution import Execution, execution_of
from nodepert.studies.load import facts_of, trained_in
from nodepert.studies.output import guarded
from nodepert.studies.recorder import Recorder, open_folders, status_after
from nodepert.studies.result import Result as Result
from nodepert.studies.result import Results
from nodepert.studies.resume import find_checkpoints
from nodepert.studies.run import Run, refuse_unnamed
from nodepert.studies.setup import Group, prepare
from nodepert.studies.stopping import Stopped
from nodepert.studies.store import checkpoints
from nodepert.studies.store.checkpoints import Checkpoint
from nodepert.studies.store.run_folder import FINISHED, RunFolder
from nodepert.studies.trackers.tracker import called_in
from nodepert.training import devices, processes
from nodepert.training.compile_cache import keep_programs
from nodepert.training.metrics import Row
from nodepert.training.predictor import Trained
from nodepert.training.program import State
from nodepert.training.replicas import Epoch, fit_all

LOCKED, HELD = "locked by another process", 2**26  # bytes of networks of saved runs that stay in memory


@overload
def train(runs: Run, **options: Any) -> Result: ...
@overload
def train(runs: Sequence[Run], **options: Any) -> list[Result]: ...
@pinned()
def train(
    runs: Run | Sequence[Run],
    *,
    data: Dataset | None = None,
    callbacks: Iterable[Callback] = (),
    name: str | None = None,
    out: str | Path = "runs",
    skip: bool = False,
    stop: Callable[[], bool] = lambda: False,
    execution: Execution | None = None,
    **options: Any,
) -> Result | list[Result]:
    """Train one run or several.

    Runs of a list that differ in numbers only (seed, lr, wd, whatever a rule or an optimizer takes as a float) are
    replicas of one compiled program, and each has the rows that it would have alone. If several processes
    share a computation, only the first writes files and calls the callbacks.

    With a `name` runs are saved in `<out>/<name>/<id>/`: metrics.csv is complete after every epoch, and a run that has
    finished there is read back. An interrupted run resumes from its last checkpoint, with bit-identical results.
    Networks beyond 64 MB in all are read from these folders when asked for.

    Args:
        runs: A `Run`, or a sequence of runs.
        data: The data set, in place of the one that the runs name.
        callbacks: `Callback`s, called at each run's start, epochs and end.
        name: Name of the study; without one nothing is saved.
        out: Folder of all results.
        skip: Skip runs locked by another process (their status says so) instead of raising an error.
        stop: Called after every epoch; if it returns True, checkpoints are saved and `Stopped` is raised.
        execution: An `Execution`; its fields are keywords as well:
        **options: data_dir, checkpoint_every, log, metrics, lanes, memory, spread_batch, exchange.

    Returns:
        A `Result`, or a list of them in the order of the runs.

    Raises:
        UserError: For whatever the user can fix in a run, the data or an option.

    Examples:
        >>> result = npt.train(npt.Run(dataset="digits", network="fc(width=10)", epochs=1))
        >>> result.status
        'finished'
    """
    several = [runs] if isinstance(runs, Run) else list(runs)
    if options.pop("on", None) is not None:
        warnings.warn("on= is spread_batch=True now; several runs are spread anyway", DeprecationWarning, stacklevel=3)
        options["spread_batch"] = len(several) == 1
    execution = execution_of(execution, **options)
    if wrong := [run for run in several if not isinstance(run, Run)]:
        raise UserError(f"train takes a run, as in npt.train(npt.Run(rule='np')); got {type(wrong[0]).__name__}")
    if len({run.id for run in several}) < len(several):
        raise UserError("two of these runs are the same")
    execution.check_runs(several)
    refuse_unnamed(several if name is not None else (), "saved")
    keep_programs()
    devices.cores_apart(len(several))
    called = called_in(callbacks, execution.log, notebook.progress(several))  # a missing tracker is found before data
    groups = prepare(several, data, execution.data_dir)
    for group in groups:
        group.metrics(execution.metrics)  # an unknown node is found before anything is written
    work = _Work(several, groups, execution, called, stop)
    found = work.results_of_all(name, out, skip)
    return found[0] if isinstance(runs, Run) else found


class _Work:
    """Runs that are executed together."""

    def __init__(self, runs: Sequence[Run], groups: Sequence[Group], execution: Execution, callbacks: Callbacks,
                 stop: Callable[[], bool]):  # fmt: skip
        self.runs, self.groups, self.execution, self.callbacks, self.stop = runs, groups, execution, callbacks, stop
        self.results: dict[int, Result] = {}
        self.held = 0  # bytes of networks
        self.sets = {group.runs[0].dataset: group.data for group in groups}
        self.print = cache(lambda spec: fingerprint(self.sets[spec]))
        self.predictors = {i: predictor for group in groups
                           for i, predictor in zip(group.numbers, group.predictors(), strict=True)}  # fmt: skip

    @guarded()
    def results_of_all(self, name: str | None, out: str | Path, skip: bool) -> list[Result]:
        """Execute the runs; their results in order."""
        try:
            with ExitStack() as stack:
                folders = {} if name is None else self.open_folders(stack, name, out, skip)
                for group in self.groups:
                    if left := [i for i in group.numbers if i not in self.results]:
                        self.train_group(group.part(left), {i: folders[i] for i in left if i in folders})
        except BaseException as error:
            statuses = {result.run: result.status for result in self.results.values()}
            self.callbacks.break_off(statuses, status_after(error))
            raise
        return Results(self.results[i] for i in range(len(self.runs)))

    def open_folders(self, stack: ExitStack, name: str, out: str | Path, skip: bool) -> dict[int, RunFolder]:
        """The runs' folders, in the process that writes. Runs that need no training get their results."""
        opened = partial(open_folders, stack, self.runs, self.sets, self.predictors, name, out, skip)
        folders = processes.by_first(opened) or {}
        count = range(len(self.runs))
        done = processes.agreed([i in folders and folders[i].done for i in count])
        free = processes.agreed([i in folders for i in count])
        for i, run in enumerate(self.runs):
            if not free[i]:
                self.results[i] = Result(run, [], LOCKED)
            elif done[i]:
                self.read_back(i, run, folders.get(i))
        return folders

    def read_back(self, i: int, run: Run, folder: RunFolder | None) -> None:
        """The result of a run that was finished before; its rows are in the process that writes."""
        rows, status = (folder.rows(), folder.status) if folder else ([], FINISHED)
        source = partial(trained_in, folder.path, self.predictors[i]) if folder else None
        self.results[i] = self.result(run, rows, status, source, folder)
        self.callbacks.on_begin(run, folder and folder.path)
        for row in rows:
            self.callbacks.on_epoch(run, row, StateOf())
        self.callbacks.on_end(run, status)

    def train_group(self, group: Group, folders: dict[int, RunFolder]) -> None:
        """Train the runs of one group: those without a checkpoint, and those that resume from one epoch, together."""
        recorder = Recorder(folders, self.execution.checkpoint_every, self.predictors)
        try:
            found = find_checkpoints(group, folders)
            for i, folder in folders.items():
                begin = found[i].epoch if i in found else 0
                folder.start(begin, device=devices.device_name(), source=group.data.source)
            for i, run in zip(group.numbers, group.runs, strict=True):
                self.callbacks.on_begin(run, folders[i].path if i in folders else None)
            for i, checkpoint in found.items():
                self.replay(i, checkpoint, recorder)
            left = {i: checkpoint for i, checkpoint in found.items() if i not in self.results}
            for epoch in sorted({checkpoint.epoch for checkpoint in left.values()}):
                resumed = {i: checkpoint for i, checkpoint in left.items() if checkpoint.epoch == epoch}
                self.follow(group.part(list(resumed)), recorder, resumed)
            if fresh := [i for i in group.numbers if i not in found]:
                self.follow(group.part(fresh), recorder, {})
        except BaseException as error:
            recorder.break_off(error)
            raise

    def replay(self, i: int, checkpoint: Checkpoint, recorder: Recorder) -> None:
        """Call the callbacks for the rows of a checkpoint; if they are complete, finish the run."""
        course = Course(self.runs[i], checkpoint)
        for row in course.rows:
            self.callbacks.on_epoch(course.run, row, StateOf())
        if status := course.status:  # the process was killed just before it wrote the status
            folder = recorder.folders[i]
            checkpoints.keep_last(folder.path)
            recorder.end(i, status, course.rows)
            self.set_result(i, course, checkpoint.state, folder)
            self.callbacks.on_end(course.run, status)

    def epochs(self, group: Group, found: dict[int, Checkpoint]) -> Iterator[Epoch]:
        """The epochs of a group, from their common checkpoint on where there is one."""
        run, how, report = group.runs[0], self.execution, self.callbacks.of_batches(group.runs)
        more = {"begin": next(iter(found.values())).epoch, "states": [c.state for c in found.values()]} if found else {}
        return fit_all(group.model, group.loss, group.data, group.hypers, batchsize=run.batchsize, epochs=run.epochs,
                       lanes=how.lanes, memory=how.memory, metrics=group.metrics(how.metrics),
                       on=jax.devices() if how.one_run else None, exchange=how.exchange, on_batches=report,
                       **more)  # fmt: skip

    def follow(self, group: Group, recorder: Recorder, found: dict[int, Checkpoint]) -> None:
        """Train runs together, and write each epoch as it comes."""
        courses = {i: Course(run, found.get(i)) for i, run in zip(group.numbers, group.runs, strict=True)}
        for epoch in self.epochs(group, found):
            new, state = epoch.rows, epoch.state
            stopping = processes.agreed([self.stop()])[0]
            trained = any(row["epoch"] for row in new.values())
            alone = jax.process_count() == 1  # several processes start again anyway
            checkpoint = alone and trained and (stopping or recorder.checkpoint_is_due())
            for k, row in new.items():
                course = courses[i := group.numbers[k]]
                course.add(row, partial(state, k))
                status = course.status
                now = state(k) if status or checkpoint else None  # a computation of all processes
                recorder.write(i, course, now if alone or status else None)
                if now and status:
                    self.set_result(i, course, now, recorder.folders.get(i))
                    epoch.end(k)
                self.callbacks.on_epoch(course.run, row, StateOf(partial(copied, state, k), epoch.seconds / len(new)))
                if status:
                    self.callbacks.on_end(self.runs[i], status)
            if stopping and len(self.results) < len(self.runs):
                raise Stopped(f"the same command {'resumes' if alone and recorder.folders else 'starts again'}")

    def set_result(self, i: int, course: Course, state: State, folder: RunFolder | None) -> None:
        params = course.params(state)
        self.held += sum(leaf.nbytes for leaf in jax.tree.leaves(params))
        found: Any = partial(trained_in, folder.path, self.predictors[i]) if folder and self.held > HELD else None
        if not found:  # in memory, and not bound to devices of the group
            found = Trained(self.predictors[i], jax.tree.map(jnp.asarray, jax.device_get(params)))
        self.results[i] = self.result(course.run, course.rows, str(course.status), found, folder, new=True)

    def result(self, run: Run, rows: list[Row], status: str, found: Any, folder: RunFolder | None, new: bool = False):
        facts = facts_of(folder.record) if folder else {"data": self.print(run.dataset)}
        return Result(run, rows, status, found, folder and folder.path, facts, new)
