"""The limit of open files: locks of runs and files of trackers take one each."""

from __future__ import annotations

import os
import resource

from nodepert.errors import UserError

SPARE = 256  # for everything else


def make_room(runs: int) -> None:
    """Raise the limit to two open files per run. Raises UserError if one per run is not allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return
    needed, wanted = runs + SPARE, 2 * runs + SPARE
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if max(soft, most) < needed:
        raise UserError(f"{runs:,} runs at once need {needed:,} open files, and this system allows {hard:,} "
                        "(ulimit -n); train them in parts")  # fmt: skip
    if soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def check_room() -> None:
    """Raise OSError where one more file would leave none for checkpoints and tables."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and len(os.listdir("/dev/fd")) + SPARE // 2 > soft:
        raise OSError(f"no more than {soft:,} files may be open (ulimit -n)")
