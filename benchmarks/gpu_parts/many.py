"""Many replicas of one program, and how many of them to vectorise, relative to one process each."""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import replicas

import nodepert as npt
from gpu_parts import Row, data_here, tried
from nodepert.studies.setup import prepare
from nodepert.training.replicas import fit_all

COUNTS = {"fc(width=100)": (1, 64, 512, 4096), "conv": (1, 64)}
LANES = (16, 64, 512)  # of 512


def rows(toy: bool) -> Iterator[Row]:
    dataset, counts = ("mnist", COUNTS) if not toy else ("teacher", {"fc(width=10)": (8,)})
    alone = []
    if not toy:
        yield from tried("one process", lambda: process(dataset, alone))
    for network, numbers in counts.items():
        for number in numbers:
            what = f"{network}: {number} replicas"
            yield from tried(what, lambda w=what, n=network, r=number: group(w, n, dataset, r, None, alone))
    for lanes in (8,) if toy else LANES:
        network, number = ("fc(width=10)", 8) if toy else ("fc(width=100)", 512)
        what = f"{network}: {number} replicas, {lanes} vectorised"
        yield from tried(what, lambda w=what, n=network, r=number, k=lanes: group(w, n, dataset, r, k, alone))


def process(dataset: str, alone: list[float]) -> Iterator[Row]:
    """A whole command with one seed and one epoch, its program in the cache."""
    data_here(dataset)
    options = replicas.Options(dataset=dataset, epochs=1)
    with tempfile.TemporaryDirectory() as cache:
        alone.extend(replicas.seconds(options, 1, Path(cache)) for _ in range(2))
    alone[:] = alone[-1:]
    yield Row("fc(width=100): one process", alone[0], "s", "1 epoch")


def group(what: str, network: str, dataset: str, number: int, lanes: int | None, alone: list[float]) -> Iterator[Row]:
    """Seconds of an epoch of so many replicas, after the first one; whole time relative to one process each."""
    start, data = time.perf_counter(), data_here(dataset)
    runs = [npt.Run(dataset=dataset, network=network, rule="np", epochs=2, seed=seed) for seed in range(number)]
    _, _, model, loss, data, hypers = prepare(runs, data)[0]
    took: list[tuple[float, Any]] = []
    begun = start
    for epoch in fit_all(model, loss, data, hypers, batchsize=100, epochs=2, lanes=lanes):
        took.append((time.perf_counter() - begun, epoch.seconds))
        begun = time.perf_counter()
    each = sum(seconds for _, seconds in took[2::3])
    whole = sum(wall for wall, _ in took[: 2 * len(took) // 3])
    times = f", {number * alone[0] / whole:.0f} times one process each" if alone and number > 1 else ""
    note = f"{each:.3g} s an epoch, {whole:.3g} s with compilation and one epoch{times}, {peak()}"
    yield Row(what, number / each, "run-epochs/s", note)


def peak() -> str:
    """The most memory in use so far."""
    stats = jax.local_devices()[0].memory_stats() or {}
    used = stats.get("peak_bytes_in_use", 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return f"peak {used / 1e9:.2g} GB"
