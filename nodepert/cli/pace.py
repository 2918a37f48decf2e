"""How long training will take: from the seconds of the latest epochs, without compilation; within the first, from the
batches that are done."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Mapping
from statistics import fmean

LATEST = 5  # epochs of a run that count
JUMP = 1.15  # times the time left: less is taken for noise, and the time left does not increase


class Pace:
    """Shares of runs in the seconds of an epoch, and the time left.

    Replicas of one program share its seconds; a run that has not completed an epoch counts as the mean of the others.
    """

    def __init__(self, epochs: Mapping[Hashable, float], unit: str = "epoch"):
        self.unit = unit  # what is called an epoch here
        self.left = dict(epochs)  # epochs left of each run
        self.shares: dict[Hashable, deque[float]] = {run: deque(maxlen=LATEST) for run in epochs}
        self.estimates: dict[Hashable, float] = {}  # before a run's first epoch ends
        self.done: dict[Hashable, float] = {}  # the part of its epoch that a run has completed
        self.since = 0.0  # when the latest epoch, or part of one, ended
        self.shown: float | None = None

    def trained(self, run: Hashable, left: float, share: float, now: float) -> None:
        """An epoch of a run has ended: the number of epochs left, and its share of the epoch's seconds."""
        self.left[run], self.since = left, now
        self.estimates.pop(run, None)
        self.done.pop(run, None)
        self.shares[run].append(share)

    def expected(self, run: Hashable, left: int, share: float, now: float) -> None:
        """The share that an epoch of a run will have, roughly: none has ended yet."""
        self.left[run], self.since = left, now
        if share > 0:
            self.estimates[run] = share

    def under_way(self, run: Hashable, done: float, share: float, now: float) -> None:
        """A part of an epoch has ended: how much of it is done, and the share that all of it will have at this rate."""
        self.done[run], self.since = done, now
        if not self.shares[run]:
            self.estimates[run] = share

    def ended(self, run: Hashable) -> None:
        """A run has ended, with however many epochs."""
        self.left[run] = 0

    @property
    def measured(self) -> bool:
        """Whether an epoch has ended."""
        return any(self.shares.values())

    def share(self, run: Hashable) -> float | None:
        """Seconds per epoch of a run; None if nothing is known."""
        if self.shares[run]:
            return fmean(self.shares[run])
        if run in self.estimates:
            return self.estimates[run]
        known = [fmean(shares) for shares in self.shares.values() if shares] or list(self.estimates.values())
        return fmean(known) if known else None

    def seconds_left(self, now: float, running: Iterable[Hashable] | None = None, at_once: int = 1) -> float | None:
        """Seconds left, with so many programs at once; None if nothing is known.

        It counts down during the epoch of the `running` runs (None: something is compiled), and increases only if the
        pace has changed.
        """
        shares = {run: share for run, left in self.left.items() if left and (share := self.share(run)) is not None}
        if not shares:
            return None
        total = sum((self.left[run] - self.done.get(run, 0.0)) * share for run, share in shares.items())
        epoch = sum(shares.get(run, 0.0) * (1 - self.done.get(run, 0.0)) for run in running or ())
        found = max(0.0, total - min(max(0.0, now - self.since), epoch)) / max(1, at_once)
        if self.shown is None or found < self.shown or found > JUMP * self.shown + 2:
            self.shown = found
        return self.shown

    def text(self, seconds: float, now: float, running: Iterable[Hashable] | None = None, at_once: int = 1) -> str:
        """The time so far, the speed, and the time left."""
        texts = [duration(seconds)]
        known = [fmean(shares) for shares in self.shares.values() if shares]
        if known and (mean := fmean(known) / max(1, at_once)) > 0:
            texts.append(f"{number(1 / mean)} {self.unit}s/s" if mean <= 1 else f"{number(mean)} s/{self.unit}")
        left = self.seconds_left(now, running, at_once)
        if left is not None and any(self.left.values()):
            texts.append(f"{'about' if self.measured else 'roughly'} {duration(left)} left")
        return ", ".join(texts)


def number(value: float) -> str:
    """A number to three digits, without an exponent."""
    return f"{float(f'{value:.3g}'):,.12g}"


def duration(seconds: float) -> str:
    """A duration as text: 40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
