"""The registered names: those of the catalogue, of installed packages, and of this process (`register`).

A package adds names by entry points of the groups `nodepert.rules`, `nodepert.networks`, `nodepert.losses`, ...
(CONTRIBUTING.md).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from typing import Any
from weakref import WeakValueDictionary

from nodepert.errors import UserError, did_you_mean
from nodepert.registry.catalogue import ALIASES, BUILT_IN, CONTEXT
from nodepert.registry.entry import TASKS, Entry, Passes
from nodepert.registry.lines import imported, line_of
from nodepert.registry.spec import Spec, parse

OWN: dict[str, dict[str, Entry]] = {}  # kind -> name -> what `register` added in this process
GIVEN: dict[str, WeakValueDictionary[str, Entry]] = {}  # kind -> name -> an object in place of a spec (given.py)


def names(kind: str) -> list[str]:
    """All names of a kind ("rule", "network", "loss", ...), plug-ins included."""
    return list(table(kind))


def table(kind: str) -> dict[str, Entry]:
    """All registry lines of a kind. Raises UserError if a plug-in uses a name that is taken."""
    lines = dict(BUILT_IN[kind])
    for name, line in plugins(kind):
        if name in lines or name in ALIASES.get(kind, {}):
            owner = (name in lines and lines[name].package) or "NodePert"
            raise UserError(f"the package {line.package} adds a {kind} '{name}', but that name is taken by {owner}; "
                            "uninstall one")  # fmt: skip
        lines[name] = line
    return lines | OWN.get(kind, {})


@functools.cache
def plugins(kind: str) -> tuple[tuple[str, Entry], ...]:
    """(name, entry) of everything that installed packages add, by entry points of the group "nodepert.rules" etc."""
    found = entry_points(group=f"nodepert.{plural(kind)}")
    return tuple((e.name, Entry(e.value, package=e.dist.name if e.dist else e.value)) for e in found)


def plural(kind: str) -> str:
    """rules, networks, losses, ..."""
    return "losses" if kind == "loss" else f"{kind}s"


def entry(kind: str, name: str) -> Entry:
    """The registry line of a name. Raises UserError, listing the valid names, for an unknown one."""
    name = ALIASES.get(kind, {}).get(name, name)
    lines = table(kind)
    if name not in lines:
        if line := GIVEN.get(kind, {}).get(name):
            return line
        raise UserError(f"unknown {kind} '{name}'{did_you_mean(name, lines)}; there are: {', '.join(lines)}")
    return lines[name]


def resolve(kind: str, name: str) -> Callable[..., Any]:
    """The registered factory. Raises UserError if a plug-in's cannot be imported."""
    line = entry(kind, name)
    if line.factory:
        return line.factory
    try:
        return imported(line.target)
    except Exception as error:
        if not line.package:
            raise
        raise UserError(f"the {kind} '{name}' of the package {line.package} cannot be imported: "
                        f"{type(error).__name__}: {error}") from error  # fmt: skip


def everything() -> Iterator[tuple[str, str, Entry]]:
    """All registered (kind, name, entry)."""
    for kind in BUILT_IN:
        for name, line in table(kind).items():
            yield kind, name, line


def register(
    kind: str,
    name: str,
    factory: Any,
    *,
    loss: str = "mse",
    passes: Passes = None,
    task: str = "classes",
) -> None:
    """Give a factory or an object a name in this process, so that specs can use it and runs with it can be saved.

    Registering a name again replaces it, as when a notebook cell is run twice. A run saved under a `name` records a
    digest of the factory's source; once the source has changed, reading the run back gives a warning. Another object
    under the name of the one that was trained is an error. Other processes, such as the workers of a sweep, do not know
    the name: for those, put the factory into a package with an entry point (documentation, "Your own rule").

    Args:
        kind: What the factory makes, and from which positional arguments. The arguments of the spec follow after a
            `*`, annotated as float (may be traced), int, bool, str or Literal.

            - "rule": (model, loss, *, ...) -> Rule
            - "guide": (model, *, ...) -> Guide, for `np`
            - "credit": (*, ...) -> (change of the loss in parts, noise) -> what the noise of each step is credited with
            - "network": (input_shape, classes, *, ...) -> Model
            - "loss": (outputs, targets, *, ...) -> losses, (B,)
            - "optimizer": (lr, steps, *, ...) -> optax.GradientTransformation
            - "dataset": (data_dir, *, ...) -> Dataset
            - "experiment": (load, *, ...) -> Experiment
            - "tracker": (*, ...) -> Callback
            - "launcher": (study, *, ...) -> Launcher
        name: Letters, digits, _ and inner hyphens.
        factory: The function; or what it returns for a network (a `Model`, a Flax or Equinox module), an optimizer
            (an `optax.GradientTransformation`, which has its own learning rate) or a data set (a `Dataset`, or arrays).
        loss: The default loss of a network.
        passes: Forward passes per step of a rule, for `nodepert list` and reports: a number, or a function of the
            spec's arguments. Default: unknown.
        task: What the targets of a data set are, which decides the default loss: "classes", "probabilities",
            "multilabel", "values", "steps" or "series".

    Raises:
        UserError: The kind or the task is unknown, the name is invalid or taken, or `factory` is no such function or
            object.

    Examples:
        >>> import nodepert as npt
        >>> npt.register("rule", "exact-again", lambda model, loss: npt.backprop(model, loss), passes=3)
        >>> npt.Run(rule="exact-again").rule
        'exact-again'
    """
    if kind not in CONTEXT:
        raise UserError(f"no kind '{kind}'; there are: {', '.join(CONTEXT)}")
    if task not in TASKS:
        raise UserError(f"no task '{task}'{did_you_mean(task, TASKS)}; there are: {', '.join(filter(None, TASKS))}")
    _check_name(kind, name)
    OWN.setdefault(kind, {})[name] = line_of(kind, factory, name, loss=loss, passes=passes, task=task)


def _check_name(kind: str, name: str) -> None:
    """Raises UserError for a name that specs cannot contain or that is taken."""
    try:
        plain = parse(name) == Spec(name)
    except UserError:
        plain = False
    if not plain:
        raise UserError(f"the name '{name}' cannot be used in a spec; use letters, digits, _ and inner hyphens")
    taken = {**dict.fromkeys(ALIASES.get(kind, {}), "NodePert"), **dict.fromkeys(BUILT_IN[kind], "NodePert"),
             **{other: f"the package {line.package}" for other, line in plugins(kind)}}  # fmt: skip
    if name in taken:
        raise UserError(f"the name '{name}' is taken by a {kind} of {taken[name]}; choose another")
