"""What runs are called where several are shown together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from nodepert.studies.run import Run


def labels(runs: Sequence[Run], apart: Sequence[str] = ()) -> list[str]:
    """A label for each run: its rule and, where that does not tell them apart, the other options that differ.

    Options named in `apart` are left out.
    """

    def differing(names: Sequence[str]) -> set:
        return {tuple(getattr(run, name) for name in names) for run in runs}

    names = [f.name for f in fields(Run) if f.name not in apart]
    others = [name for name in names if name != "rule" and len(differing([name])) > 1]
    if len(differing(["rule"])) == len(differing(names)):
        others = []
    return [", ".join([run.rule, *(_written(name, getattr(run, name)) for name in others)]) for run in runs]


def _written(name: str, value: Any) -> str:
    return str(value) if isinstance(value, str) else f"{name} {value!r}"  # in full: it tells runs apart
