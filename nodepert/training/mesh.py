"""Replicas, or the examples of a batch, spread over a mesh of devices."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from nodepert.rules.exchange import measuring, over_devices
from nodepert.training.devices import eager

shard_map = functools.partial(jax.shard_map, check_vma=False)
REPLICAS, BATCH, SLOPES = "replicas", "batch", "slopes"  # what a mesh is spread over
LARGE, ALIGNMENT = 2**20, 64  # bytes; of XLA's buffers


def mesh_of(replicas: int, devices: Sequence[Any] | None = None, single: str = BATCH) -> Mesh:
    """Replicas spread over the devices; a single run's batch, or the noisy passes of its examples (`single`), over
    `devices` where they are given.

    Without `devices` replicas take all (no more than one each), and a single run takes one.
    """
    needed = replicas if jax.process_count() == 1 else None  # every process takes part
    chosen = list(jax.devices()[:needed] if devices is None else devices)
    return Mesh(np.array(chosen), (single if replicas == 1 and len(chosen) > 1 else REPLICAS,))


def over_replicas(f: Callable[..., Any], on: Mesh, lanes: int, updated: int = 0) -> Callable[[Any, Any], Any]:
    """(arguments stacked over replicas, shared) -> f(*arguments, shared) of every replica, stacked.

    Each device takes its share: `lanes` of them at a time in one vectorised computation, and those one after another.
    With `updated` arguments, f gives their new values, which are written over the old ones, one replica after another.
    """

    def share(stacked, shared):
        if updated:
            return in_place(lambda *one: f(*one, shared), stacked[:updated], stacked[updated:], lanes)
        return jax.lax.map(lambda one: f(*one, shared), stacked, batch_size=lanes if lanes > 1 else None)

    def measured_apart(stacked, shared):
        with measuring(over_devices(SLOPES, on.size)):
            return share(stacked, shared)

    if on.axis_names == (BATCH,) or on.size == 1 or eager():
        return share
    if on.axis_names == (SLOPES,):  # everything on every device, but for what is measured
        return shard_map(measured_apart, mesh=on, in_specs=PartitionSpec(), out_specs=PartitionSpec())
    each = PartitionSpec(REPLICAS)
    return shard_map(share, mesh=on, in_specs=(each, PartitionSpec()), out_specs=each)


def in_place(f: Callable[..., Any], old: Any, others: Any, lanes: int) -> Any:
    """f(*old, *others), the new values of `old`, of every replica: `lanes` at a time, and those one after another."""
    count, kinds = len(jax.tree.leaves(old)[0]), old

    def alone(*arguments: Any) -> Any:
        return jax.tree.map(lambda a: a[None], f(*jax.tree.map(lambda a: a[0], arguments)))

    several = jax.vmap(f) if lanes > 1 else alone

    def step(first: Any, size: int, old: Any) -> Any:
        def some(a: Any) -> Any:
            return jax.lax.dynamic_slice_in_dim(a, first, size)

        given = jax.tree.map(some, old)
        new = words(several(*jax.tree.map(as_keys, given, kinds), *jax.tree.map(some, others)))
        return jax.tree.map(lambda a, n: jax.lax.dynamic_update_slice_in_dim(a, n, first, 0), old, new)

    full, rest = divmod(count, lanes)
    old = jax.lax.fori_loop(0, full, lambda i, old: step(i * lanes, lanes, old), words(old))
    return jax.tree.map(as_keys, step(full * lanes, rest, old) if rest else old, kinds)


def words(tree: Any) -> Any:
    """Random keys as numbers: a key that a loop carries would count as used again at every turn."""
    return jax.tree.map(lambda a: jax.random.key_data(a) if is_key(a) else a, tree)


def as_keys(a: Any, kind: Any) -> Any:
    """The inverse of `words`, for a leaf that was of this kind."""
    return jax.random.wrap_key_data(a, impl=jax.random.key_impl(kind)) if is_key(kind) else a


def is_key(a: Any) -> bool:
    return jnp.issubdtype(a.dtype, jax.dtypes.prng_key)


def over_batch(on: Mesh) -> Callable[[Any], Any]:
    """A function that spreads a batch over a mesh for batches; the identity for a mesh of replicas."""
    if on.axis_names != (BATCH,) or eager():
        return lambda batch: batch
    return functools.partial(jax.lax.with_sharding_constraint, shardings=NamedSharding(on, PartitionSpec(BATCH)))


def shares(on: Mesh) -> int:
    """Into how many shares replicas are divided."""
    return on.size if on.axis_names == (REPLICAS,) else 1


def everywhere(on: Mesh) -> NamedSharding:
    """A copy on every device."""
    return NamedSharding(on, PartitionSpec())


def spread(on: Mesh) -> NamedSharding:
    """A share of the replicas on every device, or a copy for a single run."""
    return NamedSharding(on, PartitionSpec(REPLICAS) if on.axis_names == (REPLICAS,) else PartitionSpec())


def placed(tree: Any, sharding: NamedSharding) -> Any:
    """Host arrays on the devices of a mesh; every process has all of them."""
    if jax.process_count() == 1:
        return jax.device_put(jax.tree.map(aligned, tree) if sharding.is_fully_replicated else tree, sharding)
    return jax.tree.map(lambda a: jax.make_array_from_callback(np.shape(a), sharding, np.asarray(a).__getitem__), tree)


def aligned(a: Any) -> Any:
    """An array at an address that all CPU devices can read it from: in a copy, where it is at another one."""
    if not isinstance(a, np.ndarray) or a.nbytes < LARGE or jax.default_backend() != "cpu":
        return a
    room = np.empty(a.nbytes + ALIGNMENT, np.uint8)
    first = -room.ctypes.data % ALIGNMENT
    copy = room[first : first + a.nbytes].view(a.dtype).reshape(a.shape)
    copy[...] = a
    return copy


def one_of(stacked: Any, i: int, on: Mesh) -> Any:
    """The arrays of one replica of many that are spread over a mesh, on every device."""
    if jax.process_count() > 1:  # every process takes part
        return jax.jit(lambda tree, i: jax.tree.map(lambda a: a[i], tree), out_shardings=everywhere(on))(stacked, i)

    def one(a: Any) -> Any:
        shares = [(shard.index[0].start or 0, shard.data) for shard in a.addressable_shards]
        first, share = max(((first, share) for first, share in shares if first <= i), key=lambda found: found[0])
        return jax.device_put(jax.lax.dynamic_index_in_dim(share, i - first, keepdims=False), everywhere(on))

    return jax.tree.map(one, stacked)
