"""Locks between processes: a marker file that its owner renews while it lives (filelock's SoftFileLease).

A run's is `<run>/.owner`. The lock of an owner that has died is taken over: at once on the same machine, elsewhere
when it has not been renewed for `LASTS` seconds of the observer's own clock, so that clocks that jump or differ do not
matter.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

NAME = ".owner"
LASTS = 180.0  # seconds; longer than a network disk may show an old time
MALFORMED = 3.0  # seconds after which filelock takes over what is no lease
log = logging.getLogger("nodepert")


class Lock:
    """One lock, as this process sees it: renewals that are missing are noticed over time."""

    def __init__(self, marker: Path):
        self.marker = marker
        self._lost = False
        self._taking = threading.Lock()  # filelock's is reentrant: two threads of a process would both have it
        self._seen: tuple[Any, float] = (None, 0.0)  # the marker as it is, and since when
        from filelock import SoftFileLease  # late, here and below: what is not saved needs no lock

        self._lock = SoftFileLease(self.marker, lease_duration=LASTS, timeout=0, thread_local=False,
                                   on_compromise=self._on_compromise)  # fmt: skip

    def acquired(self, patient: bool = False) -> bool:
        """Take it if it is free; if `patient`, wait for one that seems abandoned until it expires.

        Raises OSError where it cannot be written.
        """
        end = time.monotonic() + self._patience(patient)
        while not self._taken():
            if time.monotonic() >= end:
                return False
            time.sleep(0.2)
        self._lost = False
        return True

    def held(self) -> bool:
        """Whether this process still holds it; one that slept for long may have lost it."""
        if not self._lock.is_locked or self._lost:
            return False
        try:
            return f"token={self._lock.token}" in self.marker.read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return False
        except OSError:  # a disk that does not answer has not given it to another
            return True

    def release(self) -> None:
        with suppress(OSError):
            self._lock.release()

    def free(self) -> bool:
        """Whether nobody holds it; polled, it also detects an owner that stopped renewing."""
        if not self.marker.exists():
            return True
        if not self._taken():
            return False
        self.release()
        return True

    def _taken(self) -> bool:
        with self._taking:
            if self._lock.is_locked:
                return False
            from filelock import LeaseSettingsMismatch, Timeout

            try:
                self._clear_corrupt()
                self._lock.acquire(timeout=0)
            except (Timeout, LeaseSettingsMismatch):
                return False
            return True

    def _clear_corrupt(self) -> None:
        """Remove a corrupt marker that has not changed for some time (it may be in the middle of being written)."""
        with suppress(FileNotFoundError):
            text, stat = self.marker.read_text(errors="replace")[:10_000], self.marker.stat()
            key = stat.st_ino, stat.st_mtime_ns, text
            if key != self._seen[0]:
                self._seen = key, time.monotonic()
            lasts = LASTS if text and _is_complete(text) else MALFORMED
            old = time.monotonic() - self._seen[1] >= lasts
            if old and not (text and _is_lease(text)) and self.marker.stat().st_ino == stat.st_ino:
                self.marker.unlink()

    def _patience(self, patient: bool) -> float:
        """Seconds to wait for it: none where its owner seems to live."""
        with suppress(OSError):
            text = self.marker.read_text(errors="replace")
            if not _is_complete(text):
                return MALFORMED + 1
            if patient and not _owner_lives(self.marker):
                log.warning("%s seems abandoned; waiting up to %.0f s to be sure", self.marker, LASTS)
                return LASTS + MALFORMED
        return 0

    def _on_compromise(self, _: object) -> None:
        self._lost = True


def _is_complete(text: str) -> bool:
    """Whether a marker names its owner."""
    return all(re.search(rf"^{word}=\S+$", text, re.MULTILINE) for word in ("pid", "host", "mode", "token", "duration"))


def _is_lease(text: str) -> bool:
    """Whether it is a lease that filelock takes over by itself."""
    return _is_complete(text) and {"mode=lease", f"duration={LASTS!r}"} <= set(text.splitlines())


def of(path: Path) -> Lock:
    """The lock of a run's folder: one object each in a process."""
    return _of(path.absolute() / NAME)


_of = cache(Lock)


@contextmanager
def waited_for(marker: Path) -> Iterator[None]:
    """Hold the lock of this marker, once nobody else does. Raises OSError where it cannot be written."""
    from filelock import SoftFileLease

    with SoftFileLease(marker, lease_duration=LASTS, poll_interval=0.02, thread_local=False):
        yield


def seems_held(path: Path) -> bool:
    """Whether a living process executes the run in a folder, by a look at the file; nothing is changed."""
    return _owner_lives(path / NAME)


def _owner_lives(marker: Path) -> bool:
    try:
        text, renewed = marker.read_text(errors="replace")[:10_000], marker.stat().st_mtime
    except OSError:
        return False
    owner = dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))
    if owner.get("host") == socket.gethostname() and owner.get("pid", "").isdigit():
        try:
            os.kill(int(owner["pid"]), 0)
        except (ProcessLookupError, OverflowError):
            return False
        except OSError:  # another user's
            return True
        return True
    return time.time() - renewed < LASTS
