"""Node perturbation with less variance: fewer perturbed units, and a guide as control variate."""

from __future__ import annotations

from collections.abc import Collection
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nodepert.core import (
    Array,
    Info,
    Key,
    Loss,
    Model,
    Params,
    Rule,
    Signals,
    batchsize,
    expand,
    in_parts,
    node_shapes,
    pullback,
)
from nodepert.rules.between import Between, active, between
from nodepert.rules.credit import Credit, in_the_parts, total
from nodepert.rules.directional import ROWS_AT_ONCE, Difference, directional, loss_along, mean_over_draws
from nodepert.rules.guides.guide import Clean, Guide
from nodepert.rules.noise import Kind
from nodepert.rules.rounding import precise

STEP = 1e-2  # of the outputs, for the error of the loss
MEMORY = 0.99  # of the running moments that shrink a guide


class Guided(NamedTuple):
    """The state of a guide, and running moments of each node: mean <s, d> and mean ||d||^2."""

    guide: Any
    moments: dict[str, Array]  # {node: (2,)}


def guided(
    model: Model, loss: Loss, guide: Guide, *, sigma: float, samples: int, noise: Kind, difference: Difference,
    shared: bool, gated: bool, evaluated: bool, credit: Credit,
) -> Rule:  # fmt: skip
    """The estimate of node perturbation around a prediction d of the signals, on the units that are active.

        s_l = d_l + mean_k (slope_k - <d, xi^k>) xi_l^k,    d_l = c_l guide_l,    c_l = mean <s_l, g_l> / mean ||g_l||^2

    Args:
        model, loss: As for `node_perturbation`.
        guide: What predicts the signals.
        sigma, samples, noise, difference: As for `node_perturbation`.
        shared: One draw for all examples.
        gated: Perturb active units only.
        evaluated: Take the error of the outputs from the loss alone; the nodes that only reach the outputs are not
            perturbed.
        credit: Which parts of the loss answer for the noise of a node.

    Returns:
        The `Rule`; its state is `Guided`.
    """

    def init(key, params, x):
        before = unlearned(guide, model, key, params, x)
        return Guided(before, {name: jnp.zeros(2) for name in node_shapes(model, params, x)})

    fine, fine_loss = precise(model, loss, difference, sigma)

    def grads(key, state, params, batch):
        x, _ = batch
        clean, losses = clean_pass(fine, fine_loss, params, batch, evaluated)
        cut, moved = clean.cut, perturbed(clean.cut, evaluated)
        gates = {name: gate for name, gate in active(cut).items() if name in moved} if gated else {}
        raw, d = predictions(guide, state, clean, moved, gates)
        shapes = {name: jax.ShapeDtypeStruct((1, *a.shape[1:]) if shared else a.shape, a.dtype)
                  for name, a in cut.a.items() if name in moved}  # fmt: skip
        slope = directional(difference, loss_along(fine, fine_loss, params, batch), losses,
                            {name: cut.a[name] for name in moved}, sigma)  # fmt: skip

        def one_draw(xi: Signals) -> Signals:
            xi = {name: jnp.broadcast_to(n, cut.a[name].shape) * gates.get(name, 1) for name, n in xi.items()}
            change = slope(xi)
            surprise = change - along(d, xi, change)  # as the loss
            return {name: expand(credit(surprise, n), n) * n for name, n in xi.items()}

        at_once = max(1, ROWS_AT_ONCE // batchsize(x))
        residual = mean_over_draws(one_draw, key, shapes, noise, samples, at_once) if moved else {}
        signals = d | {name: d[name] + r for name, r in residual.items()}
        state = learned(guide, state, clean, raw, signals)
        grads = pullback(model, params, x, jax.tree.map(lambda s: s / batchsize(x), signals))
        return grads, state, Info(total(losses), cut.outputs)

    return Rule(init, grads)


def unlearned(guide: Guide, model: Model, key: Key, params: Params, x: Array) -> Any:
    """The state of a guide before the first step."""
    cut = between(model, params, x[:1])
    return guide.init(key, Clean(params, x[:1], cut, jnp.zeros_like(cut.outputs)))


def clean_pass(
    model: Model, loss: Loss, params: Params, batch: tuple[Array, Array], evaluated: bool
) -> tuple[Clean, Array]:
    """The clean pass, cut at its nodes, and its losses; the error of the outputs is 0 unless it is evaluated."""
    x, y = batch
    cut = between(model, params, x)
    error = output_error(loss, cut.outputs, y) if evaluated else jnp.zeros_like(cut.outputs)
    return Clean(params, x, cut, error), in_parts(loss, cut.outputs, y)


def perturbed(cut: Between, evaluated: bool) -> list[str]:
    """The nodes that get noise: with an evaluated head the others have their exact signal."""
    return [name for name in cut.a if not (evaluated and name in cut.last)]


def predictions(
    guide: Guide, state: Guided, clean: Clean, moved: Collection[str], gates: Signals
) -> tuple[Signals, Signals]:
    """What the guide predicts, beside the error of the outputs where it arrives alone: as it is, and d, which is shrunk
    at the perturbed nodes, and 0 at their inactive units."""
    exact, raw = clean.cut.back({}, clean.error), guide.signals(state.guide, clean)
    shrunk = {
        name: (shrinkage(state.moments[name]) * raw[name]).astype(raw[name].dtype) for name in moved if name in raw
    }
    return exact | raw, {name: s * gates.get(name, 1) for name, s in (exact | shrunk).items()}


def along(signals: Signals, xi: Signals, like: Array) -> Array:
    """<signals, xi> over all units of xi, in the parts of the loss, (B,) or `like`, summed in float32 or better."""
    products = [(signals[name] * n).astype(jnp.promote_types(n.dtype, jnp.float32)) for name, n in xi.items()]
    return jnp.stack([in_the_parts(p, like) for p in products]).sum(0)


def learned(guide: Guide, state: Guided, clean: Clean, predicted: Signals, signals: Signals) -> Guided:
    """The state after a step; what a guide does not predict is not its error."""
    residual = {name: s - predicted[name] for name, s in signals.items()}
    new = guide.learn(state.guide, clean, predicted, residual)
    moments = {name: MEMORY * m + (1 - MEMORY) * jnp.stack([(signals[name] * predicted[name]).mean(),
               jnp.square(predicted[name]).mean()]) for name, m in state.moments.items()}  # fmt: skip
    return Guided(new, moments)


def shrinkage(moments: Array) -> Array:
    """The factor of a guide: the regression coefficient of the signals on it, in [0, 1]."""
    product, square = moments
    return jnp.where(square > 0, jnp.clip(product / jnp.where(square > 0, square, 1), 0, 1), 0)


def output_error(loss: Loss, outputs: Array, targets: Array) -> Array:
    """dL_b/do of every example, shaped as the outputs, from the loss alone.

        e_i = (L_b(o + s u_i) - L_b(o - s u_i)) / (2 s),    for each output i

    The parts of a loss are independent, and their outputs changed together.

    No forward pass of the network, and no derivative of the loss. The error is O(s^2), and zero for a quadratic loss.
    """
    wide = outputs.astype(jnp.promote_types(outputs.dtype, jnp.float32))
    parts = jax.eval_shape(lambda o: in_parts(loss, o, targets), wide).shape
    each = outputs.shape[len(parts) :]  # outputs of a part
    units = jnp.eye(prod(each), dtype=jnp.float32).reshape(-1, *(1,) * len(parts), *each)

    def change(unit):
        return in_parts(loss, wide + STEP * unit, targets) - in_parts(loss, wide - STEP * unit, targets)

    changes = jax.lax.map(change, units, batch_size=max(1, ROWS_AT_ONCE // prod(parts)))  # (n, B, ...)
    return (jnp.moveaxis(changes, 0, -1) / (2 * STEP)).reshape(outputs.shape).astype(outputs.dtype)
