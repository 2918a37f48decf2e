"""How many draws each node should have: node perturbation of one node after another, by a map from nodes to rules."""

from __future__ import annotations

import glob
from collections.abc import Iterable, Mapping

from nodepert.registry.spec import BY_NODE, Spec


def allocated(variance: Mapping[str, float], draws: int) -> dict[str, int]:
    """The whole numbers K_l >= 1 of draws, `draws` in all, that minimise sum_l V_l / K_l.

    V_l is the variance at node l with one draw. Without rounding K_l is proportional to sqrt(V_l). Each draw goes to
    the node whose variance it lowers most, which is optimal, as V / K is convex in K.

    Examples:
        >>> from nodepert.diagnostics.allocation import allocated
        >>> allocated({"fc0": 9.0, "fc1": 1.0}, 8)
        {'fc0': 6, 'fc1': 2}
    """
    found = dict.fromkeys(variance, 1)
    for _ in range(draws - len(found)):
        node = max(variance, key=lambda name: variance[name] / (found[name] * (found[name] + 1)))
        found[node] += 1
    return found


def mapped(form: Spec, draws: Mapping[str, int], still: Iterable[str]) -> Spec:
    """The map that perturbs each node alone, by `form` with its number of draws, and gives the nodes `still` the error
    that is evaluated from the loss."""

    def of_node(samples: int) -> Spec:
        return Spec(form.name, (), tuple((dict(form.kwargs) | {"samples": samples}).items()))

    evaluated = Spec(form.name, (), (("head", "evaluated"),))
    rules = {name: of_node(samples) for name, samples in draws.items()} | dict.fromkeys(still, evaluated)
    return Spec(BY_NODE, (), tuple((glob.escape(name), rule) for name, rule in rules.items()))
