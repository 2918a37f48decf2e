"""What a line of the registry holds, and what the tasks of data sets are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

Passes = int | Callable[..., int | None] | None


class Task(NamedTuple):
    """What the targets of a data set are."""

    targets: str  # in a sentence
    loss: str = ""  # of loss="auto"; for classes that of the network


TASKS = {
    "classes": Task("classes"),
    "probabilities": Task("probabilities of classes", "cross-entropy"),
    "multilabel": Task("several labels per example", "sigmoid-cross-entropy"),
    "values": Task("values", "linear-mse"),
    "steps": Task("a class for every time step", "cross-entropy"),
    "series": Task("values for every time step", "linear-mse"),
    "": Task("known once they are loaded", "by-target"),
}


@dataclass(frozen=True, eq=False)  # weak references to it exist
class Entry:
    """One line of the registry."""

    target: str  # "module:attribute", imported on first use
    about: str = ""  # one sentence for `nodepert list`; default: the first line of the docstring
    loss: str = "mse"  # networks only: the default loss
    passes: Passes = None  # rules only: forward passes per step, or a function of the spec's arguments; None: unknown
    lr: float | None = None  # rules only: the learning rate measured by benchmarks/rates.py
    examples: int | None = None  # data sets only: training examples
    shape: tuple[int, ...] = ()  # data sets only: of one input, if known without loading
    outputs: int = 0  # data sets only: classes, or values per example
    steps: int = 0  # data sets only: time steps of the targets; 0 where there is one target per example
    task: str = "classes"  # data sets only: one of TASKS
    tasks: tuple[str, ...] = ()  # losses only: the tasks that it fits; () for all
    later: tuple[str, ...] = ()  # arguments of a later version: at their defaults they do not change a run's identity
    package: str = ""  # the plug-in that provides it
    factory: Callable[..., Any] | None = None  # instead of a target: registered in this process
    given: Any = None  # the object that the factory returns, where it was given as it is

    @property
    def own(self) -> bool:
        """Whether it was added by a plug-in or by `register`."""
        return bool(self.package or self.factory)
