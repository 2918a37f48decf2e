"""Experiments: `npt.experiments.linesearch(scale="small", widths=(100,))` is an iterator of rows."""

import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from nodepert.errors import UserError
from nodepert.experiments.experiment import Experiment as Experiment
from nodepert.experiments.experiment import Finding as Finding
from nodepert.experiments.experiment import build as build
from nodepert.experiments.experiment import of_name
from nodepert.experiments.experiment import options as options
from nodepert.registry import names


def __getattr__(name: str) -> Callable[..., Iterator[dict[str, Any]]]:
    try:
        return of_name(name)
    except UserError as error:
        raise AttributeError(str(error)) from None


class Package(ModuleType):
    """Of an experiment and the file that holds it, which have one name, `npt.experiments.NAME` is the experiment."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (isinstance(value, ModuleType) and name.replace("_", "-") in names("experiment")):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = Package
