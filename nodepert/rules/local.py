"""Local losses: any rule, block by block, each trained by the loss of its own head."""

from __future__ import annotations

import re
from functools import partial
from math import prod

import jax
import jax.numpy as jnp

from nodepert.contract.losses import is_integer
from nodepert.core import (
    Array,
    Info,
    Loss,
    Model,
    Params,
    Rule,
    in_parts,
    per_example,
    plain,
    preactivations,
    recording,
    stateless,
)
from nodepert.errors import UserError
from nodepert.registry import make
from nodepert.registry.spec import BY_NODE, Spec
from nodepert.rules.combine import restricted, summed

HEAD = re.compile(r"head\d+")


def local(model: Model, loss: Loss, rule: Spec) -> Rule:
    """Train each block of a network by the loss of its own head, with another rule: local(np(credit=own)).

        g_l = g_l of the rule for the loss L_k, with k the first head after node l

    The heads of a network are its nodes head0, head1, ... (see `heads` and `mixer`). A block ends with a head; the last
    one ends with the outputs. The wrapped rule sees the network up to that head, with the nodes of the block only, so
    that no error signal passes from block to block, and noise is credited by the loss of its own block.

    A head with predictions o at several parts, (B, S..., classes), as patches and groups, has a loss in parts,
    L_s = loss(o_s, y)/|S|. np(credit=own) credits the noise of a part by L_s alone: the number of perturbed units that
    matters falls from that of the network to that of a part in a block.

    Cost: that of the rule and the heads, whatever the number of blocks: passes are shared.
    Bias: biased: it follows the gradients of the local losses, for which it has the bias of the wrapped rule; only the
        last block follows the loss of the outputs.
    Derivative of the loss: as the wrapped rule.

    Args:
        model: The network to train, with heads.
        loss: (outputs, targets) -> losses, (B,).
        rule: The wrapped rule.

    Returns:
        The `Rule`; its state is a tuple of the states of the blocks, its info that of the outputs.

    Raises:
        UserError: The rule changes the network itself, or is a map; at the first step, the network has no heads.

    Examples:
        >>> import nodepert as npt
        >>> model, loss = npt.make_model("heads(fc(width=20))", (4,), 3), npt.make_loss("mse")
        >>> rule = npt.make_rule("local(np(credit=own))", model, loss)

    References:
        Belilovsky, Eickenberg and Oyallon 2019; Ren, Kornblith, Liao and Hinton 2023.
    """
    if rule.name == BY_NODE:
        raise UserError("local cannot wrap a map, as it trains the nodes of one block at a time; give the map local "
                        "rules, as in 'local(np); out=exact'")  # fmt: skip
    if make("rule", rule, model, loss).model:
        raise UserError(f"{rule.name} changes the network itself and must wrap local, as in {rule.name}(local(np))")

    def of(head: str, nodes: list[str]) -> Rule:
        if not nodes:
            return watching(model, loss)
        if not head:
            return make("rule", rule, restricted(model, nodes), loss)
        return make("rule", rule, restricted(ending_at(model, head), nodes), partial(loss_of_parts, loss))

    return summed(lambda params, x: [of(*block) for block in blocks(model, params, x)], info=-1)


def blocks(model: Model, params: Params, x: Array) -> list[tuple[str, list[str]]]:
    """(head, nodes up to it) of each block, then ("", nodes after the last head). Raises UserError without a head."""
    order: dict[str, None] = {}

    def node(name, op, params, h):
        order.setdefault(name)
        return op(params, h)

    jax.eval_shape(lambda p, x: model.apply(p, x, recording({}, node)), params, x)
    found: list[tuple[str, list[str]]] = []
    nodes: list[str] = []
    for name in order:
        nodes.append(name)
        if HEAD.fullmatch(name):
            found.append((name, nodes))
            nodes = []
    if not found:
        raise UserError("local losses need heads, and this network has none: take heads(...) around it, as in "
                        "heads(fc), or a network with heads, as mixer")  # fmt: skip
    return [*found, ("", nodes)]


def ending_at(model: Model, head: str) -> Model:
    """The same network, whose outputs are the predictions of a head."""
    return Model(model.init, lambda params, x, node=plain: preactivations(model, params, x, node)[head])


def loss_of_parts(loss: Loss, outputs: Array, targets: Array) -> Array:
    """The loss of a head, (B,), or in parts, (B, S...), for predictions (B, S..., n), with the targets repeated, unless
    they are given for each part. The sum of an example's parts is their mean loss."""
    each, size = outputs.shape[:-1], prod(outputs.shape[1:-1])
    given = each if is_integer(targets) else outputs.shape
    if outputs.ndim == 2 or getattr(targets, "shape", ()) == given:
        return loss(outputs, targets)
    repeated = jax.tree.map(lambda t: jnp.repeat(t, size, axis=0), targets)
    return in_parts(loss, outputs.reshape(-1, outputs.shape[-1]), repeated).reshape(each) / size


def watching(model: Model, loss: Loss) -> Rule:
    """A rule for no node: it reports the loss and the outputs."""

    def grads(key, state, params, batch):
        x, y = batch
        outputs = model.apply(params, x)
        return jax.tree.map(jnp.zeros_like, params), state, Info(per_example(loss, outputs, y), outputs)

    return Rule(stateless, grads)
