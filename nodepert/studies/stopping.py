"""Ctrl-C, SIGTERM and SIGHUP (a closed terminal) while runs train: the first asks to stop at the end of the epoch,
the second stops at once.

A KeyboardInterrupt is raised wherever the program happens to be, and may be lost there (in a callback from compiled
code, for one); a signal that is counted is not.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

HANGUP = getattr(signal, "SIGHUP", None)  # Windows has none
ENDS = (signal.SIGTERM, *([HANGUP] if HANGUP else []))
STOPPING = "stopping after this epoch (Ctrl-C again: at once)"


class Stopped(Exception):
    """Training was asked to stop, and did at the end of an epoch; the text says how to resume."""


class Stopping:
    """Counts requests to stop. Training asks `stopping()` after each epoch, in every process of a job.

    `on_signal(self)` is called at each one; what it raises ends the program there.
    """

    def __init__(self, on_signal: Callable[[Stopping], None] = lambda stopping: None):
        self.on_signal = on_signal
        self.count = 0
        self.last = 0  # the signal's number
        self.training = False  # whether an epoch has ended since the start

    def __call__(self) -> bool:
        self.training = True
        return self.count > 0

    @contextmanager
    def listening(self, *numbers: signal.Signals, ignored: bool = False) -> Iterator[Stopping]:
        """Count these signals (by default Ctrl-C, SIGTERM and SIGHUP), in place of ending the process.

        Ignored signals stay ignored, as in background jobs of a shell, unless `ignored`; SIGHUP in any case, as under
        nohup. Outside of the main thread, where Python handles none, nothing is counted.
        """
        main = threading.current_thread() is threading.main_thread()
        numbers = numbers or (signal.SIGINT, *ENDS)
        ignoring = {number for number in numbers if signal.getsignal(number) is signal.SIG_IGN}
        heard = [n for n in numbers if main and (n not in ignoring or (ignored and n != HANGUP))]
        before = {number: signal.signal(number, self._count) for number in heard}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _count(self, number: int, _: object) -> None:
        if number == HANGUP and self.count:  # the system and the shell both send it; it is no second request
            return
        self.count += 1
        if self.last != getattr(signal, "SIGUSR2", None):  # a SIGTERM after Slurm's SIGUSR2 must not hide it
            self.last = number
        with suppress(RuntimeError):  # it may interrupt a print, and cannot print then
            self.on_signal(self)


def after_epoch(say: Callable[[str], None], text: str = STOPPING) -> Callable[[Stopping], None]:
    """For `Stopping`: the first signal stops after the epoch, the second, or one before training, at once. `text` is
    said at the first."""

    def on_signal(stopping: Stopping) -> None:
        if stopping.count > 1 or not stopping.training:
            raise KeyboardInterrupt
        say(text)

    return on_signal
