"""A causal transformer, with a node for every product with weights, token by token."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from nodepert.core import Array, Key, Model, Node, Params, plain
from nodepert.models.layers import dense
from nodepert.models.sequences import Readout, features, normal, steps
from nodepert.registry.ranges import at_least


def transformer(
    input_shape: tuple[int, ...], classes: int, *, width: int = 64, depth: int = 2, heads: int = 4,
    readout: Readout = "last", tokens: bool = False,
) -> Model:  # fmt: skip
    """A causal transformer; nodes embed, qkv0, attend0, up0, down0, qkv1, ..., out, of pre-activations (B, T, n).

        h <- h + W_attend attention(q, k, v),    [q, k, v] = W_qkv norm(h),    at steps up to the present one
        h <- h + W_down gelu(W_up norm(h))

    with layer norm without parameters, fixed sinusoidal positions, and hidden layers of 4 * width. A token acts on
    later ones through attention: `credit=future` is unbiased, `own` is not.

    Args:
        input_shape: Shape of one input, (T, ...).
        classes: Number of outputs.
        width: Size of the representation of a token, a multiple of `heads`.
        depth: Number of blocks.
        heads: Heads of attention.
        readout: last: outputs (B, classes), those of the last token. every: outputs (B, T, classes).
        tokens: The input is T whole numbers below `classes`, which become one-hot vectors.

    Returns:
        The `Model`.

    Raises:
        ValueError: A number is below 1, or width is not a multiple of heads.

    Examples:
        >>> import nodepert as npt
        >>> model = npt.make_model("transformer(width=32, depth=1, tokens=True, readout=every)", (20,), 50)

    References:
        Vaswani et al. 2017; Radford et al. 2019 (norm before each part).
    """
    for name, number in (("width", width), ("depth", depth), ("heads", heads)):
        at_least(name, number, 1)
    if width % heads:
        raise ValueError(f"width must be a multiple of heads; got {width} and {heads}")
    n, residual = features(input_shape, classes, tokens), (2 * depth) ** -0.5

    def init(key: Key) -> Params:
        sizes = {"embed": (n, width, 1.0), "out": (width, classes, 1.0)}
        for i in range(depth):
            sizes |= {f"qkv{i}": (width, 3 * width, 1.0), f"attend{i}": (width, width, residual),
                      f"up{i}": (width, 4 * width, 1.0), f"down{i}": (4 * width, width, residual)}  # fmt: skip
        keys = jax.random.split(key, len(sizes))
        return {name: normal(k, *size) for k, (name, size) in zip(keys, sizes.items(), strict=True)}

    def apply(params: Params, x: Array, node: Node = plain) -> Array:
        def layer(name: str, h: Array) -> Array:
            return node(name, dense, params[name], h)

        x = steps(x, classes, tokens).astype(params["out"]["w"].dtype)
        h = layer("embed", x) + positions(x.shape[1], width).astype(x.dtype)
        for i in range(depth):
            h = h + layer(f"attend{i}", attention(layer(f"qkv{i}", norm(h)), heads))
            h = h + layer(f"down{i}", jax.nn.gelu(layer(f"up{i}", norm(h))))
        h = norm(h)
        return layer("out", h if readout == "every" else h[:, -1])

    return Model(init, apply)


def attention(qkv: Array, heads: int) -> Array:
    """Causal softmax attention: (B, T, 3 n) -> (B, T, n), each token over those up to itself."""
    q, k, v = (part.reshape(*part.shape[:2], heads, -1) for part in jnp.split(qkv, 3, -1))
    return jax.nn.dot_product_attention(q, k, v, is_causal=True).reshape(*qkv.shape[:2], -1)


def norm(h: Array) -> Array:
    """Layer norm without parameters."""
    return jax.nn.standardize(h, epsilon=1e-5)


def positions(length: int, width: int) -> np.ndarray:
    """Sinusoidal positions, (length, width)."""
    angle = np.arange(length)[:, None] / 10_000 ** (np.arange(0, width, 2) / width)
    return np.stack([np.sin(angle), np.cos(angle)], -1).reshape(length, -1)[:, :width].astype(np.float32)
