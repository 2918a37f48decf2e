"""A part of an experiment while it is computed: its loops are reported, saved, stopped between two steps, and resumed.

`execute` opens a session for each part. Without one, as in `list(npt.experiments.mismatch())`, loops only compute.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import jax
import numpy as np

from nodepert.errors import UserError
from nodepert.experiments.unfinished import Saved
from nodepert.studies.stopping import Stopped

RESUMES = "the same command resumes"
SAVE = 60.0  # seconds between two times that a part is saved
log = logging.getLogger("nodepert")


class Steps(NamedTuple):
    """How far a loop is."""

    unit: str  # what it counts, as "update"
    done: float
    of: int  # 0: not known
    seconds: float | None = None  # since it was compiled, in this process; None: it is being compiled


class Session:
    """The loops of one part, in order.

    Args:
        saved: Those of an earlier process.
        save: Saves loops.
        report: Called with `Steps` as they are done.
        stop: Called after each step; if it returns True, the loops are saved and `Stopped` is raised.
    """

    def __init__(
        self,
        saved: Sequence[Saved] = (),
        save: Callable[[list[Saved]], None] = lambda loops: None,
        report: Callable[[Steps], None] = lambda steps: None,
        stop: Callable[[], bool] = lambda: False,
    ):
        self.save, self.report, self.stop = save, report, stop
        self.saved = dict(zip(_keys([loop.unit for loop in saved]), saved, strict=True))
        self.loops: list[Loop] = []
        self.last = time.monotonic()

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Loops that begin inside, in this thread, are of this session."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)

    def begin(self, unit: str, of: int) -> Loop:
        """The next loop that counts these. By their own numbers: another process may have computed another loop
        already, of which this one has only the result."""
        *_, key = _keys([*(loop.unit for loop in self.loops), unit])
        saved = self.saved.get(key)
        usable = saved and saved.of == of and saved.leaves is not None
        loop = Loop(self, saved if saved and usable else Saved(unit, of, 0, False, []))
        self.loops.append(loop)
        return loop

    def between_steps(self, loop: Loop, state: Callable[[], Any]) -> None:
        """Save if it is time to; stop if asked to."""
        stopping, now = self.stop(), time.monotonic()
        if stopping or now - self.last > SAVE:
            loop.leaves, self.last = _leaves(state()), now
            try:
                self.save([one.saved() for one in self.loops])
            except UserError as error:
                if stopping:
                    raise
                log.warning("the part that is computed is not saved: %s", error)
        if stopping:
            raise Stopped(RESUMES)


class Loop:
    """A loop of a part. `found` are what its steps found, so far."""

    def __init__(self, session: Session, saved: Saved):
        self.session, self.started = session, None
        self.unit, self.of, self.done, self.complete, self.found, self.leaves = saved
        session.report(Steps(self.unit, self.done, self.of))

    def state(self, like: Any) -> Any:
        """The state after the steps done, in the structure of `like`; None if there is none. One of other shapes, as
        from another version, is not used, and the loop starts again."""
        if self.leaves is None:
            return None
        leaves, structure = jax.tree.flatten(like)
        if [(np.shape(a), a.dtype) for a in leaves] == [(a.shape, a.dtype) for a in self.leaves]:
            return structure.unflatten(self.leaves)
        log.warning("the saved state of a loop of %ss does not fit; it starts again", self.unit)
        self.done, self.complete, self.found, self.leaves = 0, False, [], None
        return None

    def under_way(self, done: float, seconds: float = 0.0) -> None:
        """Report. The first time ends the compilation, before which so many seconds were computed."""
        now = time.perf_counter()
        self.started = now - seconds if self.started is None else self.started
        self.session.report(Steps(self.unit, done, self.of, now - self.started))

    def record(self, done: int, state: Callable[[], Any], *found: Any) -> None:
        """A step has ended. Raises Stopped."""
        self.done = done
        self.found.extend(found)
        self.under_way(done)
        self.session.between_steps(self, state)

    def end(self, result: Any = None) -> None:
        """The loop has ended, with a result instead of a state."""
        self.complete, self.leaves = True, _leaves(result)

    def saved(self) -> Saved:
        return Saved(self.unit, self.of, self.done, self.complete, self.found, self.leaves)


def begin(unit: str, of: int) -> Loop:
    """The next loop of the part that is computed."""
    return (_current.get() or Session()).begin(unit, of)


def _keys(units: Sequence[str]) -> list[tuple[str, int]]:
    """Each with its number among its like."""
    return [(unit, units[:i].count(unit)) for i, unit in enumerate(units)]


def _leaves(state: Any) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(jax.device_get(state))]


_current: ContextVar[Session | None] = ContextVar("session", default=None)
