"""A grid of runs, from a TOML file or a dict: products of lists, further lists of their own, and exceptions.

name = "weight-decay"
seeds = 3                                  # 0, 1, 2; or [0, 7], or "0..2"

[grid]                                     # every combination
rule = ["np", "sgd"]
lr = [1e-4, 1e-3]
network = ["conv", "fc(width=100)"]

[[runs]]                                   # additional runs; other options as in the grid
rule = "wp"
lr = 1e-5

[[except]]                                 # leave out runs that match all of these
network = "conv"
lr = 1e-3

[slurm]                                    # arguments of --launcher slurm: nodepert list launchers has all
time = 60                                  # minutes
memory = 8                                 # GB
"""

from __future__ import annotations

import re
import tomllib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import fields
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from nodepert.errors import UserError
from nodepert.registry import names as registered
from nodepert.registry import plain
from nodepert.studies.run import Run
from nodepert.studies.store.records import as_path, read_text
from nodepert.studies.store.run_folder import checked_name

OPTIONS = [f.name for f in fields(Run)]
OLD_NAMES = {"update_rule": "rule", "num_epochs": "epochs", "jobid": "seed", "exp_name": "name"}  # of the original code
MOST = 100_000  # runs


class Grid(NamedTuple):
    """The runs of a study, in order, each once."""

    name: str
    runs: list[Run]
    launchers: dict[str, dict[str, Any]]  # {"slurm": {argument: value}}: of the launchers that have a table

    @property
    def slurm(self) -> dict[str, Any]:
        """Deprecated: `launchers["slurm"]`."""
        warnings.warn('Grid.slurm is Grid.launchers["slurm"] now', DeprecationWarning, stacklevel=2)
        return self.launchers.get("slurm", {})


def load_grid(path: str | Path) -> Grid:
    """The grid of a TOML file.

    Args:
        path: The file; its name is the study's, unless it has a `name`.

    Returns:
        A `Grid`, as `make_grid` gives it.

    Raises:
        UserError: As `make_grid`, with the name of the file.

    Examples:
        >>> npt.load_grid("grids/first.toml").name  # doctest: +SKIP
        'first'
    """
    path = as_path(path)
    try:
        table = tomllib.loads(read_text(path))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UserError(f"{path} is not readable as TOML: {error}") from None
    try:
        return make_grid({"name": path.stem, **table})
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def make_grid(table: Mapping[str, Any]) -> Grid:
    """The grid of a dict.

    Args:
        table: {"name": ..., "seeds": 3, "grid": {"rule": ["np", "sgd"], "lr": [...]}}; options may also be top-level
            keys.

    Returns:
        A `Grid`: `name`, `runs`, `launchers`.

    Raises:
        UserError: For unknown names, wrong values, and no or too many runs.

    Examples:
        >>> len(npt.make_grid({"seeds": 2, "grid": {"rule": ["np", "sgd"]}}).runs)
        4
    """
    table = {OLD_NAMES.get(key, key): value for key, value in table.items()}
    name, seeds = table.pop("name", "sweep"), plain(table.pop("seeds", None))
    if not isinstance(name, str):
        raise UserError(f"name must be a string; got {name!r}")
    launchers = {name: table.pop(name) for name in registered("launcher") if isinstance(table.get(name), dict)}
    inside, further, but = table.pop("grid", {}), table.pop("runs", []), table.pop("except", [])
    common = _axes("[grid]", inside) | _axes("the top", table)
    if seeds is not None:
        if "seed" in common:
            raise UserError("give seeds or seed, not both")
        common["seed"] = parsed_seeds(seeds)
    lists = [{**common, **_axes("[[runs]]", more)} for more in _tables("runs", further)]
    found: dict[str, Run] = {}
    for axes in ([common] if inside or not lists else []) + lists:
        for run in combinations(axes):
            found.setdefault(run.id, run)
    exceptions = [{key: {getattr(Run(**{key: value}), key) for value in values}  # specs in their canonical form
                   for key, values in _axes("[[except]]", one).items()} for one in _tables("except", but)]  # fmt: skip
    runs = [run for run in found.values() if not any(_matches(run, one) for one in exceptions)]
    if not runs:
        raise UserError("the grid has no runs")
    return Grid(checked_name(name), runs, launchers)


def combinations(axes: Mapping[str, Sequence[Any]]) -> list[Run]:
    """A run for every combination of the values; seeds vary fastest. Raises UserError."""
    axes = {key: values for key, values in axes.items() if key != "seed"} | (
        {"seed": axes["seed"]} if "seed" in axes else {}
    )
    count = 1
    for key, values in axes.items():
        if not len(values):
            raise UserError(f"{key} needs a value")
        if len({repr(value) for value in values}) < len(values):
            raise UserError(f"{key} has a value twice")
        count *= len(values)
    if count > MOST:
        raise UserError(f"that is {count:,} runs; at most {MOST:,} go into one grid")
    return [Run(**dict(zip(axes, chosen, strict=True))) for chosen in product(*axes.values())]


def parsed_seeds(value: Any) -> list[int]:
    """3 -> [0, 1, 2]; "0..2" -> [0, 1, 2]; a list of whole numbers and such ranges. Raises UserError."""
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return list(range(value))
    found: list[int] = []
    for one in [value] if isinstance(value, str) else value if isinstance(value, list) else [None]:
        match = re.fullmatch(r"(\d{1,10})(?:\.\.(\d{1,10}))?", str(one))
        if isinstance(one, bool) or not match:
            raise UserError(f"seeds are a number of them, a list, or a range like '0..4'; got {value!r}")
        first, last = int(match[1]), int(match[2] or match[1])
        if not first <= last < first + 10_000:
            raise UserError(f"seeds {one}: a range goes upwards, over at most 10,000 seeds")
        found += range(first, last + 1)
    return found


def _tables(key: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise UserError(f"'{key}' is a list of tables, written as [[{key}]]")
    return value


def _axes(where: str, table: Any) -> dict[str, list[Any]]:
    """{option: its values}, of a table of options with one value or a list each."""
    if not isinstance(table, Mapping):
        raise UserError(f"{where} is a table of options, as in rule = ['np', 'sgd']")
    axes = {
        OLD_NAMES.get(str(key), str(key)): list(value) if isinstance(value, list) or (hasattr(value, "__array__")
        and getattr(value, "ndim", 0)) else [value] for key, value in table.items()
    }  # fmt: skip
    if unknown := [key for key in axes if key not in OPTIONS]:
        shape = "; width and depth are written into the network, as in 'fc(width=500, depth=2)'"
        raise UserError(f"{where} has an unknown option {unknown[0]}; there are: {', '.join(OPTIONS)}"
                        f"{shape * (unknown[0] in ('hl_size', 'n_hl'))}")  # fmt: skip
    return axes


def _matches(run: Run, exception: Mapping[str, set[Any]]) -> bool:
    """Whether every option of the exception has one of its values in this run."""
    return all(getattr(run, key) in values for key, values in exception.items())
