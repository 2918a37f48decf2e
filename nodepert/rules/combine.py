"""A map from nodes to rules, and what combinators share."""

from __future__ import annotations

from collections.abc import Callable, Collection
from fnmatch import fnmatchcase

import jax
import jax.numpy as jnp

from nodepert.core import Array, Loss, Model, Params, Rule, node_shapes, plain
from nodepert.errors import UserError
from nodepert.registry import make
from nodepert.registry.spec import Spec


def by_node(model: Model, loss: Loss, **rules: Spec) -> Rule:
    """Assign a rule to each group of nodes: 'np; out=exact', 'np; fc*=dfa; out=exact'.

        g_l = g_l of the last rule whose pattern matches the name of node l

    Each rule sees the network with its own nodes only: np perturbs those, fa replaces their weights in the backward
    pass. The others are fixed parts, through which exact derivatives pass where a rule needs them.

    Cost: the sum of its rules' costs; shared computations, such as the clean pass, run once.
    Bias: as its rules, node by node.
    Derivative of the loss: needed where one of its rules needs it.

    Args:
        model: The network to train.
        loss: (outputs, targets) -> losses, (B,).
        rules: {pattern: rule}. Patterns are names of nodes or globs (*, ?, [...]). In a spec the first entry may omit
            its pattern, and then applies to all nodes.

    Returns:
        The `Rule`; its state is a tuple of the rules' states, its info that of the first rule.

    Raises:
        UserError: A rule changes the whole network (decorrelate); at the first step, a pattern matches no node, or a
            node matches no pattern.

    Examples:
        >>> import nodepert as npt
        >>> model, loss = npt.make_model("fc(width=20)", (4,), 3), npt.make_loss("mse")
        >>> rule = npt.make_rule("np; out=exact", model, loss)
    """
    for pattern, spec in rules.items():
        if make("rule", spec, model, loss).model:
            raise UserError(f"'{pattern}={spec}': {spec.name} changes the whole network and must wrap the map, "
                            f"as in {spec.name}('np; out=exact')")  # fmt: skip

    def groups(params: Params, x: Array) -> list[Rule]:
        names = assigned(list(rules), list(node_shapes(model, params, x)))
        parts = {p: [n for n, pattern in names.items() if pattern == p] for p in rules}
        return [make("rule", rules[p], restricted(model, own), loss) for p, own in parts.items() if own]

    return summed(groups)


def summed(rules: Callable[[Params, Array], list[Rule]], info: int = 0) -> Rule:
    """The rule whose gradient is the sum of those of several, given by (params, x), for separate parts of a network.

    Its state is a tuple of their states; `info` is the index of the one whose Info it returns.
    """

    def init(key, params, x):
        return tuple(r.init(jax.random.fold_in(key, i), params, x) for i, r in enumerate(rules(params, x)))

    def grads(key, state, params, batch):
        total, states, infos = None, [], []
        for i, rule in enumerate(rules(params, batch[0])):
            g, new, found = rule.grads(jax.random.fold_in(key, i), state[i], params, batch)
            total = g if total is None else jax.tree.map(jnp.add, total, g)
            states, infos = [*states, new], [*infos, found]
        return total, tuple(states), infos[info]

    return Rule(init, grads)


def restricted(model: Model, names: Collection[str]) -> Model:
    """The same network, of which a rule sees only these nodes; the others are fixed."""

    def apply(params, x, node=plain):
        def chosen(name, op, params, h):
            return node(name, op, params, h) if name in names else op(jax.lax.stop_gradient(params), h)

        return model.apply(params, x, chosen)

    return model._replace(apply=apply)


def assigned(patterns: list[str], nodes: list[str]) -> dict[str, str]:
    """{node: the last pattern that matches it}. Raises UserError as `by_node` does."""
    for pattern in patterns:
        if not any(fnmatchcase(node, pattern) for node in nodes):
            raise UserError(f"no node is named '{pattern}'; the nodes are: {', '.join(nodes)}")
    found = {node: [p for p in patterns if fnmatchcase(node, p)] for node in nodes}
    if left := [node for node in nodes if not found[node]]:
        raise UserError(f"no rule for the node{'s' * (len(left) > 1)} {', '.join(left)}; start with a rule for all "
                        "nodes, as in 'np; out=exact'")  # fmt: skip
    return {node: matching[-1] for node, matching in found.items()}
