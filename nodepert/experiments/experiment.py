"""What an experiment is: parts that are computed one by one, the rows of each, a picture, and what it shows.

An experiment's file has a factory, `name(load, *, ...) -> Experiment`, whose arguments are its options, and `SCALES`,
the options of "smoke" (seconds), "small" (minutes on two cores) and "paper" (as published). It yields rows and draws
on a figure that it is given; it writes nothing.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from nodepert.data.dataset import Dataset, load_dataset
from nodepert.errors import UserError
from nodepert.experiments.drawing import Picture
from nodepert.registry import check, entry, resolve

Row: TypeAlias = dict[str, Any]  # plain values: str, int, float (nan where there is none); all rows have the same keys
Part: TypeAlias = dict[str, Any]  # {column: value}: what tells a part of an experiment from the others
Load: TypeAlias = Callable[[str], Dataset]
Scale = Literal["smoke", "small", "paper"]
SPECS = {"rule": "rule", "rules": "rule", "dataset": "dataset", "network": "network", "loss": "loss",
         "optimizer": "optimizer", "optimizers": "optimizer"}  # fmt: skip


class Finding(NamedTuple):
    """What the rows show, in one sentence with its figures, and whether that is what is expected."""

    says: str
    holds: bool


class Experiment(NamedTuple):
    """A question, ready to be put."""

    parts: Sequence[Part]  # each is computed on its own, always with the same result, and kept when it is complete
    rows: Callable[[Part], Iterator[Row]]  # of one part, without the part's own columns
    draw: Callable[[Any, Sequence[Row]], None]  # (matplotlib Figure, all rows)
    findings: Callable[[Sequence[Row]], list[Finding]]
    picture: Picture = Picture()  # with which its report opens
    size: tuple[float, float] = (7.0, 3.6)  # of the figure, in inches


def options(name: str, scale: Scale = "small") -> dict[str, Any]:
    """All options of an experiment at a scale. Raises UserError for an unknown name or scale."""
    factory = resolve("experiment", name)
    scales = importlib.import_module(factory.__module__).SCALES
    if scale not in scales:
        raise UserError(f"unknown scale '{scale}'; there are: {', '.join(scales)}")
    return {p.name: p.default for p in inspect.signature(factory).parameters.values() if p.kind is p.KEYWORD_ONLY} | (
        scales[scale]
    )


def build(name: str, scale: Scale = "small", data_dir: str | Path | None = None, **given: Any) -> Experiment:
    """The experiment of that name; `given` options go before those of its scale.

    Raises UserError for an unknown name, scale or option, and for values that the experiment refuses.
    """
    chosen = options(name, scale) | given
    factory = resolve("experiment", name)
    for option, kind in SPECS.items():
        value = chosen.get(option) or ()
        for spec in (value,) if isinstance(value, str) else value:
            check(kind, spec)  # now, and not when the first part is under way
    try:
        experiment = factory(partial(load_dataset, data_dir=data_dir), **chosen)
    except UserError:
        raise
    except (TypeError, ValueError) as error:
        raise UserError(f"experiment '{name}': {error}") from error
    if not experiment.parts:
        empty = [option for option, value in chosen.items() if isinstance(value, (tuple, list)) and not value]
        raise UserError(f"experiment '{name}' has nothing to do: {' and '.join(empty)} must be at least one")
    for i, part in enumerate(experiment.parts):
        if part in experiment.parts[:i]:
            raise UserError(f"given twice: {', '.join(f'{key} {value}' for key, value in part.items())}")
    return experiment


def of_part(experiment: Experiment, part: Part) -> Iterator[Row]:
    """The rows of one part, its own columns first."""
    return (part | row for row in experiment.rows(part))


def rows(name: str, scale: Scale = "small", data_dir: str | Path | None = None, **given: Any) -> Iterator[Row]:
    """All rows of an experiment, as they come."""
    experiment = build(name, scale, data_dir, **given)
    return (row for part in experiment.parts for row in of_part(experiment, part))


def of_name(attribute: str) -> Callable[..., Iterator[Row]]:
    """`rows` of the experiment that a Python name stands for: linear_theory for linear-theory."""
    name = attribute.replace("_", "-")
    entry("experiment", name)
    return partial(rows, name)
