"""What an experiment is: parts that are computed one by one, the rows of each, a figure, and findings.

Every file in questions/ has the same shape. `SCALES` has the options of "smoke" (seconds), "small" (minutes on two
cores) and "paper" (as published) that are not the defaults. The experiment is a frozen dataclass whose fields are its
options, with the equations and an `Args:` line per option in its docstring:

    @dataclass(frozen=True, kw_only=True)
    class MyQuestion(Experiment):
        rules: tuple[str, ...] = ("np", "sgd")      # int, float, bool, str, a Literal, or a tuple of one of these

        across = ("rules",)                         # the parts: here one for each of the rules
        picture = Picture(...)                      # the columns that its report draws first
        def __post_init__(self): ...                # refuses options that are out of range
        def rows(self, part): ...                   # of one part, computed
        def draw(self, figure, rows): ...
        def findings(self, rows): ...

It is valid once constructed, yields rows and draws on the figure that it is given. It writes no files: execute.py does.
"""

import functools
import importlib
import inspect
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, TypeAlias

from nodepert.data.dataset import Dataset, load_dataset
from nodepert.errors import UserError
from nodepert.experiments.drawing import Picture
from nodepert.registry import check, plain, resolve
from nodepert.registry.describe import parameters
from nodepert.registry.generator import pinned
from nodepert.registry.spec import Spec

Row: TypeAlias = dict[str, Any]  # str, int or float (nan: no value); all rows of an experiment have the same keys
Part: TypeAlias = dict[str, Any]  # {column: value}, which identify a part of an experiment
Load: TypeAlias = Callable[[str], Dataset]
Scale = Literal["smoke", "small", "paper"]
SPECS = {"rule": "rule", "rules": "rule", "dataset": "dataset", "datasets": "dataset",
         "network": "network", "loss": "loss",
         "optimizer": "optimizer", "optimizers": "optimizer"}  # fmt: skip


class Finding(NamedTuple):
    """What the rows show, as a sentence with numbers, and whether it is what theory or the literature predicts."""

    says: str
    holds: bool


@dataclass(frozen=True)
class Experiment:
    """A question with its options; `load` gives the data set that a spec names."""

    load: Load

    across: ClassVar[tuple[str, ...]] = ()  # options, as rules for the column rule: a part for all combinations
    picture: ClassVar[Any] = Picture()
    size: ClassVar[Any] = (7.0, 3.6)  # of the figure, in inches

    @property
    def parts(self) -> Sequence[Part]:
        """Each is computed alone, always with the same result, and saved when it is complete."""
        values = {option.removesuffix("s"): getattr(self, option) for option in self.across}
        return combinations(**{column: range(v) if isinstance(v, int) else v for column, v in values.items()})

    def rows(self, part: Part) -> Iterator[Row]:
        """The rows of one part, without the part's own columns."""
        raise NotImplementedError

    def draw(self, figure: Any, rows: Sequence[Row]) -> None:
        """Draw all rows on a matplotlib Figure."""
        raise NotImplementedError

    def findings(self, rows: Sequence[Row]) -> list[Finding]:
        """What all rows show."""
        raise NotImplementedError

    def require(self, holds: Callable[[Any], bool], wanted: str, *options: str) -> None:
        """Raise ValueError unless each of these options, or each of its values, is as wanted."""
        for option in options:
            value = getattr(self, option)
            values = value if isinstance(value, tuple) else (value,)
            if not all(map(holds, values)):
                raise ValueError(f"{option} must be {wanted}; got {', '.join(map(str, values))}")

    def at_least(self, lowest: int, *options: str) -> None:
        self.require(lambda value: value >= lowest, f"at least {lowest}", *options)

    def positive(self, *options: str) -> None:
        self.require(lambda value: 0 < value < math.inf, "positive and finite", *options)

    def not_negative(self, *options: str) -> None:
        self.require(lambda value: 0 <= value < math.inf, "finite and not negative", *options)

    def rising(self, low: str, high: str) -> None:
        """Raise ValueError unless 0 < low < high < infinity."""
        self.require(lambda value: 0 < value < getattr(self, high) < math.inf, f"positive and below {high}", low)


def combinations(**columns: Iterable[Any]) -> list[Part]:
    """Parts with every combination of values; the last column varies fastest."""
    return [dict(zip(columns, values, strict=True)) for values in itertools.product(*columns.values())]


