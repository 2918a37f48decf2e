"""Digests of the user's own factories and objects, stored in the record of a run.

A spec says "mine(strength=2)", and not what `mine` was when the run was trained. If a source has changed since, a saved
run is read back with a warning; another object under the name of the one that was trained is an error.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import optax

from nodepert.registry import entry, has_object, resolve, within
from nodepert.studies.run import Run
from nodepert.studies.store.records import digest
from nodepert.training.predictor import Predictor

KINDS = ("network", "loss", "rule", "optimizer")  # data have a fingerprint of their own


def code_of(runs: Sequence[Run]) -> list[dict[str, str]]:
    """For each run {"rule mine": digest} of the factories that its specs name and that do not come with NodePert."""

    @functools.cache
    def source(kind: str, name: str) -> str:
        return digest(source_of(resolve(kind, name)))[:16]

    def of(run: Run) -> dict[str, str]:
        named = [(kind, name) for kind in KINDS for name in within(kind, run.specs[kind])]
        lines = {(kind, name): entry(kind, name) for kind, name in named}
        return {f"{kind} {name}": source(kind, name) for (kind, name), line in lines.items()
                if line.own and line.given is None}  # fmt: skip

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


def objects_of(runs: Sequence[Run], predictors: Mapping[int, Predictor]) -> list[dict[str, str]]:
    """For each run {"network mine": digest} of the objects that it was given: of a network the names, shapes and dtypes
    of its parameters, of an optimizer the numbers in its functions."""
    known: dict[Any, str] = {}  # of what runs share

    def name_of(kind: str, run: Run) -> str:  # another version of optax may have other numbers
        return f"{kind} {run.specs[kind]}" + f" (optax {optax.__version__})" * (kind == "optimizer")

    def digest_of(i: int, run: Run, kind: str) -> str:
        network = kind == "network"
        key = id(predictors[i].given) if network else str(run.specs[kind])
        if key not in known:
            names = within(kind, run.specs[kind])
            known[key] = digest(repr(predictors[i].structure if network else
                                     [numbers_in(entry(kind, name).given) for name in names]))[:16]  # fmt: skip
        return known[key]

    return [{name_of(kind, run): digest_of(i, run, kind) for kind in ("network", "optimizer")
             if has_object(kind, run.specs[kind])} for i, run in enumerate(runs)]  # fmt: skip


def numbers_in(value: Any, seen: tuple[int, ...] = ()) -> list[Any]:
    """The numbers and texts in a function's closure, at any depth: those of optax.adam(1e-3) are not those of 1e-2."""
    if id(value) in seen:
        return []
    if isinstance(value, bool | int | float | str):
        return [value]
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return np.asarray(value).ravel().tolist()
    inner: Any = value if isinstance(value, tuple | list) else []
    if isinstance(value, Mapping):
        inner = value.values()
    if isinstance(value, functools.partial):
        inner = [value.func, *value.args, *value.keywords.values()]
    if inspect.isfunction(value):
        inner = [c.cell_contents for c in value.__closure__ or ()] + [*(value.__defaults__ or ())]
    return [number for one in inner for number in numbers_in(one, (*seen, id(value)))]
