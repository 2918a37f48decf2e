"""A rule and a network in a package of their own, in full; pyproject.toml has the entry points that add them."""

from math import prod

import jax
import jax.numpy as jnp

from nodepert import Info, Model, Rule, plain, pullback
from nodepert.core import adding, expand, node_shapes, per_example, stateless
from nodepert.models.layers import dense, xavier
from nodepert.registry.ranges import positive
from nodepert.rules.noise import draw


def one_bit(model: Model, loss, *, sigma: float = 1e-2) -> Rule:
    """Node perturbation by one bit per example: whether the noise lowered the loss.

        s_l[b] = sign(L_b(a + sigma xi) - L_b(a)) xi_l[b],    g_l = 1/B sum_b s_l[b] z_l[b]^T

    Cost: a clean and a noisy forward pass, the weight gradients.
    Bias: biased: every example has the same weight, however large its gradient.
    Derivative of the loss: not needed.
    """
    positive("sigma", sigma)

    def grads(key, state, params, batch):
        x, y = batch
        outputs = model.apply(params, x)
        clean = per_example(loss, outputs, y)
        xi = draw(key, node_shapes(model, params, x))
        handler = adding({name: (sigma * n).astype(n.dtype) for name, n in xi.items()})
        noisy = per_example(loss, model.apply(params, x, handler), y)
        bit = jnp.sign(noisy - clean) / len(x)
        signals = {name: expand(bit, n) * n for name, n in xi.items()}
        return pullback(model, params, x, signals), state, Info(clean, outputs)

    return Rule(stateless, grads)


one_bit.passes = 3  # forward passes per step, for `nodepert list` and reports


def tanh_net(input_shape: tuple[int, ...], classes: int, *, width: int = 64) -> Model:
    """Fully connected, one hidden layer of tanh."""

    def init(key):
        hidden, out = jax.random.split(key)
        return {"hidden": xavier(hidden, (prod(input_shape), width)), "out": xavier(out, (width, classes))}

    def apply(params, x, node=plain):
        h = jnp.tanh(node("hidden", dense, params["hidden"], x.reshape(len(x), -1)))
        return node("out", dense, params["out"], h)

    return Model(init, apply)
