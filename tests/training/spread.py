"""Run by test_replicas.py: train five replicas, and one run whose batch is spread over all devices."""

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import jax

import nodepert as npt
from nodepert.training import devices, processes

BASE = npt.Run(
    dataset="digits(train=210, test=50)", network="fc(width=12)", batchsize=40, epochs=2, rule="np(samples=2)"
)

if __name__ == "__main__":
    jax.config.update("jax_enable_compilation_cache", False)
    if "JAX_COORDINATOR_ADDRESS" in os.environ:
        processes.joined()
    runs = [replace(BASE, seed=seed, lr=lr) for seed, lr in [(0, 1e-3), (1, 1e-3), (2, 1e-3), (3, 1e-2), (4, 1e-2)]]
    name = {"name": "study", "out": sys.argv[2]} if len(sys.argv) > 2 else {}
    several = npt.train(runs, **name)
    conv = replace(BASE, network="conv", batchsize=24, dataset="digits(train=60, test=20)")
    single = npt.train(conv, spread_batch=True)
    if jax.process_count() > 1:  # the others have less memory, and do not see the folder that the first one cannot use
        found_free, devices.memory_free = devices.memory_free, lambda: 1e12 if processes.writes() else 1e3
        parted = npt.train(runs[:2])
        devices.memory_free = found_free
        in_the_way = Path(sys.argv[1]).with_suffix(".way")
        in_the_way.write_text("")
        refused = ""
        try:
            npt.train(runs[:2], name="study", out=in_the_way)
        except npt.UserError as error:
            refused = str(error)
        assert refused, "a process went on where the first one could not begin"
        assert processes.writes() or "the first process" in refused, refused
        assert [len(result.rows) for result in parted] == [3, 3]
    found = {
        "devices": jax.device_count(),
        "local": jax.local_device_count(),
        "replicas": [result.rows for result in several],
        "batch": single.rows,
        "shards": jax.device_count(),
    }
    if processes.writes():
        Path(sys.argv[1]).write_text(json.dumps(found))
