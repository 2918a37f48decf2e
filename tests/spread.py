"""Run by test_replicas.py on several devices: train five replicas, and one run whose batch is spread over all,
by gradients and by slopes."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import jax

import nodepert as npt
from nodepert.training import devices, processes

BASE = npt.Run(
    dataset="digits(train=210, test=50)", network="fc(width=12, depth=1)", batchsize=40, epochs=2, rule="np(samples=2)"
)
REPLICAS = [replace(BASE, seed=seed, lr=lr) for seed, lr in [(0, 1e-3), (1, 1e-3), (2, 1e-3), (3, 1e-2), (4, 1e-2)]]
CONV = replace(BASE, network="conv", batchsize=24, dataset="digits(train=60, test=20)")


def refused(folder):
    """What training answers where the first process cannot use the folder, which the others do not see."""
    Path(folder).write_text("")
    try:
        npt.train(REPLICAS[:2], name="study", out=folder)
    except npt.UserError as error:
        return str(error)
    raise AssertionError("a process went on where the first one could not begin")


if __name__ == "__main__":
    jax.config.update("jax_enable_compilation_cache", False)
    out, *runs = sys.argv[1:]
    several = "JAX_COORDINATOR_ADDRESS" in os.environ
    if several:
        processes.joined()
    results = npt.train(REPLICAS, **({"name": "study", "out": runs[0]} if runs else {}))
    single = npt.train(REPLICAS[0] if several else CONV, spread_batch=True)
    slopes = npt.train(REPLICAS[0] if several else CONV, exchange="slopes")
    if several:
        why = refused(Path(out).with_suffix(".way"))
        assert processes.writes() or "the first process" in why, why
        found_free, devices.memory_free = devices.memory_free, lambda: 1e12 if processes.writes() else 1e3
        assert [len(result.rows) for result in npt.train([replace(run, epochs=0) for run in REPLICAS[:2]])] == [1, 1]
        devices.memory_free = found_free  # the others have less
    found = {
        "devices": jax.device_count(),
        "local": jax.local_device_count(),
        "replicas": [result.rows for result in results],
        "batch": single.rows,
        "slopes": slopes.rows,
    }
    if processes.writes():
        Path(out).write_text(json.dumps(found))
