"""What the terminal shows of a sweep: the plan, how its jobs stand, and what came of it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.markup import escape
from rich.table import Table

from nodepert.cli import display, live
from nodepert.cli.options import labels
from nodepert.studies.run import Run
from nodepert.studies.setup import groups
from nodepert.studies.stopping import STOPPING
from nodepert.studies.store.run_folder import FAILED, RUNNING, RunFolder
from nodepert.studies.sweep.sweep import Standing, Sweep
from nodepert.studies.train import Result


def show_plan(study: Sweep) -> None:
    """A line per group: what its runs have in common, what differs, how many there are; and what it will cost."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("dataset", "network", "rule", "optimizer"):
        table.add_column(column, overflow="fold")
    for column in ("batchsize", "epochs", "runs", "done"):
        table.add_column(column, justify="right", no_wrap=True)
    found = groups(study.runs)
    for group in found:
        own = [study.runs[i] for i in group]
        words = (said(own, name) for name in ("dataset", "network", "rule", "optimizer"))
        done = sum(study.stands[i].through for i in group)
        table.add_row(*map(escape, words), str(own[0].batchsize), str(own[0].epochs), f"{len(own):,}", f"{done:,}")
    display.console.print(table)
    done = sum(stand.through for stand in study.stands)
    others = {word: sum(stand.status == word for stand in study.stands) for word in (FAILED, RUNNING)}
    more = "".join(f", {count:,} {word}" for word, count in others.items() if count)
    print(f"{study.name}: {len(study.runs):,} runs in {len(found):,} groups (one compiled program each); {done:,} done"
          f"{more}, {cost(study, found)}")  # fmt: skip


def cost(study: Sweep, found: Sequence[Sequence[int]]) -> str:
    """Epochs that are left, and how long they take where runs of each group have been timed."""
    left = {i: study.runs[i].epochs - stand.epoch for i, stand in enumerate(study.stands) if not stand.through}
    epochs, seconds = sum(left.values()), 0.0
    for group in found:
        ours = [i for i in group if i in left]
        times = [t for i in group if (row := study.stands[i].row) and (t := row["epoch_time"]) > 0]
        if ours and not times:
            return f"{epochs:,} epochs to train"
        seconds += sum(left[i] for i in ours) * sum(times) / len(times) if ours else 0
    return f"{epochs:,} epochs to train" + (f", about {live.duration(seconds)}" if epochs else "")


def said(runs: Sequence[Run], option: str) -> str:
    """The value of an option, or how many there are."""
    values: list[Any] = list(dict.fromkeys(getattr(run, option) for run in runs))
    return values[0] if len(values) == 1 else f"{values[0]} and {len(values) - 1} more"


def on_interrupt(study: Sweep, launcher: Any) -> Callable[[], None]:
    """What to do at Ctrl-C: count it, and say what happens now."""

    def heard() -> None:
        study.interrupts += 1
        if launcher.detaches:
            display.console.print("leaving the jobs with their scheduler")
        elif study.interrupts == 1:
            display.console.print(STOPPING)

    return heard


@contextmanager
def shown(study: Sweep) -> Iterator[Callable[[], None]]:
    """Yields what shows how the sweep stands: runs with their curves on a terminal, lines of what is new elsewhere."""
    named = labels(study.runs)
    if not display.console.is_terminal:
        yield _lines(study, named)
        return
    before = sum(stand.epoch for stand in study.stands)
    with live.drawn(lambda: _standing(study, named), lambda seconds: _footer(study, seconds, before)):
        yield lambda: None


def _lines(study: Sweep, named: Sequence[str]) -> Callable[[], None]:
    told: dict[Any, str] = {i: stand.status for i, stand in enumerate(study.stands) if stand.through}

    def show() -> None:
        for batch in study.batches:
            for path, runs, state in zip(batch.paths, batch.runs, batch.states, strict=True):
                if told.get(path, "waiting") != state.word:
                    told[path] = state.word
                    print(f"job {path.stem}, {len(runs)} runs of {named[runs[0]]}: {state.word} {state.why}".rstrip())
        done = sum(isinstance(key, int) for key in told)
        for i, stand in enumerate(study.stands):
            if stand.through and i not in told:
                told[i], done = stand.status, done + 1
                print(f"[{done}/{len(study.runs)}] {named[i]}: {stand.status}{_figure(stand)}", flush=True)

    return show


def _figure(stand: Standing) -> str:
    return f", test {stand.row['test_acc']:.1f}%" if stand.row and stand.status == "finished" else ""


def _standing(study: Sweep, named: Sequence[str]) -> list[live.Line]:
    """The runs that are in jobs, as they stand; those of jobs that failed or wait say so."""
    jobs = {i: state.word for batch in study.batches for runs, state in zip(batch.runs, batch.states, strict=True)
            for i in runs}  # fmt: skip
    words = [_word(stand, jobs.get(i, "")) for i, stand in enumerate(study.stands)]
    return [live.Line(named[i], stand.curve, stand.epoch, study.runs[i].epochs, word)
            for i, (stand, word) in enumerate(zip(study.stands, words, strict=True))
            if i in jobs or stand.status == RUNNING]  # fmt: skip


def _word(stand: Standing, job: str) -> str:
    """How a run stands, where its job is known: a run that was interrupted and waits for its job waits."""
    if stand.through or job == FAILED:
        return stand.status if stand.through else FAILED
    return stand.status if job != "waiting" and stand.status in ("", RUNNING, FAILED) else ""


def _footer(study: Sweep, seconds: float, before: int) -> list[str]:
    """How many jobs and runs stand how, and how long the rest will take at this pace."""
    stands = list(zip(study.runs, study.stands, strict=True))
    left = sum(run.epochs - stand.epoch for run, stand in stands if not stand.through)
    trained = sum(stand.epoch for stand in study.stands) - before
    words = Counter(state.word for batch in study.batches for state in batch.states)
    jobs = [f"{words[word]} {word}" for word in ("running", "waiting", "failed") if words[word]]
    done = sum(stand.through for stand in study.stands)
    return [
        f"{done:,}/{len(study.runs):,} runs",
        f"jobs: {' '.join(jobs) or 'none'}",
        live.pace(trained, left, seconds),
    ]


def report(study: Sweep, launcher: Any, command: str) -> None:
    """The table of what is through, each job that failed with the end of its log, and what to type next."""
    through = [i for i, stand in enumerate(study.stands) if stand.through]
    if through:
        named = labels(study.runs, apart=["seed", "lr"])
        rows = [RunFolder.read(study.folders[i]).rows() for i in through]
        results = [Result(study.runs[i], own, study.stands[i].status) for i, own in zip(through, rows, strict=True)]
        display.console.print(display.results([named[i] for i in through], results))
    for failure in study.failures:
        runs = ", ".join(dict.fromkeys(labels([study.runs[i] for i in failure.runs])))
        print(f"\nfailed: {len(failure.runs)} runs of {runs}: {failure.why}\n  {failure.log}")
        print("\n".join(f"  | {line}" for line in failure.lines))
    print(f"{len(through):,} of {len(study.runs):,} runs are through; rows: nodepert results {study.name}"
          f"{f' --out {study.out}' * (str(study.out) != 'runs')}")  # fmt: skip
    if study.failures:
        print(f"the failed ones again: {command} --retry")
    elif study.interrupts and launcher.detaches:
        watch = " --watch" if re.search(r"--launcher[ =]slurm", command) else ""
        print(f"the jobs go on; to see how they stand: {command}{watch}")
    elif len(through) < len(study.runs):
        print(f"the rest: {command}")
