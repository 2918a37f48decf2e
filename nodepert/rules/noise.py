"""Perturbation noise: unit variance, independent over units, and replayable one node or one example at a time.

On CPU, noise is the main cost of node perturbation beyond that of backpropagation, so no random bits are wasted: both
words of every threefry block are used (jax.random.bits uses one), and a word gives 32 random signs.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from functools import partial
from math import prod, sqrt
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.random import threefry2x32_p

from nodepert.registry.generator import GENERATOR

Array: TypeAlias = jax.Array
Key: TypeAlias = jax.Array
Kind: TypeAlias = str | Callable[..., Array]


def key_of(seed: Any) -> Key:
    """The key of a seed, of one generator whatever JAX's configuration is."""
    return jax.random.key(seed, impl=GENERATOR)


def draw(key: Key, shapes: Mapping[str, Any], noise: Kind = "gaussian") -> dict[str, Array]:
    """Draw unit-variance noise for every node.

    The key of a node is fold_in(key, crc32(name)), and an example's noise depends on its position in the batch but not
    on the batch size, so that any part of a draw can be repeated alone.

    Args:
        key: A JAX key, used once.
        shapes: {node: anything with .shape (B, ...) and .dtype}, as from `node_shapes`.
        noise: gaussian, rademacher or sphere; or a function (key, shape, dtype) -> noise, as by `sparse`.

    Returns:
        {node: noise}, shaped as `shapes`.

    Raises:
        ValueError: Two names have the same CRC-32.
    """
    codes = {name: np.uint32(zlib.crc32(name.encode())) for name in shapes}
    if len(set(codes.values())) < len(codes):
        raise ValueError(f"two of the nodes {', '.join(shapes)} have the same CRC-32, hence the same noise; rename one")
    make = noise if callable(noise) else NOISE[noise]
    return {name: make(jax.random.fold_in(key, codes[name]), s.shape, s.dtype) for name, s in shapes.items()}


def gaussian(key: Key, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
    """Standard normal noise, by the inverse distribution function of a 23-bit uniform (|xi| < 5.3)."""
    words = random_words(key, shape[0], prod(shape[1:]), reused=shape[0] == 1)  # one example: shared by the batch
    ones = jax.lax.bitcast_convert_type((words >> 9) | jnp.uint32(0x3F800000), jnp.float32)  # 1, ..., 2 - 2^-23
    uniform = (ones - 1.5) * 2 + 2.0**-23  # symmetric, inside (-1, 1)
    return (sqrt(2) * jax.lax.erf_inv(uniform)).reshape(shape).astype(dtype)


def rademacher(key: Key, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
    """Random signs, 32 from each random word."""
    units = prod(shape[1:])
    words = random_words(key, shape[0], -(-units // 32))[..., None]
    signs = (words << jnp.arange(32, dtype=jnp.uint32)) & jnp.uint32(1 << 31)
    ones = jax.lax.bitcast_convert_type(signs | jnp.uint32(0x3F800000), jnp.float32)  # the sign bit, set on 1.0
    return ones.reshape(shape[0], -1)[:, :units].reshape(shape).astype(dtype)


def sphere(key: Key, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
    """Uniform on the sphere of radius sqrt(units), for every example: a normalised Gaussian vector."""
    xi = gaussian(key, shape).reshape(shape[0], -1)
    length = jnp.sqrt(jnp.square(xi).sum(1, keepdims=True))
    return (sqrt(prod(shape[1:])) * xi / length).reshape(shape).astype(dtype)


def sparse(share: Any, key: Key, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
    """Gaussian noise on a random share of the units, and 0 on the others: of unit variance over both."""
    which, size = jax.random.split(key)
    words = random_words(which, shape[0], prod(shape[1:])).reshape(shape)
    chosen = (words >> 8).astype(jnp.float32) * 2.0**-24 < share
    return (jnp.where(chosen, gaussian(size, shape), 0) / jnp.sqrt(jnp.float32(share))).astype(dtype)


NOISE = {"gaussian": gaussian, "rademacher": rademacher, "sphere": sphere}


def random_words(key: Key, examples: int, words: int, reused: bool = True) -> Array:
    """Random 32-bit words, (examples, words); row b does not depend on the number of examples.

    reused: whether a word is used for more than one value. If not, the cipher is fused with what follows, which saves
    memory traffic; fused, a word used 32 times would be computed 32 times.
    """
    if str(jax.random.key_impl(key)) != GENERATOR:
        return jax.random.bits(key, (examples, words), jnp.uint32)
    blocks = -(-words // 2)
    example = jax.lax.broadcasted_iota(jnp.uint32, (examples, blocks), 0)
    block = jax.lax.broadcasted_iota(jnp.uint32, (examples, blocks), 1)
    jax.random.bits(key, (0,))  # draws nothing, but marks the key as used for jax_debug_key_reuse
    k = jax.random.key_data(key)
    cipher = threefry2x32_p.bind if reused else threefry2x32
    return jnp.concatenate(cipher(k[0], k[1], example, block), axis=1)[:, :words]


@partial(jax.jit, inline=True)
def threefry2x32(k0: Array, k1: Array, x0: Array, x1: Array) -> tuple[Array, Array]:
    """The block cipher threefry2x32-20 of (x0, x1) under the key (k0, k1): jax.random's bits (Salmon et al., 2011).

    Written out round by round: on CPU JAX lowers its own, threefry2x32_p, to a loop, which XLA does not fuse with the
    computations that follow, and gaussian noise takes 1.7 times as long. The jit traces each shape once.
    """
    keys = k0, k1, k0 ^ k1 ^ jnp.uint32(0x1BD11BDA)
    x0, x1 = x0 + keys[0], x1 + keys[1]
    for group in range(5):
        for distance in ((13, 15, 26, 6), (17, 29, 16, 24))[group % 2]:
            x0 = x0 + x1
            x1 = x0 ^ ((x1 << distance) | (x1 >> (32 - distance)))
        x0 = x0 + keys[(group + 1) % 3]
        x1 = x1 + keys[(group + 2) % 3] + jnp.uint32(group + 1)
    return x0, x1
