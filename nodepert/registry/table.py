"""Which names there are: those of the catalogue, of installed packages, and of this process (`register`).

A package of its own adds one by an entry point of group `nodepert.rules`, `nodepert.networks`, `nodepert.losses`, ...
(CONTRIBUTING.md).
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from typing import Any

from nodepert.errors import UserError, did_you_mean
from nodepert.registry.catalogue import ALIASES, BUILT_IN, CONTEXT, Entry
from nodepert.registry.signatures import described
from nodepert.registry.spec import Spec, parse

OWN: dict[str, dict[str, Entry]] = {}  # kind, name: what `register` was given, in this process


def names(kind: str) -> list[str]:
    """What is registered as a `kind` ("rule", "network", "loss", "dataset", "optimizer"), plug-ins included."""
    return list(table(kind))


def table(kind: str) -> dict[str, Entry]:
    """All registry lines of a kind. Raises UserError where a plug-in takes a name that is taken."""
    lines = dict(BUILT_IN[kind])
    for name, line in plugins(kind):
        if name in lines or name in ALIASES.get(kind, {}):
            owner = (name in lines and lines[name].package) or "NodePert"
            raise UserError(f"the package {line.package} brings a {kind} '{name}', but that name is taken by {owner}; "
                            "uninstall one")  # fmt: skip
        lines[name] = line
    return lines | OWN.get(kind, {})


@functools.cache
def plugins(kind: str) -> tuple[tuple[str, Entry], ...]:
    """(name, entry) of what installed packages add, by entry points of group "nodepert.rules" and so on."""
    found = entry_points(group=f"nodepert.{plural(kind)}")
    return tuple((e.name, Entry(e.value, package=e.dist.name if e.dist else e.value)) for e in found)


def plural(kind: str) -> str:
    """rules, networks, losses, ..."""
    return "losses" if kind == "loss" else f"{kind}s"


def entry(kind: str, name: str) -> Entry:
    """The registry line of one name. Raises UserError, with the valid names, for an unknown one."""
    name = ALIASES.get(kind, {}).get(name, name)
    lines = table(kind)
    if name not in lines:
        raise UserError(f"unknown {kind} '{name}'{did_you_mean(name, lines)}; there are: {', '.join(lines)}")
    return lines[name]


def resolve(kind: str, name: str) -> Callable[..., Any]:
    """The registered factory itself. Raises UserError where a plug-in's cannot be imported."""
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


def imported(target: str) -> Any:
    """What "module:attribute" stands for."""
    module, _, attribute = target.partition(":")
    return getattr(importlib.import_module(module), attribute)


def everything() -> Iterator[tuple[str, str, Entry]]:
    """All registered (kind, name, entry)."""
    for kind in BUILT_IN:
        for name, line in table(kind).items():
            yield kind, name, line


def register(kind: str, name: str, factory: Callable[..., Any], *, loss: str = "mse") -> None:
    """Give a factory a name in this process, for specs: `npt.register("rule", "mine", my_rule)`, then
    `npt.Run(rule="mine(strength=2)")`. The same name again replaces it, as when a notebook's cell is run again.

    kind: "rule", (model, loss, *, ...) -> Rule; "network", (input_shape, classes, *, ...) -> Model, with the `loss`
    that goes with it; "loss", (outputs, targets, *, ...) -> (B,); "optimizer", (lr, steps, *, ...) -> an optax
    transformation; "dataset", (data_dir, *, ...) -> Dataset; "tracker", (*, ...) -> Callback. The arguments after the
    `*` are those of the spec, annotated float (may be traced), int, bool, str or Literal.

    A run that is kept under a `name` remembers the code of what it names: where that has changed since, it is refused
    and not read back. Other processes, the workers of a sweep among them, do not know of it: for those it goes into a
    package with an entry point (documentation, "Your own rule"). Raises UserError for a kind that is
    none, a name that cannot stand in a spec or is taken, and what is no factory.
    """
    if kind not in CONTEXT:
        raise UserError(f"no kind '{kind}'; there are: {', '.join(CONTEXT)}")
    try:
        plain = parse(name) == Spec(name)
    except UserError:
        plain = False
    if not plain:
        raise UserError(f"the name '{name}' cannot stand in a spec: letters, digits, _ and - in between")
    others = {**dict.fromkeys(ALIASES.get(kind, {}), "NodePert"), **dict.fromkeys(BUILT_IN[kind], "NodePert"),
              **{other: f"the package {line.package}" for other, line in plugins(kind)}}  # fmt: skip
    if name in others:
        raise UserError(f"the name '{name}' is taken by a {kind} of {others[name]}; choose another")
    if isinstance(factory, tuple):  # a Model, a Rule, a Dataset
        made = type(factory).__name__
        raise UserError(f"this is a {made}; register takes the function that makes it, as in lambda ...: {kind}")
    try:
        found = described(factory).parameters
    except (TypeError, NameError) as error:
        raise UserError(f"register takes a factory, a function that gives the {kind}; {error}") from None
    given = [p for p in found if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(given) < CONTEXT[kind] and not any(p.kind is p.VAR_POSITIONAL for p in found):
        raise UserError(f"the factory of a {kind} takes {CONTEXT[kind]} positional arguments, and those of its spec "
                        f"after a *; that of '{name}' takes {len(given)}")  # fmt: skip
    OWN.setdefault(kind, {})[name] = Entry("", loss=loss, factory=factory)
