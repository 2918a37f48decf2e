"""Questions put to learning rules: `npt.experiments.linesearch(scale="small", widths=(100,))` is an iterator of rows.

`dir(npt.experiments)` lists them and `help(npt.experiments.linesearch)` describes the options of one. An experiment is
imported when it is first used.
"""

from collections.abc import Callable, Iterator
from typing import Any

from nodepert.errors import UserError
from nodepert.experiments.experiment import Experiment as Experiment
from nodepert.experiments.experiment import Finding as Finding
from nodepert.experiments.experiment import as_function
from nodepert.experiments.experiment import build as build
from nodepert.experiments.experiment import options as options
from nodepert.registry import names


def __getattr__(name: str) -> Callable[..., Iterator[dict[str, Any]]]:
    try:
        return as_function(name)
    except UserError as error:
        raise AttributeError(str(error)) from None


def __dir__() -> list[str]:
    return sorted([*globals(), *(name.replace("-", "_") for name in names("experiment"))])
