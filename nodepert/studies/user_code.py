"""Digests of the source of user-defined factories, stored in the record of a run.

A spec says "mine(strength=2)", and not what `mine` was when the run was trained. If the source has changed since, a
saved run is read back with a warning.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Sequence
from typing import Any

from nodepert.registry import entry, resolve, within
from nodepert.studies.run import Run
from nodepert.studies.store.records import digest

KINDS = ("network", "loss", "rule", "optimizer")  # data have a fingerprint of their own


def code_of(runs: Sequence[Run]) -> list[dict[str, str]]:
    """For each run {"rule mine": digest} of what its specs name and does not come with NodePert."""

    @functools.cache
    def source(kind: str, name: str) -> str:
        return digest(source_of(resolve(kind, name)))[:16]

    def of(run: Run) -> dict[str, str]:
        named = [(kind, name) for kind in KINDS for name in within(kind, run.specs[kind])]
        return {f"{kind} {name}": source(kind, name) for kind, name in named if entry(kind, name).own}

    return [of(run) for run in runs]


def source_of(factory: Any) -> str:
    """The source of a factory; of a partial, its function's and what is bound; "" where there is none to read."""
    if isinstance(factory, functools.partial):
        bound = [*enumerate(factory.args), *sorted(factory.keywords.items())]
        values = [(key, source_of(value) if callable(value) else repr(value)) for key, value in bound]
        return f"{source_of(factory.func)} {values}"
    try:
        return inspect.getsource(inspect.unwrap(factory))
    except (OSError, TypeError):
        return ""
