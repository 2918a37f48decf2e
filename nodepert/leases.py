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

from filelock import SoftFileLease, Timeout

NAME = ".owner"
LASTS = 180.0  # seconds; longer than a network disk may show an old time
MALFORMED = 3.0  # seconds after which filelock takes over what is no lease
log = logging.getLogger("nodepert")


class Lease:
    """The lease of one run's folder, as this process sees it: renewals that are missing are noticed over time."""

    def __init__(self, path: Path):
        self._lost = False
        self._lock = SoftFileLease(path / NAME, lease_duration=LASTS, timeout=0, thread_local=False,
                                   on_compromise=self._on_compromise)  # fmt: skip

    def acquired(self, patient: bool = False) -> bool:
        """Take it, if nobody has it; if `patient`, one that seems abandoned is watched for as long as it lasts.

        Raises OSError where it cannot be written.
        """
        if self._lock.is_locked:
            return False
        try:
            self._lock.acquire(timeout=self._patience(patient))
        except Timeout:
            return False
        self._lost = False
        return True

    def _patience(self, patient: bool) -> float:
        """Seconds to wait for it: none where it seems that its owner lives."""
        marker = Path(self._lock.lock_file)
        with suppress(OSError):
            text = marker.read_text(errors="replace")
            if not text:  # no owner ever leaves it so, nor would it ever count as stale
                marker.unlink()
            elif not re.search(r"^token=\w+$", text, re.MULTILINE):
                return MALFORMED
            elif patient and not seems_held(marker.parent):
                log.warning("%s seems abandoned; waiting up to %.0f s to be sure", marker, LASTS)
                return LASTS + MALFORMED
        return 0

    def held(self) -> bool:
        """Whether it is still this process's; a process that slept for long may have lost it to another."""
        return self._lock.is_locked and not self._lost

    def release(self) -> None:
        with suppress(OSError):
            self._lock.release()

    def free(self) -> bool:
        """Whether nobody has it; asked again and again, also notices an owner that no longer renews it."""
        with suppress(OSError):
            if self.acquired():
                self.release()
                return True
        return False

    def _on_compromise(self, _: object) -> None:
        self._lost = True


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
