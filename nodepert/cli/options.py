"""Options of the command line that take one value or several: all combinations are trained."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Sequence
from dataclasses import field, fields, make_dataclass
from itertools import pairwise
from typing import Annotated, Any

import tyro

from nodepert.studies.grid import combinations as product_of
from nodepert.studies.grid import parsed_seeds
from nodepert.studies.run import Run, Task

TYPES = {"str": str, "int": int, "float": float}


def grid_of(defaults: Run) -> Any:
    """The fields of a run as command-line options, each a tuple of values; the seeds as texts, '0..4' among them."""
    helps = docstrings(Task) | docstrings(Run)
    options: list[Any] = []
    for f in fields(defaults):
        value = getattr(defaults, f.name)
        if f.name == "seed":
            told = f"{helps['seed']} Several: 0..4, or 0 3 7."
            argument = tyro.conf.arg(help=told, aliases=("--seeds",), metavar="INT|INT..INT")
            options.append(("seed", Annotated[tuple[str, ...], argument], field(default=(str(value),))))
        else:
            kind = tuple[TYPES[str(f.type)], ...]
            options.append((f.name, Annotated[kind, tyro.conf.arg(help=helps[f.name])], field(default=(value,))))
    return make_dataclass("Grid", options, frozen=True)


def docstrings(cls: type) -> dict[str, str]:
    """{field: the text that stands below it in the source}."""
    tree: Any = ast.parse(inspect.getsource(cls))
    said = [(a, b) for a, b in pairwise(tree.body[0].body) if isinstance(a, ast.AnnAssign) and isinstance(b, ast.Expr)]
    found: dict[str, str] = {}
    for a, b in said:
        match a.target, b.value:
            case ast.Name(name), ast.Constant(str() as text):
                found[name] = inspect.cleandoc(text)
    return found


def combinations(grid: Any) -> list[Run]:
    """A run for every combination of the options' values; seeds vary fastest."""
    values = {f.name: getattr(grid, f.name) for f in fields(grid)}
    return product_of(values | {"seed": parsed_seeds(list(values["seed"]))})


def labels(runs: Sequence[Run], apart: Sequence[str] = ()) -> list[str]:
    """A legend for each run: its rule, and where that does not tell them apart what else differs, `apart` left out."""

    def differing(names: Sequence[str]) -> set:
        return {tuple(getattr(run, name) for name in names) for run in runs}

    names = [f.name for f in fields(Run) if f.name not in apart]
    others = [name for name in names if name != "rule" and len(differing([name])) > 1]
    if len(differing(["rule"])) == len(differing(names)):
        others = []
    return [", ".join([run.rule, *(_said(name, getattr(run, name)) for name in others)]) for run in runs]


def _said(name: str, value: Any) -> str:
    return str(value) if isinstance(value, str) else f"{name} {value!r}"  # in full: what differs is told apart by it
