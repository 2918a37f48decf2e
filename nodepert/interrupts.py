"""Ctrl-C and SIGTERM while runs train: the first asks to stop at the end of the epoch, the second stops at once.

A KeyboardInterrupt is raised wherever the program happens to be, and may be lost there (in a callback from compiled
code, for one); what is counted is not.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

STOPPING = "stopping after this epoch, with checkpoints (Ctrl-C again: at once)"


class Stopped(Exception):
    """Training was asked to stop, and did at the end of an epoch, with a checkpoint."""


@contextmanager
def counted(heard: Callable[[], None]) -> Iterator[None]:
    """Call `heard` at each Ctrl-C and SIGTERM, in place of ending the process. For the main thread."""

    def hear(*_):
        with suppress(RuntimeError):  # it may come in the middle of a line that is being written, and say nothing then
            heard()

    before = {number: signal.signal(number, hear) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Stopping:
    """Whether this process has been asked to stop; training asks after each epoch, in every process of a job."""

    def __init__(self, say: Callable[[str], None]):
        self.say, self.count = say, 0
        self.begun = False  # whether there is anything to be kept yet

    def __call__(self) -> bool:
        self.begun = True
        return self.count > 0

    def heard(self) -> None:
        """Raises KeyboardInterrupt the second time, and where nothing has begun."""
        self.count += 1
        if self.count > 1 or not self.begun:
            raise KeyboardInterrupt
        self.say(STOPPING)
