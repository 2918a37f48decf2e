"""Stand-in values for a batch and for parameters that are not known yet."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

DRAWS = (0, 1, -1)  # batches without a common example: of middle, larger and smaller values


class Examples(NamedTuple):
    """A pytree whose leaves are per example, (B, ...), or the same for all examples, such as class weights."""

    leaves: list[Any]
    structure: Any
    own: list[bool]  # whether a leaf is per example
    size: int  # B

    @classmethod
    def of(cls, tree: Any, size: int, outputs: int = 0) -> Examples:
        """The examples of a pytree, of which there are `size`; one leaf alone is always per example.

        Among several, floats whose shape is also one of n `outputs`, such as (n,) or (n, n), may be class weights or
        costs. They are taken as the same for all: then no sound loss is refused.
        """
        leaves, structure = jax.tree.flatten(tree)
        several = len(leaves) > 1 + bool(outputs)

        def own(leaf):
            if tuple(getattr(leaf, "shape", ()))[:1] != (size,):
                return False
            return not (several and set(leaf.shape) <= {1, outputs} and jnp.issubdtype(leaf.dtype, jnp.inexact))

        # the outputs come first
        return cls(leaves, structure, [bool(outputs and not i) or own(a) for i, a in enumerate(leaves)], size)

    @property
    def case(self) -> Any:
        """What a test on stand-in values depends on: structure, shapes and types. A structure may have no hash."""
        kinds = (
            (own, getattr(leaf, "shape", ())[own:], str(getattr(leaf, "dtype", type(leaf))))
            for leaf, own in zip(self.leaves, self.own, strict=True)
        )
        return str(self.structure), *kinds

    def batches(self, size: int, **options: Any) -> list[list[Any]]:
        """One batch for each of DRAWS: `stand_in` for every leaf that is per example."""
        leaves = [leaf for leaf, own in zip(self.leaves, self.own, strict=True) if own]
        return [
            [stand_in((draw, i), (size, *leaf.shape[1:]), leaf.dtype, **options) for i, leaf in enumerate(leaves)]
            for draw in DRAWS
        ]

    def joined(self, batch: list[Any]) -> Any:
        """The pytree of a batch, with all other leaves as given. Raises ValueError if one of these has no value yet."""
        values = iter(batch)

        def value(leaf, own):
            if not own and isinstance(leaf, Tracer | jax.ShapeDtypeStruct):
                raise ValueError("what is the same for all examples is traced")
            return next(values) if own else leaf

        return jax.tree.unflatten(self.structure, list(map(value, self.leaves, self.own)))


def stand_in(draw: tuple[int, int], shape: Any, dtype: Any, *, below: int = 2, positive: bool = False) -> Any:
    """A batch of inputs, outputs or targets that are not known yet.

    Args:
        draw: Which batch, one of DRAWS, and which of its arrays.
        shape: (B, ...).
        dtype: Their type.
        below: Integers are in 0..below-1.
        positive: Whether floats are fractions, (0, 1), which losses may take for probabilities, and not normal.
    """
    which, array = draw
    if not jnp.issubdtype(dtype, jnp.inexact):
        label = np.arange(shape[0]).reshape(shape[0], *(1 for _ in shape[1:]))
        return ((label + which + np.random.default_rng(array).integers(below, size=shape[1:])) % below).astype(dtype)
    random = np.random.default_rng((which % len(DRAWS), array))
    values = random.uniform(0.4, 0.6, shape) if positive else random.normal(size=shape)
    return (values + which * (0.3 if positive else 3)).astype(dtype)


def parameter(random: np.random.Generator, like: Any) -> Any:
    """Weights of a size that keeps activity finite, and positive gains and biases: those of `init` may be 0."""
    if len(like.shape) < 2:
        return np.asarray(random.uniform(0.1, 0.9, size=like.shape)).astype(like.dtype)
    return (random.normal(size=like.shape) / max(1, np.prod(like.shape[:-1])) ** 0.5).astype(like.dtype)
