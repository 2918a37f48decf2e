"""A small recurrent network, with outputs for every step or for the last one."""

import jax
import jax.numpy as jnp

import nodepert as npt
from nodepert.models.layers import dense, xavier


def leaky(input_shape, classes, *, width: int = 6, last: bool = False, tokens: bool = False):
    """h_t = 0.7 h_{t-1} + tanh(W x_t), outputs V h_t; inputs (T, C), or tokens (T,)."""

    def init(key):
        a, b = jax.random.split(key)
        return {"in": xavier(a, (classes if tokens else input_shape[-1], width)), "out": xavier(b, (width, classes))}

    def apply(params, x, node=npt.plain):
        x = jax.nn.one_hot(x.astype(int), classes) if tokens else x

        def step(node, h, x_t):
            h = 0.7 * h + jnp.tanh(node("in", dense, params["in"], x_t))
            return h, h

        h, hs = npt.scan(step, node, jnp.zeros((len(x), width)), x)
        return node("out", dense, params["out"], h if last else hs)

    return npt.Model(init, apply)
