"""Ctrl-C and SIGTERM while runs train: the first asks to stop at the end of the epoch, the second stops at once.

A KeyboardInterrupt is raised wherever the program happens to be, and may be lost there (in a callback from compiled
code, for one); what is counted is not.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

STOPPING = "stopping after this epoch (Ctrl-C again: at once)"


class Stopped(Exception):
    """Training was asked to stop, and did at the end of an epoch; the text says what is left of it."""


@contextmanager
def counted(heard: Callable[[], None]) -> Iterator[None]:
    """Call `heard` at each Ctrl-C and SIGTERM, in place of ending the process.

    Not so at a signal that is ignored, as a shell has it for what runs in the background; nor outside of the main
    thread, where Python hears none.
    """
    main = threading.current_thread() is threading.main_thread()
    numbers = [n for n in (signal.SIGINT, signal.SIGTERM) if main and signal.getsignal(n) is not signal.SIG_IGN]

    def hear(*_):
        with suppress(RuntimeError):  # it may come in the middle of a line that is being written, and say nothing then
            heard()

    before = {number: signal.signal(number, hear) for number in numbers}
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
