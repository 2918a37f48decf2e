"""Cosine of an estimate with the gradient: expected from the rule's variance, and measured."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nodepert.core import Loss, Model, backprop, node_shapes
from nodepert.errors import UserError
from nodepert.experiments.shared.looping import followed
from nodepert.registry import check, full
from nodepert.registry.spec import Spec
from nodepert.rules.directional import loss_along
from nodepert.rules.noise import key_of
from nodepert.training.devices import compiler_options


def unbiased(rule: str) -> Spec:
    """The rule with difference=jvp, unless the spec has another. Raises UserError for rules of unknown variance."""
    spec = check("rule", rule)
    if "difference" not in dict(spec.kwargs) and spec.name in ("np", "inp", "wp"):
        spec = replace(spec, kwargs=(*spec.kwargs, ("difference", "jvp")))
    values = dict(full("rule", spec).kwargs)
    usual = {"samples": 1, "sharing": {"np": "example", "wp": "batch"}.get(spec.name), "baseline": "clean",
             "presynaptic": "auto", "rank": 0}  # fmt: skip
    if spec.name not in ("np", "inp", "wp") or any(values.get(k, v) != v for k, v in usual.items()):
        raise UserError(f"alignment knows the variance of np, inp and wp, with noise and difference; got '{rule}'")
    return full("rule", spec)


class Known(NamedTuple):
    """Properties of a network and a batch that the law needs."""

    gradient: jax.Array  # all of it in one vector
    units: dict[str, int]  # by node
    inputs: dict[str, np.ndarray]  # ||z_l||^2 of every example, (B,)
    deltas: dict[str, np.ndarray]  # ||delta_l||^2 of every example, (B,)


def vector(tree: Any) -> jax.Array:
    """All leaves of a pytree, one after another."""
    return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(tree)])


def known(model: Model, loss: Loss, params: Any, batch: Any) -> Known:
    """Computed by differentiating the loss with respect to a perturbation of every pre-activation, at zero."""
    shapes = node_shapes(model, params, batch[0])
    inputs: dict[str, Any] = {}

    def node(name, op, params, h):
        inputs[name] = jnp.square(h).sum(-1) + 1
        return op(params, h)

    model.apply(params, batch[0], node)
    nothing = {name: jnp.zeros(s.shape, s.dtype) for name, s in shapes.items()}
    deltas = jax.grad(lambda eps: loss_along(model, loss, params, batch)(eps).sum())(nothing)
    exact, _, _ = backprop(model, loss).grads(key_of(0), (), params, batch)

    def wide(tree):
        return jax.tree.map(lambda a: np.asarray(a, np.float64), tree)

    return Known(vector(exact), {name: s.shape[1] for name, s in shapes.items()}, wide(inputs),
                 wide({name: jnp.square(d).sum(-1) for name, d in deltas.items()}))  # fmt: skip


def variance(spec: Spec, about: Known) -> float:
    """V: the expected squared distance of one draw's estimate from the gradient."""
    gaussian = dict(spec.kwargs)["noise"] == "gaussian"
    square = float(np.square(np.asarray(about.gradient, np.float64)).sum())
    if spec.name == "wp":
        return (about.gradient.size + (1 if gaussian else -1)) * square
    total = sum(about.deltas.values())
    each: Any = 0.0
    for name, n in about.units.items():
        delta, z = about.deltas[name], about.inputs[name]
        each += z * (n * (total if spec.name == "np" else delta) - delta)  # a node's part of ||g_b||^2 is z * delta
        each += z * 2 * delta * (gaussian and spec.name == "np")
    return float(each.sum()) / len(each) ** 2


def law(spec: Spec, about: Known, draws: int) -> float:
    """The expected cosine of a mean over draws."""
    square = float(np.square(np.asarray(about.gradient, np.float64)).sum())
    cosine = math.sqrt(square / (square + variance(spec, about) / draws))
    chi = math.sqrt(2 / draws) * math.exp(math.lgamma((draws + 1) / 2) - math.lgamma(draws / 2))
    return cosine * (chi if spec.name == "wp" else 1)


def cosines(rule: Any, params: Any, batch: Any, gradient: Any, key: Any, trials: int, draws: int) -> list[np.ndarray]:
    """Cosines of means over 1, 2, 4, ..., `draws` draws; each draw is in one mean of every size."""

    def cosine(v, unit):
        return v @ unit / jnp.sqrt(v @ v)

    def mean(level, given, i):
        """Mean over draws i 2^level and following, and the cosines of all means within."""
        params, unit, batch = given
        if level == 0:
            estimate = vector(rule.grads(jax.random.fold_in(key, i), (), params, batch)[0])
            return estimate, [cosine(estimate, unit)[None]]
        halves, found = jax.lax.map(partial(mean, level - 1, given), 2 * i + jnp.arange(2))
        whole = halves.sum(0) / 2
        return whole, [*(c.ravel() for c in found), cosine(whole, unit)[None]]

    levels = draws.bit_length() - 1
    trial = jax.jit(lambda given, i: mean(levels, given, i)[1], compiler_options=compiler_options())
    given = params, gradient / jnp.sqrt(gradient @ gradient), batch
    steps = followed(lambda state, i: (state, trial(given, i - 1)), (), range(1, trials + 1), "trial")
    found = [cosines for _, cosines in steps]
    return [np.concatenate([np.asarray(f[level], np.float64) for f in found]) for level in range(levels + 1)]
