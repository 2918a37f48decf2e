"""A map from nodes to rules: every node learns by its own."""

from __future__ import annotations

from fnmatch import fnmatchcase

import jax
import jax.numpy as jnp

from nodepert.core import Array, Loss, Model, Params, Rule, node_shapes, restricted
from nodepert.errors import UserError
from nodepert.registry import make
from nodepert.registry.spec import Spec


def by_node(model: Model, loss: Loss, **rules: Spec) -> Rule:
    """A rule for each group of nodes: 'np; out=exact', 'np; fc*=dfa; out=exact'.

        g_l = g_l of the rule whose pattern is the last to match the name of node l

    Patterns are names or globs (*, ?, [...]); the first entry may lack one and is then for all nodes. Each rule sees
    the network with its own nodes alone: np perturbs those, fa replaces their weights on the way back; the others are
    fixed parts, through which exact derivatives pass where a rule asks for them. Info is that of the first rule.

    Cost: the sum of its rules'; what they compute in common, as the clean pass, is computed once.
    Bias: as its rules, node by node.
    Derivative of the loss: needed where one of its rules needs it.

    Raises UserError for a pattern that matches no node and for a node that no pattern matches, listing the nodes.
    """
    for pattern, spec in rules.items():
        if make("rule", spec, model, loss).model:
            raise UserError(f"'{pattern}={spec}': {spec.name} changes the whole network; put it around the map, "
                            f"as in {spec.name}('np; out=exact')")  # fmt: skip

    def groups(params: Params, x: Array) -> list[Rule]:
        names = assigned(list(rules), list(node_shapes(model, params, x)))
        parts = {p: [n for n, pattern in names.items() if pattern == p] for p in rules}
        return [make("rule", rules[p], restricted(model, own), loss) for p, own in parts.items() if own]

    def init(key, params, x):
        return tuple(r.init(jax.random.fold_in(key, i), params, x) for i, r in enumerate(groups(params, x)))

    def grads(key, state, params, batch):
        total, states, infos = None, [], []
        for i, rule in enumerate(groups(params, batch[0])):
            g, new, info = rule.grads(jax.random.fold_in(key, i), state[i], params, batch)
            total = g if total is None else jax.tree.map(jnp.add, total, g)
            states, infos = [*states, new], [*infos, info]
        return total, tuple(states), infos[0]

    return Rule(init, grads)


def assigned(patterns: list[str], nodes: list[str]) -> dict[str, str]:
    """{node: the last pattern that matches it}. Raises UserError."""
    for pattern in patterns:
        if not any(fnmatchcase(node, pattern) for node in nodes):
            raise UserError(f"no node is named '{pattern}'; the nodes are: {', '.join(nodes)}")
    found = {node: [p for p in patterns if fnmatchcase(node, p)] for node in nodes}
    if left := [node for node in nodes if not found[node]]:
        raise UserError(f"no rule for the node{'s' * (len(left) > 1)} {', '.join(left)}; begin with one for all, "
                        "as in 'np; out=exact'")  # fmt: skip
    return {node: matching[-1] for node, matching in found.items()}
