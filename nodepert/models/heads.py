"""Auxiliary heads: predictions from the activity inside a network, for rules with local losses (rules/local.py)."""

from __future__ import annotations

from math import prod
from typing import Literal

import jax
import jax.numpy as jnp

from nodepert.core import Array, Model, Op, Params, plain, recording
from nodepert.models.layers import xavier
from nodepert.registry import make
from nodepert.registry.spec import Spec

Predict = Literal["pooled", "replicated", "parts"]


def heads(input_shape: tuple[int, ...], classes: int, network: Spec, *, predict: Predict = "pooled") -> Model:
    """Add a head at the input of every node but the first, as in heads(fc).

    The heads are nodes too, head0, head1, ..., linear in the activity that reaches a node. A rule with local losses,
    local(np), trains what lies below a head by the loss of that head. The outputs are those of the network.

    Args:
        input_shape: Shape of one input.
        classes: Number of outputs, also of each head.
        network: The network.
        predict: What a head predicts from, for an activity (B, positions..., n); see `predicting`.

    Returns:
        The `Model`; its parameters are {"network": those of the network, "heads": {head: parameters}}.

    Raises:
        UserError: The network cannot be built.
        ValueError: It has a single node.

    Examples:
        >>> import jax, nodepert as npt
        >>> model = npt.make_model("heads(fc(width=100))", (28, 28, 1), 10)
        >>> sorted(model.init(jax.random.key(0))["heads"])
        ['head0', 'head1']
    """
    return headed(make("network", network, input_shape, classes), input_shape, classes, predict)


def headed(model: Model, input_shape: tuple[int, ...], classes: int, predict: Predict = "pooled") -> Model:
    """The network with a head at the input of every node but the first. Raises ValueError for a single node."""
    units = activity_sizes(model, input_shape)
    below = {name: f"head{i}" for i, name in enumerate([*units][1:])}
    if not below:
        raise ValueError("heads need a network with at least two nodes: they are at the inputs of all but the first")

    def init(key):
        inner, *keys = jax.random.split(key, 1 + len(below))
        added = {head: xavier(k, (units[name], classes)) for k, (name, head) in zip(keys, below.items(), strict=True)}
        return {"network": model.init(inner), "heads": added}

    def apply(params, x, node=plain):
        def with_head(name, op, own, h):
            if name in below:
                node(below[name], predicting(predict), params["heads"][below[name]], h)
            return node(name, op, own, h)

        return model.apply(params["network"], x, with_head)

    module = model.module
    return Model(init, apply, module and (lambda params: module(params["network"])))


def activity_sizes(model: Model, input_shape: tuple[int, ...]) -> dict[str, int]:
    """{node: size of the last axis of its input}, in the order of the calls."""
    sizes: dict[str, int] = {}

    def node(name, op, params, h):
        sizes[name] = h.shape[-1]
        return op(params, h)

    x = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
    jax.eval_shape(lambda x: model.apply(model.init(jax.random.key(0)), x, recording({}, node)), x)
    return sizes


def predicting(predict: Predict) -> Op:
    """The operator of a head on an activity h, (B, S..., n), with parameters {"w": (n, classes), "b": (classes,)}.

        pooled      o = mean over s of h_s w + b, (B, classes): one prediction
        parts       o_s = h_s w + b, (B, S..., classes): one prediction at each position, from that position alone
        replicated  o_s = o of pooled at each position, with a derivative for h_s alone (Ren et al. 2023)

    With w of shape (G, n, classes), for h of shape (B, S..., G, n), each group has its own weights, and `pooled` is the
    sum over groups. The derivative of replicated is scaled such that the mean loss of the replicas has the gradient of
    the loss of `pooled`. Finite differences do not see it: they measure how the prediction changes by the noise of all
    parts, as with `pooled`.
    """
    return {"pooled": pooled, "parts": apart, "replicated": replicated}[predict]


def apart(params: Params, h: Array) -> Array:
    """The prediction of each part from itself."""
    return product(params["w"], h) + params["b"]


def pooled(params: Params, h: Array) -> Array:
    """The prediction from all parts together."""
    w = params["w"]
    shared = tuple(range(1, h.ndim - w.ndim + 1))  # axes of positions with the same weights
    o = product(w, h.mean(shared))
    return o.sum(tuple(range(1, o.ndim - 1))) + params["b"]


def replicated(params: Params, h: Array) -> Array:
    """The prediction from all parts, at each of them, with the derivative of its own contribution."""
    fixed, w = jax.lax.stop_gradient(h), params["w"]
    axes = (1,) * (h.ndim - 2)
    prediction = pooled(params, fixed).reshape(len(h), *axes, -1)
    groups = prod(w.shape[:-2])  # with weights of their own: summed, not averaged
    own = groups * product(jax.lax.stop_gradient(w), h - fixed)
    return prediction + own


def product(w: Array, h: Array) -> Array:
    """h w, or with the weights of each group: (B, S..., G, n), (G, n, classes) -> (B, S..., G, classes)."""
    return h @ w if w.ndim == 2 else jnp.einsum("...gn,gnk->...gk", h, w)
