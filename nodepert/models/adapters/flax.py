"""Any flax network as a model: linen modules and nnx modules, unmodified."""

from __future__ import annotations

from typing import Any

from nodepert.core import Model
from nodepert.errors import UserError
from nodepert.models.adapters.nodes import needed


def from_flax(module: Any, example: Any = None, **kwargs: Any) -> Model:
    """A model from a flax module, every layer that owns parameters a node.

    module: a `flax.linen` module; a `flax.nnx` module; or a function `rngs -> nnx module` (an nnx class that takes only
    rngs will do). A node is one call of a module that owns parameters itself, such as Dense, Conv, LayerNorm, Embed or
    your own; it has the module's path as its name, "block/Conv_0" (linen) or "layers.0.conv" (nnx), and the second call
    of one module is "block/Conv_0:1". Its one input is (B, ...), its first axis the examples.

    example: a batch of inputs, (B, ...), or the shape of one input without the batch axis, (28, 28, 1). linen needs it;
    with nnx it is optional, and what cannot be adapted is found here rather than at the first call.
    kwargs: passed on to every call of the module, such as `train=False` or `deterministic=True`.

    params: for linen the module's own "params" dictionary; for nnx the values of its nnx.Param by path, for
    `nnx.update(module, params)`. `init(key)` draws them anew, except for an nnx module (rather than a function), whose
    present weights it returns whatever the key. All other state of an nnx module is constant, as it was when adapted
    (for a function: as made by `nnx.Rngs(0)`).

    Raises UserError where flax is missing, and for what per-example credit cannot do: layers that mix examples (batch
    norm) or change state, active dropout, parameters that do not pass through a layer of their own, layers called
    under jit, scan, vmap or remat inside the module, and layers of several inputs or outputs.
    """
    needed("flax", "from_flax")
    from flax import linen, nnx

    if isinstance(module, linen.Module):
        from nodepert.models.adapters.linen import from_linen

        return from_linen(module, example, **kwargs)
    if isinstance(module, type) and issubclass(module, linen.Module):
        raise UserError(f"from_flax needs an instance of the linen module, not its class: {module.__name__}(...)")
    if isinstance(module, nnx.Module) or callable(module):
        from nodepert.models.adapters.nnx import from_nnx

        return from_nnx(module, example, **kwargs)
    raise UserError(
        f"from_flax takes a linen module, an nnx module or a function rngs -> nnx module; got {type(module).__name__}"
    )