def options(name: str, scale: Scale = "small") -> dict[str, Any]:
    """All options of an experiment at a scale. Raises UserError for an unknown name or scale."""
    scales = importlib.import_module(resolve("experiment", name).__module__).SCALES
    if scale not in scales:
        raise UserError(f"unknown scale '{scale}'; there are: {', '.join(scales)}")
    return {p.name: p.default for p in parameters("experiment", name).values()} | scales[scale]


def chosen_options(name: str, scale: Scale, given: dict[str, Any]) -> dict[str, Any]:
    """The options of a scale, replaced by those given. Raises UserError for unknown options, and values of a wrong
    type; specs in them are checked here, not when the first part is computed."""
    defaults = options(name, scale)
    given = {k: plain(v) for k, v in given.items()}
    several = {k: tuple(v) if isinstance(v, list) else v if isinstance(v, tuple) else (v,)
               for k, v in given.items() if isinstance(defaults.get(k), tuple)}  # fmt: skip
    if empty := [option for option, value in several.items() if not value and defaults[option]]:
        raise UserError(f"experiment '{name}': {' and '.join(empty)} must have at least one value")
    chosen = defaults | dict(check("experiment", Spec(name, (), tuple((given | several).items()))).kwargs)
    for option in SPECS.keys() & chosen.keys():
        value = chosen[option]
        for spec in value if isinstance(value, tuple) else (value,) if value else ():
            check(SPECS[option], spec)
    return chosen


@pinned()
def build(name: str, scale: Scale = "small", data_dir: str | Path | None = None, **given: Any) -> Experiment:
    """The experiment of that name. `given` options replace those of the scale.

    Raises UserError for an unknown name, scale or option, and for values that the experiment refuses.
    """
    chosen = chosen_options(name, scale, given)
    try:
        experiment = resolve("experiment", name)(partial(load_dataset, data_dir=data_dir), **chosen)
    except UserError:
        raise
    except (TypeError, ValueError) as error:
        raise UserError(f"experiment '{name}': {error}") from error
    for i, part in enumerate(experiment.parts):
        if part in experiment.parts[:i]:
            raise UserError(f"given twice: {', '.join(f'{key} {value}' for key, value in part.items())}")
    return experiment


def of_part(experiment: Experiment, part: Part) -> Iterator[Row]:
    """The rows of one part, its own columns first. Raises UserError where JAX does not start."""
    from nodepert.training import devices  # JAX, which listing experiments does not need

    devices.start()
    with pinned():  # not while the caller has a row
        rows = [part | row for row in experiment.rows(part)]
    yield from rows


def as_function(attribute: str) -> Callable[..., Iterator[Row]]:
    """The experiment of a Python name (linear_theory: linear-theory) as a function that yields its rows."""
    name = attribute.replace("_", "-")
    return _as_function(name, resolve("experiment", name))


@functools.cache
def _as_function(name: str, factory: Callable[..., Experiment]) -> Callable[..., Iterator[Row]]:
    def rows(scale: Scale = "small", data_dir: str | Path | None = None, **options: Any) -> Iterator[Row]:
        experiment = build(name, scale, data_dir, **options)
        return (row for part in experiment.parts for row in of_part(experiment, part))

    rows.__name__ = rows.__qualname__ = name.replace("-", "_")
    rows.__module__ = "nodepert.experiments"
    rows.__doc__ = f"""{inspect.getdoc(factory)}
    scale: "smoke" (seconds), "small" (minutes on two cores) or "paper" (as published). The defaults in the signature
        are those of "small"; options that are given replace those of the scale.
    data_dir: Directory of the data files. Default: NODEPERT_DATA_DIR, then the user's cache, then a download.

Returns:
    An iterator of rows, dictionaries of plain values. Each part is computed when its first row is asked for.

Raises:
    UserError: for unknown options, and values that the experiment refuses.

Examples:
    rows = list(npt.experiments.{rows.__name__}(scale="smoke"))
"""
    of_rows, defaults = inspect.signature(rows, eval_str=True), options(name)
    own = [p.replace(default=defaults[p.name]) for p in parameters("experiment", name).values()]
    common = [p for p in of_rows.parameters.values() if p.kind is not p.VAR_KEYWORD]
    rows.__signature__ = of_rows.replace(parameters=[*common, *own])  # pyright: ignore[reportFunctionMemberAccess]
    return rows
