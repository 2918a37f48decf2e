"""A rule inside `jax.shard_map`: each device gets the gradient of its own examples."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp

from nodepert.core import Rule
from nodepert.errors import UserError

OF_JAX = re.compile(r"\b(pcast|pvary|check_vma|check_rep|varying manual axes|manual axis types|vma)\b|\{V:")


def per_device(rule: Rule) -> Rule:
    """The rule, for use inside `jax.shard_map`: gradients of each device's own batch, to be averaged by `pmean`.

    JAX sums the derivative by what is the same on all devices over the devices, and refuses tangents that differ where
    the primal does not. So all inputs of a step count as different on each device as soon as one is. Raises UserError
    for a rule that JAX refuses there even so; other errors are those of the rule.
    """

    def grads(*inputs):
        leaves, structure = jax.tree.flatten(inputs)
        own = [_axes(leaf) for leaf in leaves]
        if not any(own):
            return rule.grads(*inputs)
        some = frozenset().union(*own)
        varying = structure.unflatten([_over(leaf, some - axes) for leaf, axes in zip(leaves, own, strict=True)])
        try:
            return rule.grads(*varying)
        except (TypeError, ValueError) as error:
            if isinstance(error, UserError) or not OF_JAX.search(str(error)):
                raise
            why = str(error).strip().partition("\n")[0][:200]
            raise UserError(f"this rule fails inside jax.shard_map; pass check_vma=False to it ({why})") from error

    return rule._replace(grads=grads)


def _axes(leaf: Any) -> frozenset[Any]:
    """The mesh axes over which an array varies; none outside of shard_map."""
    kind = jax.typeof(leaf) if isinstance(leaf, jax.Array) else None
    manual = getattr(kind, "manual_axis_type", None)
    return getattr(manual, "varying", None) or getattr(kind, "vma", None) or frozenset()


def _over(leaf: Any, axes: frozenset[Any]) -> Any:
    if not axes:
        return leaf
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):  # itself cast, it would count as used
        return jax.random.wrap_key_data(_over(jax.random.key_data(leaf), axes), impl=jax.random.key_impl(leaf))
    cast: Any = getattr(jax.lax, "pcast", None)
    return cast(leaf, tuple(axes), to="varying") if cast else getattr(jax.lax, "pvary")(leaf, tuple(axes))  # noqa: B009
