"""Who is at a run: `<run>/.owner`, a lease that its process renews while it lives (filelock's SoftFileLease).

The lease of an owner that has died is taken over: at once on the same machine, elsewhere when it has not been renewed
for `LASTS` seconds of the observer's own clock, so that clocks that jump or differ do not matter.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from filelock import LeaseSettingsMismatch, SoftFileLease, Timeout

NAME = ".owner"
LASTS = 180.0  # seconds; longer than a network disk may show an old time
MALFORMED = 3.0  # seconds after which filelock takes over what is no lease
log = logging.getLogger("nodepert")


class Lease:
    """The lease of one run's folder, as this process sees it: renewals that are missing are noticed over time."""

    def __init__(self, path: Path):
        self.marker = path / NAME
        self._lost = False
        self._seen: tuple[Any, float] = (None, 0.0)  # the marker as it is, and since when
        self._lock = SoftFileLease(self.marker, lease_duration=LASTS, timeout=0, thread_local=False,
                                   on_compromise=self._on_compromise)  # fmt: skip

    def acquired(self, patient: bool = False) -> bool:
        """Take it, if nobody has it; if `patient`, one that seems abandoned is watched for as long as it lasts.

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
        """Whether it is still this process's; one that slept for long may have lost it to another."""
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
        """Whether nobody has it; asked again and again, also notices an owner that no longer renews it."""
        if not self.marker.exists():
            return True
        if not self._taken():
            return False
        self.release()
        return True

    def _taken(self) -> bool:
        if self._lock.is_locked:
            return False
        try:
            self._clear_what_is_none()
            self._lock.acquire(timeout=0)
        except (Timeout, LeaseSettingsMismatch):
            return False
        return True

    def _clear_what_is_none(self) -> None:
        """Remove a marker that is damaged, when it has not changed for some time: it may be just being written."""
        with suppress(FileNotFoundError):
            text, stat = self.marker.read_text(errors="replace")[:10_000], self.marker.stat()
            key = stat.st_ino, stat.st_mtime_ns, text
            if key != self._seen[0]:
                self._seen = key, time.monotonic()
            lasts = LASTS if text and _whole(text) else MALFORMED
            old = time.monotonic() - self._seen[1] >= lasts
            if old and not (text and _ours(text)) and self.marker.stat().st_ino == stat.st_ino:
                self.marker.unlink()

    def _patience(self, patient: bool) -> float:
        """Seconds to wait for it: none where it seems that its owner lives."""
        with suppress(OSError):
            text = self.marker.read_text(errors="replace")
            if not _whole(text):
                return MALFORMED + 1
            if patient and not seems_held(self.marker.parent):
                log.warning("%s seems abandoned; waiting up to %.0f s to be sure", self.marker, LASTS)
                return LASTS + MALFORMED
        return 0

    def _on_compromise(self, _: object) -> None:
        self._lost = True


def _whole(text: str) -> bool:
    """Whether a marker names an owner and its claim."""
    return all(re.search(rf"^{word}=\S+$", text, re.MULTILINE) for word in ("pid", "host", "mode", "token", "duration"))


def _ours(text: str) -> bool:
    """Whether it is a lease such as this version takes, which filelock takes over by itself."""
    return _whole(text) and {"mode=lease", f"duration={LASTS!r}"} <= set(text.splitlines())


def of(path: Path) -> Lease:
    """The lease of a run's folder: one object each in a process."""
    return _of(path.absolute())


_of = cache(Lease)


def seems_held(path: Path) -> bool:
    """Whether a living process is at a run, as far as a look at the file tells; nothing is changed."""
    try:
        text = (path / NAME).read_text(errors="replace")[:10_000]
        renewed = (path / NAME).stat().st_mtime
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
