"""The gradients that `check` compares with: exact, or of the loss smoothed by noise where there is no exact one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nodepert.contract.mixing import check_network
from nodepert.core import (
    Array,
    Key,
    Loss,
    Model,
    Params,
    Signals,
    adding,
    differentiate,
    expand,
    in_parts,
    node_params,
    node_shapes,
    per_example,
    pullback,
)
from nodepert.diagnostics.moments import Vectors, vector
from nodepert.errors import UserError
from nodepert.rules.credit import total
from nodepert.rules.directional import loss_along, scaled
from nodepert.rules.noise import draw
from nodepert.rules.rounding import precise

Batch = tuple[Array, Array]
PAIRS = 5  # of draws for a smoothed gradient, for each draw of the rule: its own noise is then small


class Reference(NamedTuple):
    """What the estimates of a rule are compared with, by node."""

    gradient: Vectors
    mixed: Vectors
    dtype: Any  # the coarsest
    about: str = ""  # where it is not the exact gradient


def reference_of(
    model: Model, loss: Loss, params: Params, batch: Batch, smoothed: float | None, own: float | None, key: Key,
    draws: int,
) -> Reference:  # fmt: skip
    """The exact gradient; that of the smoothed loss if `smoothed` is its sigma, or where there is no exact one but the
    rule has a sigma of its own. Raises UserError if there is neither."""
    first, second = jax.random.split(key)
    sigma, why = smoothed, ""
    if sigma is None:
        try:
            exact = Reference(*reference(model, loss, params, batch))
        except UserError:
            if own is None:
                raise
            why = ", as it has no derivative"
        else:
            flat = [name for name, g in exact.gradient.items() if not g.any()]
            if own is None or not flat or not hides(model, loss, params, batch, own, first, flat):
                return exact
            why = f", as its derivative is 0 at {', '.join(flat)}, where noise does lower it"
        sigma = own
    contract(model, loss, params, batch)

    @jax.jit
    def found(key: Key, params: Params, batch: Batch) -> Vectors:
        return by_node(model, smoothed_gradient(model, loss, params, batch, sigma, key, PAIRS * draws), batch[0])

    gradient = found(second, params, batch)
    about = (f"The gradient is that of the loss smoothed by Gaussian noise of sigma={sigma:g} on all pre-activations"
             f"{why}; it is the mean of {2 * PAIRS * draws:,} draws.")  # fmt: skip
    dtypes = [leaf.dtype for leaf in jax.tree.leaves(params)]
    return Reference(gradient, jax.tree.map(jnp.zeros_like, gradient), coarsest(dtypes), about)


def reference(model: Model, loss: Loss, params: Params, batch: Batch) -> tuple[Vectors, Vectors, Any]:
    """The exact gradient by node, `mixed`, and the coarsest dtype of the gradient.

    Raises UserError if there is no gradient.
    """
    contract(model, loss, params, batch)

    def gradient(params, batch):
        return differentiate(model, loss, params, batch)[0]

    try:
        leaves = jax.tree.leaves(jax.eval_shape(gradient, params, batch))
    except Exception as error:
        why = (str(error).splitlines() or [""])[0]
        raise UserError("check compares with the true gradient, but this loss or network cannot be differentiated "
                        f"({type(error).__name__}: {why})") from error  # fmt: skip

    def both(params, batch):
        return by_node(model, gradient(params, batch), batch[0]), mixed(model, loss, params, batch)

    return *jax.jit(both)(params, batch), coarsest([leaf.dtype for leaf in leaves])


def contract(model: Model, loss: Loss, params: Params, batch: Batch) -> None:
    """Raises ValueError if model or loss break their contract."""
    x, y = batch
    node_shapes(model, params, x)
    check_network(model, x)
    jax.eval_shape(lambda p, x: per_example(loss, model.apply(p, x), y), params, x)


def coarsest(dtypes: Sequence[Any]) -> Any:
    """The dtype that rounds most."""
    return max(dtypes, key=lambda dtype: float(jnp.finfo(dtype).eps))


def mixed(model: Model, loss: Loss, params: Params, batch: Batch) -> Vectors:
    """{node: r}: the bias of averaging errors and activity over examples before they are multiplied.

        r_l = mean_b(delta_l[b]) mean_b(z_l[b])^T - mean_b(delta_l[b] z_l[b]^T)

    A rule with one noise draw for the batch and one change of the batch-mean loss has mean g + r.
    """
    x, _ = batch
    delta = jax.tree.map(lambda s: s / len(x), error_signals(model, loss, params, batch))
    return by_node(model, pullback(model, params, x, {n: d.mean(0, keepdims=True) - d for n, d in delta.items()}), x)


def error_signals(model: Model, loss: Loss, params: Params, batch: Batch) -> Signals:
    """The exact error signals, {node: dL_b/da_l}, by backpropagation."""
    zeros = {name: jnp.zeros(s.shape, s.dtype) for name, s in node_shapes(model, params, batch[0]).items()}
    return jax.grad(lambda eps: loss_along(model, loss, params, batch)(eps).sum())(zeros)


def smoothed_gradient(
    model: Model, loss: Loss, params: Params, batch: Batch, sigma: float, key: Key, draws: int
) -> Params:
    """The gradient of the batch-mean loss smoothed by noise on all pre-activations, from many independent draws.

        d/dtheta E L(a + sigma xi) = E sum_l (L(a + sigma xi) - L(a)) / sigma xi_l . da_l/dtheta_l

    for Gaussian xi, with the presynaptic activity of the noisy pass (Williams 1992): it needs no derivative of loss or
    activation function. L(a) is a baseline. xi and -xi are a pair of draws; all credits are `trial`.
    """
    x, y = batch
    fine, fine_loss = precise(model, loss, "forward", sigma)
    clean, shapes = per_example(fine_loss, fine.apply(params, x), y), node_shapes(model, params, x)

    def one(xi: Signals) -> Params:
        noisy = adding(scaled(xi, sigma))
        change = (per_example(fine_loss, fine.apply(params, x, noisy), y) - clean) / (sigma * len(x))
        return pullback(model, params, x, {name: expand(change, n) * n for name, n in xi.items()}, noisy)

    def add(k: Any, sums: Params) -> Params:
        xi = draw(jax.random.fold_in(key, k), shapes)
        return jax.tree.map(lambda s, u, v: s + (u + v) / 2, sums, one(xi), one(scaled(xi, -1)))

    sums = jax.lax.fori_loop(0, draws, add, jax.tree.map(jnp.zeros_like, params))
    return jax.tree.map(lambda s: s / draws, sums)


def hides(model: Model, loss: Loss, params: Params, batch: Batch, sigma: float, key: Key, flat: Sequence[str]) -> bool:
    """Whether noise at nodes without a gradient lowers the loss of an example: its derivative is 0, not its effect.

    At a minimum noise can only raise it.
    """
    shapes = {name: s for name, s in node_shapes(model, params, batch[0]).items() if name in flat}
    losses, clean = loss_along(model, loss, params, batch), in_parts(loss, model.apply(params, batch[0]), batch[1])
    return bool((total(losses(scaled(draw(key, shapes), sigma))) < total(clean)).any())


def by_node(model: Model, tree: Params, x: Array) -> Vectors:
    """{node: its part of a gradient, as a vector}, for the nodes that have parameters."""
    return {name: vector(part) for name, part in node_params(model, tree, x).items() if jax.tree.leaves(part)}
