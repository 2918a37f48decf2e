"""Standard output and error that may become unavailable: a closed pipe, a full disk, a closed terminal.

Inside `guarded()` printing raises no error: what cannot be written is dropped, and the first error is recorded. The
results of training are in files, so that training continues without output.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

NAMES = ("stdout", "stderr")
log = logging.getLogger("nodepert")
_lock = threading.Lock()


class Output:
    """A text stream that drops what cannot be written while `guarded` uses it; otherwise it raises the stream's errors.

    `lost` is the error that ended its output. A non-blocking stream drops what a slow reader has no room for, and is
    not lost.
    """

    def __init__(self, stream: Any):
        self.missing = stream is None  # closed before Python started
        self.stream = open(os.devnull, "w", encoding="utf-8") if self.missing else stream  # noqa: SIM115
        self.lost: OSError | None = None
        self.blocked = False  # whether the reader was too slow for the latest write
        self.users = 0  # contexts of `guarded`; none if redirect_stdout has restored it after the last one

    def write(self, text: str) -> int:
        self._attempt(lambda: self._written(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        self._attempt(self.stream.flush)

    def silence(self) -> None:
        """Send the file to the null device, so that nothing more can fail, not even the flush at the end of Python."""
        with suppress(OSError, ValueError, AttributeError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.stream.fileno())
            os.close(null)

    def _written(self, text: str) -> None:
        if self.missing and text and self.users:
            raise OSError(errno.EBADF, "standard output is closed")
        try:
            self.stream.write(text)
        except UnicodeEncodeError as error:  # an encoding without these characters
            self.stream.write(text.encode(error.encoding, "replace").decode(error.encoding))

    def _attempt(self, act: Callable[[], Any]) -> None:
        if not self.users:
            act()
        elif self.lost is None:
            self.blocked = False
            try:
                act()
            except BlockingIOError:
                self.blocked = True
            except OSError as error:
                self.lost = error
            except ValueError as error:  # a closed file
                self.lost = OSError(errno.EBADF, str(error))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def guarded(report: bool = True) -> Iterator[None]:
    """sys.stdout and sys.stderr are `Output` inside, in all threads. `report`: warn of lost output at the end."""
    with _lock:
        fill_descriptors()
        for name in NAMES:
            stream = getattr(sys, name)
            if not isinstance(stream, Output) or not stream.users:
                setattr(sys, name, Output(_unwrapped(stream)))
        used = {name: getattr(sys, name) for name in NAMES}
        for stream in used.values():
            stream.users += 1
    try:
        yield
    finally:
        with _lock:
            for name, stream in used.items():
                stream.users -= 1
                if not stream.users and getattr(sys, name) is stream:  # else it was replaced since
                    setattr(sys, name, _unwrapped(stream))
        out = used["stdout"]
        if report and out.lost and not (out.users or out.missing):
            log.warning("standard output could not be written to the end (%s)", out.lost.strerror)


def _unwrapped(stream: Any) -> Any:
    """The stream that was there before `guarded`; None if it was closed."""
    return stream if not isinstance(stream, Output) else None if stream.missing else stream.stream


def fill_descriptors() -> None:
    """Open the null device for standard descriptors that are closed: the next file that is opened would get their
    number, and what a library prints would go into it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number
