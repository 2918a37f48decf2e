"""Decorrelated learning: any rule, on a network whose nodes receive decorrelated presynaptic activity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from nodepert.contract.loops import get_opaque_trace_state, keep
from nodepert.core import Array, Loss, Model, Node, Op, Rule, plain, recording
from nodepert.errors import UserError
from nodepert.models.layers import Affine
from nodepert.registry import make
from nodepert.registry.ranges import positive
from nodepert.registry.spec import Spec


def decorrelate(model: Model, loss: Loss, rule: Spec, *, rate: float = 1e-3) -> Rule:
    """Decorrelate the presynaptic activity of every node, and learn on it by another rule: decorrelate(np(sigma=1e-3)).

        z_l = R_l h_l,    a_l = W_l z_l + b_l,    R_l <- R_l - rate < z_l z_l^T - diag(z_l^2) > R_l

    with h_l the activity that reaches node l, R_l = I at the start, and <> the mean over the batch, for convolutions
    over all patches (z_l is then a decorrelated patch, kh kw m values). The wrapped rule uses z_l in place of h_l.

    R is needed to predict, and is therefore part of the parameters: {"weights": params of the network,
    "decorrelation": {node: R}}. Train `rule.model(x)`, x an input batch, in place of the network. The gradient of R is
    the step above, to be subtracted unchanged: wrap the optimizer in `rule.optimizer(...)`, as `npt.train` does.

    Cost: that of the rule, a product with R_l in each of its forward passes, and <z z^T> R.
    Bias: as the wrapped rule.
    Derivative of the loss: as the wrapped rule.

    Args:
        model: The network to train.
        loss: (outputs, targets) -> losses, (B,).
        rule: The wrapped rule.
        rate: Learning rate of R.

    Returns:
        The `Rule`, with `model` and `optimizer`; its state is that of the wrapped rule.

    Raises:
        ValueError: rate is not positive and finite.
        UserError: The rule changes the network itself; at the first step, a node has an unknown operator on an input
            other than (B, m), or the params lack R.

    Examples:
        >>> import jax, nodepert as npt
        >>> model, loss = npt.make_model("fc(width=20)", (4,), 3), npt.make_loss("mse")
        >>> rule = npt.make_rule("decorrelate(np(sigma=1e-3))", model, loss)
        >>> params = rule.model(jax.numpy.ones((1, 4))).init(jax.random.key(0))
        >>> sorted(params)
        ['decorrelation', 'weights']

    References:
        Ahmad, Schrauwen and van Gerven 2022; Dalm, van Gerven and Ahmad 2023, "Effective learning with node
        perturbation in multi-layer neural networks", arXiv 2310.00965.
    """
    positive("rate", rate)
    if make("rule", rule, model, loss).model:
        raise UserError(f"{rule.name} changes the network itself; decorrelate cannot wrap it")

    def on(r: dict[str, Array]) -> Model:
        return Model(model.init, lambda params, x, node=plain: model.apply(params, x, decorrelated(r, node)))

    def adapted(x):
        def init(key):
            params = model.init(key)
            return {"weights": params, "decorrelation": identities(model, params, x)}

        return Model(init, lambda p, x, node=plain: on(p["decorrelation"]).apply(p["weights"], x, node))

    def init(key, params, x):
        weights, r = parts(params)
        return make("rule", rule, on(r), loss).init(key, weights, x)

    def grads(key, state, params, batch):
        weights, r = parts(params)
        g, state, info = make("rule", rule, on(r), loss).grads(key, state, weights, batch)
        z = activities(model, weights, r, batch[0])
        steps = {name: (rate * step(z[name], r[name])).astype(r[name].dtype) for name in r}
        return {"weights": g, "decorrelation": steps}, state, info

    return Rule(init, grads, adapted, beside)


def parts(params: Any) -> tuple[Any, dict[str, Array]]:
    """(weights, {node: R}). Raises UserError for params without R."""
    if not isinstance(params, dict) or params.keys() != {"weights", "decorrelation"}:
        raise UserError("these params have no decorrelation matrices: decorrelate trains rule.model(x), so start from "
                        "params = rule.model(x).init(key)")  # fmt: skip
    return params["weights"], params["decorrelation"]


def decorrelated(r: dict[str, Array], inner: Node) -> Node:
    """A node handler under which every node receives z = R h."""
    return lambda name, op, params, h: inner(name, on_decorrelated(op, r[name]), params, h)


def on_decorrelated(op: Op, r: Array) -> Op:
    """The operator on z = R h; affine if the operator is."""
    if not isinstance(op, Affine):
        return lambda params, h: op(params, h @ r.T)

    def patches(h, window):
        return op.patches(h, window) @ r.T

    def apply(params, h):
        w = params["w"]
        return patches(h, w.shape[:-1]) @ w.reshape(-1, w.shape[-1]) + params["b"]

    return Affine(apply, patches)


def rows(name: str, op: Op, params: Any, h: Array) -> Array:
    """The presynaptic activity that R multiplies, (B, ..., m). Raises UserError for an unknown operator."""
    if isinstance(op, Affine):
        return op.patches(h, params["w"].shape[:-1])
    if h.ndim == 2:
        return h
    raise UserError(f"decorrelate supports dense layers, and conv2d of nodepert.models.layers; node '{name}' has "
                    f"another operator, on an input of shape {h.shape}")  # fmt: skip


def each_node(f: Callable[..., Array], model: Model, params: Any, x: Array, inner: Node = plain) -> dict[str, Array]:
    """{node: f(name, op, params, h)} in one pass through `inner`."""
    found: dict[str, Array] = {}
    trace = get_opaque_trace_state()

    def node(name, op, params, h):
        keep(found, name, f(name, op, params, h), trace)
        return inner(name, op, params, h)

    model.apply(params, x, recording({}, node))
    return found


def identities(model: Model, params: Any, x: Array) -> dict[str, Array]:
    """R = I for every node."""
    shapes = jax.eval_shape(lambda p, x: each_node(rows, model, p, x), params, x)
    return {name: jnp.eye(s.shape[-1], dtype=s.dtype) for name, s in shapes.items()}


def activities(model: Model, weights: Any, r: dict[str, Array], x: Array) -> dict[str, Array]:
    """{node: z = R h as rows (examples and positions, m)} of the clean pass."""
    h = each_node(rows, model, weights, x, decorrelated(r, plain))
    return {name: (h[name] @ r[name].T).reshape(-1, len(r[name])) for name in h}


def step(z: Array, r: Array) -> Array:
    """< z z^T - diag(z^2) > R, in the cheaper order of products; z: (rows, m)."""
    product = z.T @ (z @ r) if len(z) < len(r) else (z.T @ z) @ r
    return (product - jnp.square(z).sum(0)[:, None] * r) / len(z)


def beside(optimizer: Any) -> optax.GradientTransformation:
    """The optimizer for the weights, and the step of R unchanged: no learning rate, moments or decay."""

    def init(params):
        return optimizer.init(params["weights"])

    def update(updates, state, params=None):
        weights, state = optimizer.update(updates["weights"], state, params["weights"] if params else None)
        return {"weights": weights, "decorrelation": jax.tree.map(jnp.negative, updates["decorrelation"])}, state

    return optax.GradientTransformation(init, update)
