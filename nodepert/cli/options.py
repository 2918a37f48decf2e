"""Options of the command line, made from the fields of `Run` and `Execution` and the texts below them."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Mapping, Sequence
from dataclasses import Field, dataclass, field, fields, make_dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import tyro

from nodepert.cli.parser import Words
from nodepert.errors import UserError
from nodepert.studies.execution import Execution
from nodepert.studies.grid import combinations as product_of
from nodepert.studies.grid import parsed_seeds
from nodepert.studies.run import Run, Task

TYPES = {"SpecOrObject": str, "int": int, "float": float}
Flat = tyro.conf.OmitArgPrefixes


@dataclass(frozen=True)
class Study:
    """Where results go."""

    name: str = "default"
    """Name of the study: results go to OUT/NAME/ID/."""
    out: Path = Path("runs")
    """Directory of all results."""


def grid_of(defaults: Mapping[str, Any]) -> Any:
    """The fields of a run as command-line options with these defaults, each a tuple of values; seeds are texts."""
    helps = docstrings(Task) | docstrings(Run)
    options: list[Any] = []
    for f in fields(Run):
        value = defaults[f.name]
        if f.name == "seed":
            text = f"{helps['seed']} Several: 0..4, or 0 3 7."
            argument = tyro.conf.arg(help=text, aliases=("--seeds",), metavar="INT|INT..INT")
            options.append(("seed", Annotated[tuple[str, ...], argument], field(default=(str(value),))))
        else:
            kind = tuple[TYPES[str(f.type)], ...]
            options.append((f.name, Annotated[kind, tyro.conf.arg(help=helps[f.name])], field(default=(value,))))
    return make_dataclass("Grid", options, frozen=True)


def _argument(f: Field, text: str) -> Any:
    """The annotation by which tyro reads a field of `Execution`."""
    kinds: dict[str, Any] = {
        "Path | None": Annotated[Path | None, tyro.conf.arg(metavar="DIR", help=text)],
        "tuple[str, ...]": Annotated[Words, tyro.conf.arg(help=text)],
        "bool": Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help=text)],
        "int | None": Annotated[int | None, tyro.conf.arg(metavar="INT", help=text)],
        "float | None": Annotated[float | None, tyro.conf.arg(metavar=f.metadata.get("metavar", "FLOAT"), help=text)],
    }
    return kinds.get(str(f.type)) or Annotated[get_type_hints(Execution)[f.name], tyro.conf.arg(help=text)]


def docstrings(cls: type) -> dict[str, str]:
    """{field: the text below it in the source}."""
    tree = ast.parse(Path(str(sys.modules[cls.__module__].__file__)).read_text(encoding="utf-8"))
    (body,) = [node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == cls.__name__]
    pairs = [(a, b) for a, b in pairwise(body) if isinstance(a, ast.AnnAssign) and isinstance(b, ast.Expr)]
    found: dict[str, str] = {}
    for a, b in pairs:
        match a.target, b.value:
            case ast.Name(name), ast.Constant(str() as text):
                found[name] = inspect.cleandoc(text)
    return found


if TYPE_CHECKING:
    HowToRun = Execution
else:  # the fields of `Execution` as options
    _helps = docstrings(Execution)
    HowToRun = make_dataclass("HowToRun", [(f.name, _argument(f, _helps[f.name]), field(default=f.default))
                                           for f in fields(Execution)], frozen=True)  # fmt: skip


def combinations(grid: Any) -> list[Run]:
    """A run for every combination of the options' values; seeds vary fastest."""
    values = {f.name: getattr(grid, f.name) for f in fields(grid)}
    return product_of(values | {"seed": parsed_seeds(list(values["seed"]))})


def execution_from(options: Any) -> Execution:
    """The `Execution` that the options ask for. Raises UserError."""
    return Execution(**{f.name: getattr(options, f.name) for f in fields(Execution)})


def one_per_rule(option: str, values: Sequence, rules: Sequence[str]) -> Sequence:
    """One value for each rule. Raises UserError for another number of values than 1 or the number of rules."""
    if len(values) not in (1, len(rules)):
        raise UserError(f"--{option} takes one value for all {len(rules)} rules, or one each; got {len(values)}")
    return values if len(values) == len(rules) else list(values) * len(rules)
