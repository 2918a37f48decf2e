"""One loss per example or per output, and what targets are: class indices, or values shaped as the outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from nodepert.contract.mixing import check_loss

Array: TypeAlias = jax.Array


def per_example(loss: Callable[..., Any], outputs: Array, targets: Array) -> Array:
    """The loss of every example, (B,), in float32 or better: the sum of its parts. Raises as `in_parts` does."""
    parts = in_parts(loss, outputs, targets)
    return parts.sum(tuple(range(1, parts.ndim)))


def in_parts(loss: Callable[..., Any], outputs: Array, targets: Array) -> Array:
    """The loss of every example, (B,), or of each of its outputs, as of each time step, (B, T), in float32 or better.

    For outputs (B, S..., n) a loss may have a part for each output (B, S...), that of outputs[b, s] alone.

    Raises ValueError for a loss of another shape. What integers mean is for the loss to say: those of NodePert
    take class indices (`are_classes`), another one may take counts, ranks, or -1 for padding.
    """
    outputs = outputs if outputs.dtype == jnp.float64 else outputs.astype(jnp.float32)
    losses = loss(outputs, targets)
    if losses is None or callable(losses):
        raise ValueError(f"a loss must return one number per example; this one returned {type(losses).__name__}")
    losses = jnp.asarray(losses)
    each = outputs.shape[: max(1, outputs.ndim - 1)]
    if not losses.ndim or jnp.shape(losses) != each[: losses.ndim]:
        raise ValueError(
            f"a loss must return one number per example, shape {each[:1]}"
            + f", or per output, shape {each}" * (len(each) > 1)
            + f"; this one returned shape {jnp.shape(losses)}. Average over outputs, not over the batch: `.mean(-1)`, "
            "not `.mean()`"
        )
    if not jnp.issubdtype(losses.dtype, jnp.floating):
        raise ValueError(f"a loss must return real numbers; this one returned {losses.dtype}")
    check_loss(loss, outputs, targets)
    return losses


def as_values(targets: Array, outputs: Array) -> Array:
    """Targets as values shaped as the outputs; class indices become one-hot rows. Raises as `are_classes` does.

    Where a step is not graded they are the outputs themselves, so that there is no error.
    """
    targets = as_array(targets)
    there = graded(targets)
    if are_classes(targets, outputs):
        values = jax.nn.one_hot(targets, outputs.shape[-1], dtype=outputs.dtype)
    else:
        values = targets.astype(outputs.dtype) if targets.dtype == jnp.bool_ else targets
    return values if there is None else jnp.where(there[..., None], values, outputs)


def graded(targets: Array) -> Array | None:
    """Which time steps of targets are graded, (B, T): of class indices those that are not -1, of values, (B, T, n),
    those that are not nan. None for targets without a time axis."""
    if jnp.issubdtype(targets.dtype, jnp.signedinteger) and targets.ndim > 1:
        return targets != -1
    if jnp.issubdtype(targets.dtype, jnp.floating) and targets.ndim > 2:
        return ~jnp.isnan(targets).all(-1)
    return None


def as_array(values: Any) -> Array:
    """Inputs or targets as an array. Raises ValueError for what is none, and for integers that JAX would wrap."""
    given = values if isinstance(values, jax.Array) else _in_numpy(values)
    if isinstance(given, np.ndarray) and is_integer(given):
        narrow = given.astype(jax.dtypes.canonicalize_dtype(given.dtype))
        if wrapped := given[narrow != given].tolist():
            raise ValueError(
                f"{wrapped[0]} does not fit into {narrow.dtype}; number the classes 0, 1, 2, ..., or give floats"
            )
    return jnp.asarray(given)


def _in_numpy(values: Any) -> np.ndarray:
    try:
        array = np.asarray(values)
    except (TypeError, ValueError):  # parts of several shapes
        array = np.asarray(None)
    if not (jnp.issubdtype(array.dtype, jnp.number) or array.dtype == np.bool_):
        raise ValueError(
            f"inputs and targets are arrays of numbers; got {array.dtype}. Number the classes 0, 1, 2, ..., as "
            "np.unique(y, return_inverse=True)[1] does"
        )
    return array


def are_classes(targets: Array, outputs: Array) -> bool:
    """Whether targets are class indices, integers (B, ...), and not values, (B, ..., n), for outputs (B, ..., n).

    Raises ValueError for targets of another shape, and for concrete labels without an output.
    """
    classes = is_integer(targets)
    if targets.shape != (outputs.shape[:-1] if classes else outputs.shape):
        raise ValueError(
            f"targets are class indices, integers of shape {outputs.shape[:-1]}, or values shaped as the outputs, "
            f"{outputs.shape}; got {targets.dtype} of shape {targets.shape}{_advice(targets, outputs)}"
        )
    if classes:
        check_range(targets, outputs)
    return classes


def _advice(targets: Array, outputs: Array) -> str:
    """What to do about targets that are neither class indices nor values."""
    axes, places = targets.ndim - (not is_integer(targets)), outputs.ndim - 1  # examples, and time steps
    if targets.shape == outputs.shape:
        return ". Convert values to floats: y.astype(float)"
    if targets.shape == outputs.shape[:-1]:
        return ". Give values a last axis: y[..., None]" if outputs.shape[-1] == 1 else (
            ". Convert class indices to integers: y.astype(int)")  # fmt: skip
    if axes == 1 < places:
        return ". The outputs have a time axis and the targets have none: use the last output, as in rnn(readout=last)"
    if places == 1 < axes and targets.shape[1] > 1:
        return ". The targets have a time axis and the outputs have none: use all outputs, as in rnn(readout=every)"
    if places == axes > 1 and targets.shape[1] != outputs.shape[1]:
        return f". The outputs have {outputs.shape[1]} time steps and the targets {targets.shape[1]}"
    return ". Reshape the targets, or give the network another number of outputs"


def is_integer(targets: Any) -> bool:
    """Whether targets are an array of integers, as class indices are."""
    return hasattr(targets, "dtype") and bool(jnp.issubdtype(targets.dtype, jnp.integer))


def check_range(labels: Array, outputs: Array) -> None:
    """Raises ValueError for labels outside 0..n-1, of n outputs, where they are concrete. In time, -1 is not graded."""
    if isinstance(labels, Tracer) or not labels.size or not getattr(labels, "is_fully_addressable", True):
        return
    values, n = np.asarray(jax.device_get(labels)), outputs.shape[-1]  # jnp would be traced, where a step is
    low, high = int(values.min()), int(values.max())
    lowest = -1 if labels.ndim > 1 else 0
    unless = ", or -1 where a step is not graded" * (lowest < 0)
    if low < lowest or high >= n:
        raise ValueError(
            f"label {low if low < lowest else high} has no output: with {n} output{'s' * (n > 1)} labels must be in "
            f"0..{n - 1}{unless}; number the classes from 0, and give the network an output for each"
        )
