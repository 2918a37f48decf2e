"""A sweep on the terminal: the plan, the states of jobs and runs, the results."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.markup import escape
from rich.table import Table

from nodepert.cli import display, live
from nodepert.cli.pace import Pace, duration
from nodepert.studies.labels import labels
from nodepert.studies.result import Result
from nodepert.studies.run import Run
from nodepert.studies.setup import groups
from nodepert.studies.stopping import STOPPING, Stopping
from nodepert.studies.store.run_folder import FAILED, RUNNING, RunFolder, succeeded
from nodepert.studies.sweep.jobs import Launcher
from nodepert.studies.sweep.sweep import Progress, Sweep
from nodepert.training.metrics import in_words, score_of


def show_plan(study: Sweep) -> None:
    """Print a row per group of runs, and the work left."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("dataset", "network", "rule", "optimizer"):
        table.add_column(column, overflow="fold")
    for column in ("batchsize", "epochs", "runs", "done"):
        table.add_column(column, justify="right", no_wrap=True)
    found = groups(study.runs)
    for group in found:
        own = [study.runs[i] for i in group]
        texts = (value_text(own, name) for name in ("dataset", "network", "rule", "optimizer"))
        done = sum(study.progress[i].finished for i in group)
        table.add_row(*map(escape, texts), str(own[0].batchsize), str(own[0].epochs), f"{len(own):,}", f"{done:,}")
    display.console.print(table)
    done = sum(progress.finished for progress in study.progress)
    others = {word: sum(progress.status == word for progress in study.progress) for word in (FAILED, RUNNING)}
    more = "".join(f", {count:,} {word}" for word, count in others.items() if count)
    print(f"{study.name}: {len(study.runs):,} runs in {len(found):,} groups (one compiled program each); {done:,} done"
          f"{more}, {cost(study, found)}")  # fmt: skip


def cost(study: Sweep, found: Sequence[Sequence[int]]) -> str:
    """The epochs left, and their duration if runs of each group have been timed."""
    left = {i: study.runs[i].epochs - p.epoch for i, p in enumerate(study.progress) if not p.finished}
    epochs, seconds = sum(left.values()), 0.0
    for group in found:
        unfinished = [i for i in group if i in left]
        times = [t for i in group if (row := study.progress[i].last) and (t := row.get("epoch_time", 0)) > 0]
        if unfinished and not times:
            return f"{epochs:,} epochs to train"
        seconds += sum(left[i] for i in unfinished) * sum(times) / len(times) if unfinished else 0
    return f"{epochs:,} epochs to train" + (f", about {duration(seconds)}" if epochs else "")


def value_text(runs: Sequence[Run], option: str) -> str:
    """The value of an option, or the first of several and their number."""
    values: list[Any] = list(dict.fromkeys(getattr(run, option) for run in runs))
    return values[0] if len(values) == 1 else f"{values[0]} and {len(values) - 1} more"


def on_signal(launcher: Launcher) -> Callable[[Stopping], None]:
    """The function that prints a message at Ctrl-C."""

    def show(stopping: Stopping) -> None:
        if launcher.detaches:
            display.console.print("the jobs continue under their scheduler")
        elif stopping.count == 1:
            display.console.print(STOPPING)

    return show


@contextmanager
def shown(study: Sweep) -> Iterator[Callable[[], None]]:
    """Yields a function that shows the state of the sweep: curves on a terminal, elsewhere a line per change."""
    named = labels(study.runs)
    if not display.console.is_terminal:
        yield _lines(study, named)
        return
    pace = Pace({i: run.epochs for i, run in enumerate(study.runs)})
    observe(study, pace, 0.0)
    with live.drawn(lambda: _live_lines(study, named), lambda seconds: _footer(study, seconds, pace)):
        yield lambda: None


def observe(study: Sweep, pace: Pace, now: float) -> None:
    """Update the pace from the runs' folders. Epochs from before the start are estimates."""
    for i, progress in enumerate(study.progress):
        left = 0 if progress.finished else study.runs[i].epochs - progress.epoch
        if left != pace.left[i] or not now:
            share = (progress.last or {}).get("epoch_time", 0.0)
            (pace.trained if now and share else pace.expected)(i, left, share, now)


