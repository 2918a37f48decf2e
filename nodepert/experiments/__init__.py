"""Experiments: `npt.experiments.linesearch(scale="small", widths=(100,))` is an iterator of rows."""

from collections.abc import Callable, Iterator
from typing import Any

from nodepert.experiments.experiment import Experiment as Experiment
from nodepert.experiments.experiment import Finding as Finding
from nodepert.experiments.experiment import build as build
from nodepert.experiments.experiment import of_name
from nodepert.spec import UserError


def __getattr__(name: str) -> Callable[..., Iterator[dict[str, Any]]]:
    try:
        return of_name(name)
    except UserError as error:
        raise AttributeError(str(error)) from None
