"""Run by test_replicas.py: train five replicas, and one run whose batch is spread over all devices."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import jax

import nodepert as npt
from nodepert import devices

BASE = npt.Run(
    dataset="digits(train=210, test=50)", network="fc(width=12)", batchsize=40, epochs=2, rule="np(samples=2)"
)

if __name__ == "__main__":
    jax.config.update("jax_enable_compilation_cache", False)
    if "JAX_COORDINATOR_ADDRESS" in os.environ:
        devices.joined()
    runs = [replace(BASE, seed=seed, lr=lr) for seed, lr in [(0, 1e-3), (1, 1e-3), (2, 1e-3), (3, 1e-2), (4, 1e-2)]]
    name = {"name": "study", "out": sys.argv[2]} if len(sys.argv) > 2 else {}
    several = npt.train(runs, **name)
    conv = replace(BASE, network="conv", batchsize=24, dataset="digits(train=60, test=20)")
    single = npt.train(conv, on=jax.devices())
    found = {
        "devices": jax.device_count(),
        "local": jax.local_device_count(),
        "replicas": [result.rows for result in several],
        "batch": single.rows,
        "shards": jax.device_count(),
    }
    if devices.writes():
        Path(sys.argv[1]).write_text(json.dumps(found))
