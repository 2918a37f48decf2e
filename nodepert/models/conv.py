"""Convolutional networks: convolutions with ReLU, then a dense layer."""

from __future__ import annotations

from typing import NamedTuple

import jax

from nodepert.core import Model, plain
from nodepert.models.layers import conv2d, dense, xavier


class Layer(NamedTuple):
    """One convolution: kernel size, output channels, stride."""

    kernel: int
    channels: int
    stride: int = 1


def conv(input_shape: tuple[int, ...], classes: int) -> Model:
    """Three 3x3 convolutions of 32 channels, stride 2 at the second, then a dense layer.

    The nodes are conv0, conv1, conv2, out. See `convnet` for padding and initial weights.

    Args:
        input_shape: Shape of one input, (H, W, C).
        classes: Number of outputs.

    Returns:
        The `Model`.

    Raises:
        ValueError: The input shape is not (H, W, C).

    Examples:
        >>> import nodepert as npt
        >>> model = npt.make_model("conv", (32, 32, 3), 10)
    """
    return convnet(input_shape, classes, [Layer(3, 32), Layer(3, 32, 2), Layer(3, 32)])


def conv_large(input_shape: tuple[int, ...], classes: int) -> Model:
    """Seven convolutions similar to All-CNN-A (Springenberg et al. 2015), then a dense layer.

    The nodes are conv0, ..., conv6, out. See `convnet` for padding and initial weights.

    Args:
        input_shape: Shape of one input, (H, W, C).
        classes: Number of outputs.

    Returns:
        The `Model`.

    Raises:
        ValueError: The input shape is not (H, W, C).

    Examples:
        >>> import nodepert as npt
        >>> model = npt.make_model("conv-large", (32, 32, 3), 10)
    """
    layers = [
        Layer(5, 96),
        Layer(3, 96, 2),
        Layer(5, 192),
        Layer(3, 192, 2),
        Layer(3, 192),
        Layer(1, 192),
        Layer(1, 10),
    ]
    return convnet(input_shape, classes, layers)


def convnet(input_shape: tuple[int, ...], classes: int, layers: list[Layer]) -> Model:
    """Convolutions with SAME padding and ReLU, flattened into a dense layer; Xavier-normal weights, zero biases.

    Raises ValueError for an input shape other than (H, W, C).
    """
    if len(input_shape) != 3:
        raise ValueError(f"a convolutional network needs images of shape (H, W, C); got {input_shape}")
    height, width, channels = input_shape
    names = [f"conv{i}" for i in range(len(layers))]
    shapes = []
    for layer in layers:
        shapes.append((layer.kernel, layer.kernel, channels, layer.channels))
        height, width, channels = -(-height // layer.stride), -(-width // layer.stride), layer.channels
    shapes.append((height * width * channels, classes))

    def init(key):
        keys = jax.random.split(key, len(shapes))
        return {name: xavier(k, s) for name, k, s in zip([*names, "out"], keys, shapes, strict=True)}

    def apply(params, x, node=plain):
        h = x
        for name, layer in zip(names, layers, strict=True):
            h = jax.nn.relu(node(name, conv2d(layer.stride), params[name], h))
        return node("out", dense, params["out"], h.reshape(len(x), -1))

    return Model(init, apply)
