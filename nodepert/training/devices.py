"""The devices that compute: how replicas or a batch are spread over them, and what memory they have."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from nodepert.errors import UserError, refuse_fork
from nodepert.rules.exchange import measuring, over_devices
from nodepert.training import configuration

shard_map = functools.partial(jax.shard_map, check_vma=False)
REPLICAS, BATCH, SLOPES = "replicas", "batch", "slopes"  # what a mesh is spread over
CORES = 16  # each CPU device has a copy of the data


def cores_apart(replicas: int) -> None:
    """One CPU device for each core, up to `CORES`, so that as many replicas train side by side: two replicas on a core
    each are faster than one after another on two cores. Does nothing once JAX computes, or where its settings give
    the number of CPU devices."""
    flags, number = os.environ.get("XLA_FLAGS", ""), os.environ.get("JAX_NUM_CPU_DEVICES")
    configured = getattr(jax.config, "jax_num_cpu_devices", -1)
    if replicas == 1 or number or configured > 0 or "xla_force_host_platform_device_count" in flags:
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1  # of this job
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", min(replicas, cores, CORES))


def start(replicas: int = 1) -> None:
    """Start JAX, with CPU devices for so many replicas.

    Raises UserError where it finds no device, in a process forked from one that has started it, and for a setting that
    NodePert does not support.
    """
    refuse_fork()
    cores_apart(replicas)
    configuration.check_supported()
    if found := trouble():
        raise UserError("; ".join(found))


def trouble() -> tuple[str, str] | None:
    """Why JAX does not start, and what to do about it; None where it starts."""
    try:
        jax.devices()
        return None
    except (RuntimeError, AssertionError) as error:  # an assertion without a message where there is no device
        why = " ".join(str(error).partition("(set JAX_PLATFORMS")[0].split())
        asked = getattr(jax.config, "jax_platforms", None)
    if asked:
        return (f"JAX finds no device for JAX_PLATFORMS={asked}{f': {why}' if why else ''}",
                "unset JAX_PLATFORMS to use any device, or set it to cpu")  # fmt: skip
    return f"JAX cannot start{f': {why}' if why else ''}", "install it again: pip install --force-reinstall jax jaxlib"


def device_name() -> str:
    """The device that computes, as records name it: "cpu (cpu)"."""
    return f"{jax.default_backend()} ({jax.devices()[0].device_kind})"


def mesh(replicas: int, devices: Sequence[Any] | None = None, single: str = BATCH) -> Mesh:
    """Replicas spread over the devices; a single run's batch, or the noisy passes of its examples (`single`), over
    `devices` where they are given.

    Without `devices` replicas take all (no more than one each), and a single run takes one.
    """
    needed = replicas if jax.process_count() == 1 else None  # every process takes part
    chosen = list(jax.devices()[:needed] if devices is None else devices)
    return Mesh(np.array(chosen), (single if replicas == 1 and len(chosen) > 1 else REPLICAS,))


def over_replicas(f: Callable[..., Any], on: Mesh, lanes: int) -> Callable[[Any, Any], Any]:
    """(arguments stacked over replicas, shared) -> f(*arguments, shared) of every replica, stacked.

    Each device takes its share: `lanes` of them at a time in one vectorised computation, and those one after another.
    """

    def share(stacked, shared):
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


def over_batch(on: Mesh) -> Callable[[Any], Any]:
    """A function that spreads a batch over a mesh for batches; the identity for a mesh of replicas."""
    if on.axis_names != (BATCH,) or eager():
        return lambda batch: batch
    return functools.partial(jax.lax.with_sharding_constraint, shardings=NamedSharding(on, PartitionSpec(BATCH)))


def eager() -> bool:
    """Whether JAX executes step by step, for a debugger: JAX_DISABLE_JIT=1 or jax.disable_jit()."""
    return bool(getattr(jax.config, "jax_disable_jit", False))


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
        return jax.device_put(tree, sharding)
    return jax.tree.map(lambda a: jax.make_array_from_callback(np.shape(a), sharding, np.asarray(a).__getitem__), tree)


@functools.cache
def compiler_options() -> dict[str, str]:
    """Options of XLA for a training step, for `jax.jit(..., compiler_options=...)`.

    On CPU, where XLA knows the option, one matrix product at a time goes to its library YNN. By default a whole noisy
    pass, whose activity nobody asks for, becomes one call, and is then up to ten times slower (benchmarks/README.md).
    """
    options = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}
    if jax.default_backend() != "cpu":
        return {}
    try:
        jax.jit(lambda: 0.0, compiler_options=options).lower().compile()
    except Exception:  # another version of XLA: no such option, or no such value
        return {}
    return options


def memory_needed(compiled: Any) -> int:
    """Bytes that a compiled program needs on each device, by XLA's analysis: arguments, results, temporaries."""
    found = compiled.memory_analysis() if isinstance(compiled, jax.stages.Compiled) else None
    if not found:
        return 0
    parts = found.argument_size_in_bytes, found.output_size_in_bytes, found.temp_size_in_bytes
    return sum(parts) - found.alias_size_in_bytes


def memory_free(job: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that are free on one device now; on CPU, of this machine's or this job's memory for each of its devices."""
    device = jax.local_devices()[0]
    if stats := device.memory_stats():
        return stats["bytes_limit"] - stats["bytes_in_use"]
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError, IndexError):  # Linux: what is available, not what is unused
        free = min(free, 1024 * int(Path("/proc/meminfo").read_text().split("MemAvailable:")[1].split()[0]))
    with contextlib.suppress(OSError, ValueError, IndexError):  # a limit on this job, as Slurm and containers set it
        limit, used = (int((job / f"memory.{name}").read_text()) for name in ("max", "current"))
        cached = int((job / "memory.stat").read_text().split("inactive_file ")[1].split()[0])  # given back when asked
        free = min(free, limit - used + cached)
    return free // jax.local_device_count()


def memory_total(job: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes of one device, free or not; on CPU, of this machine or this job."""
    if stats := jax.local_devices()[0].memory_stats():
        return stats["bytes_limit"]
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):
        total = min(total, int((job / "memory.max").read_text()))
    return total


@contextlib.contextmanager
def one_line_if_full(needed: int = 0) -> Iterator[None]:
    """Turn XLA's error that memory is exhausted into a UserError, which names the bytes that the program needs."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error) and "Out of memory" not in str(error):
            raise
        raise full(needed) from error


def full(needed: int = 0) -> UserError:
    """The error for a program that needs more bytes than there are, if it is known how many."""
    size = f"training needs {needed / 1e9:,.2g} GB, and " * bool(needed)
    return UserError(f"{size}memory is exhausted; use a smaller network, batchsize, or number of classes")
