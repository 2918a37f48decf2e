"""What the checks share: assertions with a message of one sentence, comparisons, and quick compilation."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import jax
import numpy as np

ROUNDING = 1e-2  # relative; a finite difference multiplies the rounding of float32 losses by 1/sigma


def require(holds: Any, where: str, what: str) -> None:
    """Raise AssertionError, "where: what", unless it holds (`python -O` drops the statement `assert`)."""
    if not holds:
        raise AssertionError(f"{where}: {what}")


@contextlib.contextmanager
def must(where: str, what: str) -> Iterator[None]:
    """An error inside becomes an AssertionError: "where: what: the first line of that error"."""
    try:
        yield
    except AssertionError:
        raise
    except jax.errors.KeyReuseError as error:
        twice = "a random key is used twice; split it, or fold_in a different number for every use"
        raise AssertionError(f"{where}: {twice}") from error
    except Exception as error:
        first = (str(error).splitlines() or [""])[0]
        raise AssertionError(f"{where}: {what}: {type(error).__name__}: {first}") from error


def alike(where: str, what: str, found: Any, expected: Any) -> None:
    """Require equal structure, shapes and dtypes of two pytrees of arrays, or of their shapes."""
    a, b = by_place(found), by_place(expected)
    require(not b.keys() - a.keys(), where, f"{what} lack {', '.join(sorted(b.keys() - a.keys()))}")
    require(not a.keys() - b.keys(), where, f"{what} must not have {', '.join(sorted(a.keys() - b.keys()))}")
    trees = jax.tree.structure(found), jax.tree.structure(expected)
    require(trees[0] == trees[1], where, f"{what} must be {trees[1]}, but are {trees[0]}")
    for place, leaf in a.items():
        must_be = b[place]
        require(leaf.shape == must_be.shape, where, f"{what} at {place} have shape {leaf.shape}, not {must_be.shape}")
        require(leaf.dtype == must_be.dtype, where, f"{what} at {place} are {leaf.dtype}, not {must_be.dtype}")


def same(where: str, what: str, found: Any, expected: Any, limit: float = ROUNDING) -> None:
    """Require equal values, leaf by leaf, up to rounding: |found - expected| <= limit |expected|."""
    b = by_place(expected)
    for place, leaf in by_place(found).items():
        difference = np.linalg.norm(np.asarray(leaf, np.float64) - np.asarray(b[place], np.float64))
        size = np.linalg.norm(np.asarray(b[place], np.float64))
        off = difference / max(size, 1e-300)
        require(difference <= limit * size, where, f"{what} differ at {place} by {off:.2%}")


def same_bits(a: Any, b: Any) -> bool:
    """Whether two pytrees of arrays are equal in every bit."""
    return all(np.array_equal(p, q) for p, q in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def by_place(tree: Any) -> dict[str, Any]:
    """{path of a leaf, as it is written in Python: leaf}."""
    return {jax.tree_util.keystr(path) or "[]": leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def compiled(f: Callable[..., Any]) -> Callable[..., Any]:
    """jax.jit with quick compilation, which is what takes the time of a check."""
    return jax.jit(f, compiler_options=hurried())


@cache
def hurried() -> dict[str, Any]:
    """Options with which XLA compiles several times faster on CPU, to slower code; {} where it has none."""
    options = {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False,
               "xla_cpu_parallel_codegen_split_count": 1}  # fmt: skip
    try:
        jax.jit(lambda x: x + 1, compiler_options=options)(0.0)
    except Exception:
        return {}
    return options
