"""Residual convolutional networks with a head per block."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp

from nodepert.core import Array, Model, plain
from nodepert.models.heads import Predict, predicting
from nodepert.models.layers import conv2d, dense, xavier
from nodepert.registry.ranges import at_least


def resnet_small(
    input_shape: tuple[int, ...], classes: int, *, width: int = 32, blocks: int = 3, groups: int = 4,
    pool: Literal["average", "max"] = "average", predict: Predict = "pooled",
) -> Model:  # fmt: skip
    """Residual blocks of two 3x3 convolutions with group norm, each followed by 2x2 pooling and a head.

        h = relu(n(conv(x)));  in each block    h <- pool(relu(h + n(conv(relu(n(conv(h)))))))

    n normalises the channels of a group, over all positions of an example, without parameters; groups=1 is layer norm.
    The nodes are stem, conv0a, conv0b, head0, conv1a, ..., out, which sees the mean over positions. Weights as in
    `conv`; a size that cannot be halved is cropped, or stays if it is 1.

    Args:
        input_shape: Shape of one input, (H, W, C).
        classes: Number of outputs, also of each head.
        width: Channels.
        blocks: Number of blocks.
        groups: Groups of channels that are normalised together.
        pool: Pooling after each block.
        predict: What a head predicts from; see `predicting` in models/heads.py.

    Returns:
        The `Model`.

    Raises:
        ValueError: The input shape is not (H, W, C), a number is below 1, or width is no multiple of groups.

    Examples:
        >>> import nodepert as npt
        >>> model = npt.make_model("resnet-small(width=16, pool=max)", (32, 32, 3), 10)
    """
    if len(input_shape) != 3:
        raise ValueError(f"a convolutional network needs images of shape (H, W, C); got {input_shape}")
    for name, value in (("width", width), ("blocks", blocks), ("groups", groups)):
        at_least(name, value, 1)
    if width % groups:
        raise ValueError(f"width must be a multiple of groups; got width={width}, groups={groups}")
    shapes: dict[str, tuple[int, ...]] = {"stem": (3, 3, input_shape[-1], width)}
    for i in range(blocks):
        shapes |= {f"conv{i}a": (3, 3, width, width), f"conv{i}b": (3, 3, width, width), f"head{i}": (width, classes)}
    shapes["out"] = (width, classes)

    def init(key):
        keys = jax.random.split(key, len(shapes))
        return {name: xavier(k, shape) for k, (name, shape) in zip(keys, shapes.items(), strict=True)}

    def apply(params, x, node=plain):
        def conv(name, h):
            return normalised(node(name, conv2d(), params[name], h), groups)

        h = jax.nn.relu(conv("stem", x))
        for i in range(blocks):
            h = pooled(jax.nn.relu(h + conv(f"conv{i}b", jax.nn.relu(conv(f"conv{i}a", h)))), pool)
            node(f"head{i}", predicting(predict), params[f"head{i}"], h)
        return node("out", dense, params["out"], h.mean((1, 2)))

    return Model(init, apply)


def normalised(h: Array, groups: int) -> Array:
    """Group norm without parameters: (B, H, W, n), over H, W and the channels of a group."""
    g = h.reshape(*h.shape[:3], groups, -1)
    centred = g - g.mean((1, 2, 4), keepdims=True)
    return (centred * jax.lax.rsqrt(jnp.square(centred).mean((1, 2, 4), keepdims=True) + 1e-5)).reshape(h.shape)


def pooled(h: Array, pool: str) -> Array:
    """Average or maximum of 2 x 2 positions: (B, H, W, n) -> (B, H // 2, W // 2, n); an axis of size 1 stays."""
    for axis in (1, 2):
        if (half := h.shape[axis] // 2) > 0:
            pairs = jax.lax.slice_in_dim(h, 0, 2 * half, axis=axis)
            pairs = pairs.reshape(*h.shape[:axis], half, 2, *h.shape[axis + 1 :])
            h = pairs.max(axis + 1) if pool == "max" else pairs.mean(axis + 1)
    return h
