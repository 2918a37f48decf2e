"""What may differ between runs of one compiled program: every number that a rule or an optimizer takes as a float."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from nodepert.registry.spec import Spec


def _flatten(spec: Spec):
    items = [*enumerate(spec.args), *spec.kwargs]
    traced = [not isinstance(v, int | str | None) for _, v in items]  # floats, and specs that hold some
    leaves = [v for (_, v), t in zip(items, traced, strict=True) if t]
    return leaves, (spec.name, tuple((k, None if t else v, t) for (k, v), t in zip(items, traced, strict=True)))


def _unflatten(structure, leaves) -> Spec:
    name, items = structure
    leaves = iter(leaves)
    values = [(k, next(leaves) if traced else v) for k, v, traced in items]
    args = tuple(v for k, v in values if isinstance(k, int))
    return Spec(name, args, tuple(values[len(args) :]))


# A spec's float arguments are leaves and the rest is structure: specs of one structure share a compiled program.
jax.tree_util.register_pytree_node(Spec, _flatten, _unflatten)


class Hyper(NamedTuple):
    """What may be traced, hence differ between replicas. `wd`: W <- (1 - wd) W after each step."""

    rule: Spec
    optimizer: Spec
    lr: float
    wd: float = 0.0
    seed: int = 0


def structure(hyper: Hyper) -> Any:
    """What replicas of one program have in common: everything but the numbers. Hashable."""
    return jax.tree.structure(hyper)


def stacked(hypers: Sequence[Hyper]) -> Any:
    """One `Hyper` whose every number is an array over replicas, (R,): float32, and int32 for seeds."""

    columns = jax.tree.map(lambda *values: np.asarray(values, np.float32), *hypers)
    return columns._replace(seed=np.asarray([hyper.seed for hyper in hypers], np.int32))
