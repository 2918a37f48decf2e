"""flax networks as models: linen and nnx modules, unmodified."""

from __future__ import annotations

from typing import Any

from nodepert.core import Model
from nodepert.errors import UserError
from nodepert.models.adapters.nodes import needed


def from_flax(module: Any, example: Any = None, **kwargs: Any) -> Model:
    """Convert a flax module; every layer that owns parameters becomes a node.

    A node is one call of a module that itself owns parameters, such as Dense, Conv, LayerNorm or Embed. Its name is the
    module's path, "block/Conv_0" (linen) or "layers.0.conv" (nnx); the second call of a module is "block/Conv_0:1".
    It has one input, (B, ...). The loop of RNN (with any cell, and in Bidirectional) is `npt.scan`: nodes inside have
    pre-activations (B, T, ...).

    Args:
        module: A `flax.linen` module, a `flax.nnx` module, or a function rngs -> nnx module (such as an nnx class that
            takes only rngs). With an nnx module, or a linen module that is bound to its variables, `init(key)`
            returns its weights, whatever the key, else it draws new ones. Other state of an nnx module is constant
            (from a function: that of `nnx.Rngs(0)`), and so are the running averages of batch norm in linen (of a
            module that is not bound: those before training).
        example: A batch of inputs, (B, ...), or the shape of one input, as in (28, 28, 1). Required for linen; with nnx
            it moves errors from the first call to this one.
        kwargs: Passed to every call of the module, such as `train=False` or `deterministic=True`.

    Returns:
        The `Model`; its params are the "params" dictionary of linen, or the values of the nnx.Param by path, for
        `nnx.update(module, params)`.

    Raises:
        UserError: flax is not installed, or per-example credit is impossible: layers or code that mix examples (such as
            batch norm, unless it uses its running averages), layers that change state, active dropout, parameters used
            outside a layer of their own, layers called under jit, scan, vmap or remat inside the module, layers with
            several inputs or outputs.

    Examples:
        >>> import nodepert as npt
        >>> from flax import linen as nn
        >>> model = npt.from_flax(nn.Sequential([nn.Dense(8), nn.relu, nn.Dense(3)]), (4,))
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
