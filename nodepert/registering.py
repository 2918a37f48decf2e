"""`register`: names of your own for specs, in one process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nodepert.catalogue import ALIASES, BUILT_IN, CONTEXT, Entry
from nodepert.registry import OWN, plugins
from nodepert.signatures import described
from nodepert.spec import Spec, UserError, parse


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
