"""Several processes that share one computation, one a host or device: who writes, and what all agree on."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from nodepert.errors import UserError


def joined() -> None:
    """Join the processes of one job, one a host or device, into one computation over all their devices.

    Slurm and Open MPI are recognised by themselves; elsewhere JAX_COORDINATOR_ADDRESS (host:port), JAX_NUM_PROCESSES
    and JAX_PROCESS_ID say it. Call it before anything is computed. Raises UserError where neither is there.
    """
    try:
        numbers = [int(v) if (v := os.environ.get(name)) else None for name in ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID")]
        jax.distributed.initialize(num_processes=numbers[0], process_id=numbers[1])
    except (ValueError, RuntimeError) as error:
        raise UserError("cannot join the processes of a job: use srun or mpirun, or set JAX_COORDINATOR_ADDRESS "
                        f"(host:port), JAX_NUM_PROCESSES and JAX_PROCESS_ID in each ({error})") from error  # fmt: skip


def writes() -> bool:
    """Whether this process is the one that writes files and speaks on the terminal."""
    return jax.process_index() == 0


def by_first(f: Callable[[], Any]) -> Any:
    """f() of the process that writes, None in the others. Raises UserError in all of them where it does: no process
    waits for one that has stopped."""
    found = refused = None
    if writes():
        try:
            found = f()
        except UserError as error:
            refused = error
    if agreed([refused is not None])[0]:
        raise refused or UserError("the first process of this job could not start; see its error")
    return found


def agreed(flags: Sequence[bool]) -> list[bool]:
    """The flags of the process that writes, in every process."""
    if jax.process_count() == 1:
        return list(flags)
    from jax.experimental.multihost_utils import broadcast_one_to_all

    return [bool(flag) for flag in broadcast_one_to_all(np.asarray(flags))]


def least(number: float) -> float:
    """The lowest of the processes' numbers, in every process, so that all take the same decision."""
    if jax.process_count() == 1:
        return number
    from jax.experimental.multihost_utils import process_allgather

    return float(np.min(process_allgather(np.asarray(number, np.float32))))
