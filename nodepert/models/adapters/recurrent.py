"""Recurrent layers of flax, linen and nnx: their loops over time steps, with nodes inside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from flax.linen.recurrent import flip_sequences

from nodepert.core import Array
from nodepert.errors import UserError
from nodepert.models.adapters.nodes import Calls

OPTIONS = ("return_carry", "time_major", "reverse", "keep_order")


def recurrent(
    calls: Calls, name: str, rnn: Any, cell: Callable[[Any, Array], tuple[Any, Array]], start: Callable[..., Any],
    inputs: Array, *, initial_carry: Any = None, seq_lengths: Array | None = None, **given: Any,
) -> Any:  # fmt: skip
    """What `RNN.__call__` returns, for inputs (B, T, ...), by `npt.scan` in place of the lifted scan of flax.

    Args:
        calls: The calls of layers in this forward pass.
        name: Of the layer, for errors.
        rnn: The layer, with the defaults of its options.
        cell: (carry, inputs of a step) -> (carry, outputs of the step), calling layers as nodes.
        start: (shape of the inputs of a step) -> carry before the first step.
        inputs, initial_carry, seq_lengths, given: What the layer is called with.
    """
    how = {option: getattr(rnn, option) if given.get(option) is None else given[option] for option in OPTIONS}
    if inputs.ndim != rnn.cell.num_feature_axes + 2:
        axes = "(T, B, ...)" if how["time_major"] else "(B, T, ...)"
        raise UserError(f"the input of layer '{name}' has shape {inputs.shape}; it must be {axes}")

    def backwards(a: Array) -> Array:
        return flip_sequences(a, seq_lengths, num_batch_dims=1, time_major=False)

    x = inputs.swapaxes(0, 1) if how["time_major"] else inputs
    x = backwards(x) if how["reverse"] else x
    carry = start((len(x), *x.shape[2:])) if initial_carry is None else initial_carry
    sliced = seq_lengths is not None and how["return_carry"]

    def step(carry: Any, x: Array) -> tuple[Any, Any]:
        carry, y = cell(carry, x)
        return carry, (y, carry if sliced else None)

    last, (y, carries) = calls.scan(step, carry, x)
    if seq_lengths is not None and sliced:
        last = jax.tree.map(lambda c: c[jax.numpy.arange(len(c)), seq_lengths - 1], carries)
    y = backwards(y) if how["reverse"] and how["keep_order"] else y
    y = y.swapaxes(0, 1) if how["time_major"] else y
    return (last, y) if how["return_carry"] else y
