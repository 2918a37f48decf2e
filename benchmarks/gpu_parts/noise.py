"""Noise of each generator: billions of numbers per second."""

from __future__ import annotations

from collections.abc import Iterator

import jax

from gpu_parts import Row, seconds, tried
from nodepert.registry.generator import GENERATOR
from nodepert.rules.noise import NOISE, draw

GENERATORS = (GENERATOR, "rbg", "unsafe_rbg")


def rows(toy: bool) -> Iterator[Row]:
    shape = (100, 500) if toy else (4096, 4096)
    for generator in GENERATORS:
        yield from tried(generator, lambda g=generator: jax_own(g, shape))
    for noise in NOISE:
        yield from tried(noise, lambda n=noise: ours(n, shape))


def jax_own(generator: str, shape: tuple[int, ...]) -> Iterator[Row]:
    normal = jax.jit(lambda key: jax.random.normal(key, shape))
    yield row(f"jax.random.normal, {generator}", shape, seconds(normal, jax.random.key(0, impl=generator)))


def ours(noise: str, shape: tuple[int, ...]) -> Iterator[Row]:
    """As the rules draw it: threefry, with both words of a block, and 32 signs from a word."""
    node = {"node": jax.ShapeDtypeStruct(shape, "float32")}
    drawn = jax.jit(lambda key: draw(key, node, noise))
    yield row(f"{noise}, as the rules draw it", shape, seconds(drawn, jax.random.key(0, impl=GENERATOR)))


def row(what: str, shape: tuple[int, ...], took: float) -> Row:
    return Row(what, shape[0] * shape[1] / took / 1e9, "10^9/s")