def _lines(study: Sweep, named: Sequence[str]) -> Callable[[], None]:
    printed: dict[Any, str] = {i: progress.status for i, progress in enumerate(study.progress) if progress.finished}

    def show() -> None:
        for batch in study.batches:
            for path, runs, state in zip(batch.paths, batch.runs, batch.states, strict=True):
                if printed.get(path, "waiting") != state.word:
                    printed[path] = state.word
                    print(f"job {path.stem}, {len(runs)} runs of {named[runs[0]]}: {state.word} {state.why}".rstrip())
        done = sum(isinstance(key, int) for key in printed)
        for i, progress in enumerate(study.progress):
            if progress.finished and i not in printed:
                printed[i], done = progress.status, done + 1
                print(f"[{done}/{len(study.runs)}] {named[i]}: {progress.status}{_score(progress)}", flush=True)

    return show


def _score(progress: Progress) -> str:
    if not progress.last or not succeeded(progress.status):
        return ""
    return f", {in_words(score_of(progress.last), progress.curve[-1])}"


def _live_lines(study: Sweep, named: Sequence[str]) -> list[live.Line]:
    """The runs of this sweep's jobs, and those that another process runs."""
    jobs = {i: state.word for batch in study.batches for runs, state in zip(batch.runs, batch.states, strict=True)
            for i in runs}  # fmt: skip
    statuses = [_run_status(progress, jobs.get(i, "")) for i, progress in enumerate(study.progress)]
    return [live.Line(named[i], progress.curve, progress.epoch, study.runs[i].epochs, status,
                      score_of(progress.last or ()))
            for i, (progress, status) in enumerate(zip(study.progress, statuses, strict=True))
            if i in jobs or progress.status == RUNNING]  # fmt: skip


def _run_status(progress: Progress, job: str) -> str:
    """The status of a run, given that of its job; an interrupted run in a waiting job is waiting ("")."""
    if progress.finished or job == FAILED:
        return progress.status if progress.finished else FAILED
    return progress.status if job != "waiting" and progress.status in ("", RUNNING, FAILED) else ""


def _footer(study: Sweep, seconds: float, pace: Pace) -> list[str]:
    """Counts of runs and jobs, and the time left at the pace of the latest epochs."""
    observe(study, pace, seconds)
    counts = Counter(state.word for batch in study.batches for state in batch.states)
    jobs = [f"{counts[word]} {word}" for word in ("running", "waiting", "failed") if counts[word]]
    done = sum(progress.finished for progress in study.progress)
    running = [i for i, progress in enumerate(study.progress) if progress.status == RUNNING]
    return [
        f"{done:,}/{len(study.runs):,} runs",
        f"jobs: {' '.join(jobs) or 'none'}",
        pace.text(seconds, seconds, running, max(1, counts["running"])),
    ]


def report(study: Sweep, launcher: Launcher, command: str) -> None:
    """Print the table of results, the end of the log of each failed job, and the next command."""
    finished = [i for i, progress in enumerate(study.progress) if progress.finished]
    if finished:
        named = labels(study.runs, apart=["seed", "lr"])
        folders = [RunFolder.read(study.folders[i]) for i in finished]
        results = [Result(study.runs[i], f.rows(), f.status) for i, f in zip(finished, folders, strict=True)]
        display.console.print(display.results([named[i] for i in finished], results))
    for failure in study.failures:
        runs = ", ".join(dict.fromkeys(labels([study.runs[i] for i in failure.runs])))
        print(f"\nfailed: {len(failure.runs)} runs of {runs}: {failure.why}\n  {failure.log}")
        print("\n".join(f"  | {line}" for line in failure.lines))
    out = os.path.relpath(study.out)
    print(f"{len(finished):,} of {len(study.runs):,} runs have finished; rows: nodepert results {study.name}"
          f"{f' --out {out}' * (out != 'runs')}")  # fmt: skip
    if study.failures:
        print(f"to run failed runs again: {command} --retry")
    elif study.stopping.count and launcher.detaches:
        print(f"the jobs continue; to watch them: {command}{' --watch' * launcher.attaches}")
    elif len(finished) < len(study.runs):
        print(f"to run the rest: {command}")
