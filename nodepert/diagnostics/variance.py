"""The variance of node perturbation in closed form: which units are perturbed, and what is left of their signals."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nodepert.core import Array, Key, Loss, Model, Params, Signals, expand, pullback
from nodepert.diagnostics.reference import Batch, by_node, error_signals
from nodepert.registry import full, make
from nodepert.registry.spec import BY_NODE, Spec
from nodepert.rules.between import active
from nodepert.rules.combine import assigned, restricted
from nodepert.rules.directional import columns
from nodepert.rules.guided import Guided, clean_pass, perturbed, predictions
from nodepert.rules.noise import draw


class Spread(NamedTuple):
    """What a rule perturbs, and what is left of the error signals there."""

    units: Array  # perturbed in each example, on average
    residual: Array  # sum of ||r||^2 / sum of ||delta||^2
    deviation: Signals  # {node: (B, ...)}, the standard deviation of each signal; 0 where a unit is not perturbed


def spread(model: Model, loss: Loss, rule: Spec, state: Any, params: Params, batch: Batch) -> Spread:
    """The `Spread` of a form of np, or of a map from nodes to such forms, in which each rule perturbs its nodes alone.

    Args:
        model, loss, params, batch: As for `check`.
        rule: The form, as `registry.check` returns it.
        state: The state of the rule, which a guide has.
    """
    delta = error_signals(model, loss, params, batch)
    if rule.name != BY_NODE:
        return _spread(model, loss, rule, state, params, batch, delta)
    names = assigned([pattern for pattern, _ in rule.kwargs], list(delta))
    own = {pattern: [node for node in names if names[node] == pattern] for pattern, _ in rule.kwargs}
    parts = (_spread(restricted(model, own[pattern]), loss, form, (), params, batch, delta)
             for pattern, form in rule.kwargs)  # fmt: skip
    return jax.tree.map(lambda *values: sum(values), *parts)


def _spread(
    model: Model, loss: Loss, form: Spec, state: Any, params: Params, batch: Batch, delta: Signals
) -> Spread:  # fmt: skip
    """The `Spread` of a form of np, on the nodes that it sees."""
    options: dict[str, Any] = {"active": False, "head": "perturbed", "guide": "none"} | dict(full("rule", form).kwargs)
    evaluated = options["head"] == "evaluated"
    clean, _ = clean_pass(model, loss, params, batch, evaluated)
    moved = perturbed(clean.cut, evaluated)
    found = active(clean.cut) if options["active"] else jax.tree.map(jnp.ones_like, clean.cut.a)
    gates = {name: found[name] for name in moved}
    state = state if isinstance(state, Guided) else Guided((), {})
    _, d = predictions(make("guide", options["guide"], model), state, clean, moved, gates)
    squares = {name: jnp.square(gate * (delta[name] - d.get(name, 0))) for name, gate in gates.items()}
    variance = of_signals(squares, options["noise"], options["samples"])
    deviation = {name: gates[name] * jnp.sqrt(jnp.maximum(v, 0)) for name, v in variance.items()}
    whole = jax.tree.map(jnp.square, delta)
    return Spread(total(gates).mean(), total(squares).sum() / total(whole).sum(),
                  jax.tree.map(jnp.zeros_like, delta) | deviation)  # fmt: skip


def of_signals(squares: Signals, noise: str, samples: int) -> Signals:
    """The variance of the signal of each unit, from the squares r_i^2, {node: (B, ...)}.

        (R + r_i^2)/K gaussian,    (R - r_i^2)/K rademacher,    R_i - r_i^2 orthogonal

    with R the sum of all squares of an example, and R_i that over the units of column i (see `directional.orthogonal`).
    """

    if noise == "orthogonal":
        column = columns(squares, samples)
        sums = jnp.zeros((samples, len(next(iter(squares.values()), ()))))
        for name, s in squares.items():
            sums += jax.ops.segment_sum(s.reshape(len(s), -1).T, column[name].ravel(), samples)
        return {name: jnp.moveaxis(sums[column[name]], -1, 0) - s for name, s in squares.items()}
    everything, found = total(squares), {}
    for name, s in squares.items():
        own, n = total({name: s}), s[0].size
        share, more = {"gaussian": (1, 1), "sphere": (n / (n + 2), 1 - 4 / (n + 2))}.get(noise, (1, -1))
        found[name] = (expand(everything - (1 - share) * own, s) + more * s) / samples
    return found


def total(squares: Signals) -> Array:
    """The sum over all units of each example, (B,); 0 without any."""
    return sum((s.reshape(len(s), -1).sum(1) for s in squares.values()), jnp.zeros(()))


def of_gradient(model: Model, params: Params, x: Array, deviation: Signals, key: Key, draws: int) -> dict[str, Array]:
    """The variance of the gradient of each node, summed over its parameters, for signals of standard deviation s.

    sum_i s_i^2 ||da_i/dtheta||^2 / B^2 = E ||pullback(eps s / B)||^2,    with random signs eps, `draws` times
    """

    def one_draw(key: Key) -> dict[str, Array]:
        signs = draw(key, deviation, "rademacher")
        signals = {name: eps * deviation[name] / len(x) for name, eps in signs.items()}
        return {name: v @ v for name, v in by_node(model, pullback(model, params, x, signals), x).items()}

    return jax.tree.map(lambda v: v.mean(), jax.lax.map(one_draw, jax.random.split(key, draws)))
