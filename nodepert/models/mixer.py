"""Mixers: patches of an image, mixed by token and by channel, with channels in groups and a head per block."""

from __future__ import annotations

from functools import partial
from math import prod, sqrt

import jax
import jax.numpy as jnp

from nodepert.core import Array, Model, Params, plain
from nodepert.models.heads import Predict, predicting, product
from nodepert.models.layers import dense
from nodepert.registry.ranges import at_least


def mixer(
    input_shape: tuple[int, ...], classes: int, *, width: int = 512, blocks: int = 1, patches: int = 1,
    groups: int = 16, predict: Predict = "parts",
) -> Model:  # fmt: skip
    """The LocalMixer of Ren et al. 2023: an image in patches, channels in groups, a head at the end of each block.

    With P = patches^2 patches, G groups and c = width / groups channels in each, x in R^(P x pixels of a patch):

        first block      h = relu(n(W n(x)));  h_g = relu(n(U_g n(h_g)))
        further blocks   u = relu(n(T n(h)));  u = relu(n(W n(u)));  h_g <- relu(h_g + n(U_g n(u_g)))
        outputs          o = V n(mean over patches of h)

    T mixes patches, W all channels, U_g the channels of a group; n normalises the channels of a patch, around U those
    of a patch and group, to mean 0 and variance 1, without parameters. The n after T, W and U belongs to the node:
    noise is added to normalised activity, as in the paper. The nodes are token1, in0, group0, head0, ..., out;
    pre-activations are (B, P, G, c), those of token mixing (B, P, width), heads (B, P, G, classes). Weights are normal
    with standard deviation 1/sqrt(inputs), biases zero.

    Sizes of the paper: S/1/1 is mixer(width=256, groups=1), M/1/16 mixer(width=512, groups=16), and M/8/16
    mixer(width=512, groups=16, patches=8, blocks=4). The paper's heads are predict=replicated; these need derivatives,
    difference=jvp, while parts let finite differences credit each patch and group alone.

    Args:
        input_shape: Shape of one input, (H, W, C), or (n,) for a single patch.
        classes: Number of outputs, also of each head.
        width: Channels.
        blocks: Number of blocks.
        patches: Patches along each side of the image.
        groups: Groups of channels.
        predict: What a head predicts from; see `predicting` in models/heads.py.

    Returns:
        The `Model`.

    Raises:
        ValueError: A number is below 1, the patches do not fit the image, or the groups the width.

    Examples:
        >>> import nodepert as npt
        >>> model = npt.make_model("mixer(width=64, groups=4, patches=4, blocks=2)", (28, 28, 1), 10)

    References:
        Ren, Kornblith, Liao and Hinton 2023; Tolstikhin et al. 2021 (MLP-Mixer).
    """
    for name, value in (("width", width), ("blocks", blocks), ("patches", patches), ("groups", groups)):
        at_least(name, value, 1)
    if width % groups:
        raise ValueError(f"width must be a multiple of groups; got width={width}, groups={groups}")
    if patches > 1 and (len(input_shape) != 3 or input_shape[0] % patches or input_shape[1] % patches):
        raise ValueError(f"{patches} x {patches} patches do not fit inputs of shape {input_shape}; "
                         "they must divide height and width of images (H, W, C)")  # fmt: skip
    channels = width // groups
    shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {}  # {node: (weights, biases)}
    for i in range(blocks):
        if i:
            shapes[f"token{i}"] = (patches**2, patches**2), (patches**2,)
        shapes[f"in{i}"] = (width if i else prod(input_shape) // patches**2, width), (width,)
        shapes[f"group{i}"] = (groups, channels, channels), (groups, channels)
        shapes[f"head{i}"] = (groups, channels, classes), (classes,)
    shapes["out"] = (width, classes), (classes,)

    def init(key):
        params = {}
        for k, (name, (w, b)) in zip(jax.random.split(key, len(shapes)), shapes.items(), strict=True):
            inputs = width if name.startswith("head") else w[-2]  # a head may sum over the groups
            params[name] = {"w": jax.random.normal(k, w) / sqrt(inputs), "b": jnp.zeros(b)}
        return params

    def apply(params, x, node=plain):
        def mixed(name, op, h):
            return node(name, op, params[name], normalised(h))

        h = in_patches(x, patches)
        for i in range(blocks):
            before = h
            if i:
                h = jax.nn.relu(mixed(f"token{i}", tokens, h.reshape(*h.shape[:2], width)))
            h = jax.nn.relu(mixed(f"in{i}", partial(channels_to_groups, groups), h))
            h = mixed(f"group{i}", by_group, h)
            h = jax.nn.relu(h + before if i else h)
            node(f"head{i}", predicting(predict), params[f"head{i}"], normalised(h))
        return node("out", dense, params["out"], normalised(h.mean(1).reshape(len(x), width)))

    return Model(init, apply)


def in_patches(x: Array, side: int) -> Array:
    """(B, H, W, C) -> (B, side^2, pixels of a patch); (B, ...) -> (B, 1, n) for a single patch."""
    if side == 1:
        return x.reshape(len(x), 1, -1)
    b, height, width, channels = x.shape
    parts = x.reshape(b, side, height // side, side, width // side, channels)
    return parts.swapaxes(2, 3).reshape(b, side**2, -1)


def normalised(h: Array) -> Array:
    """Layer norm of the last axis, without parameters."""
    centred = h - h.mean(-1, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + 1e-5)


def tokens(params: Params, h: Array) -> Array:
    """Mix patches, with the same weights for each channel: (B, P, n), w: (P, P) -> (B, P, n), normalised."""
    return normalised(dense(params, h.swapaxes(1, 2)).swapaxes(1, 2))


def channels_to_groups(groups: int, params: Params, h: Array) -> Array:
    """Mix all channels: (B, P, m), w: (m, n) -> (B, P, G, n / G), normalised over the n channels."""
    a = normalised(dense(params, h))
    return a.reshape(*a.shape[:2], groups, -1)


def by_group(params: Params, h: Array) -> Array:
    """Mix the channels of each group: (B, P, G, n), w: (G, n, n) -> (B, P, G, n), normalised in each group."""
    return normalised(product(params["w"], h) + params["b"])
