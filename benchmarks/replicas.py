"""Many runs in one program relative to one process per run: whole commands, with start-up and compilation.

    python benchmarks/replicas.py                           # 32 seeds of fc(width=100), 3 epochs of MNIST
    python benchmarks/replicas.py --counts 8 --epochs 1     # smaller

Each row is a whole command `nodepert train ... --seeds 0..N-1`, in a new directory. "Cold" compiles, "warm" loads the
program from the cache. Separate processes in sequence take N times the median of a process with one seed. The commands
are interleaved.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import tyro
from common import facts, report


@dataclass
class Options:
    counts: tuple[int, ...] = (4, 32)
    """Numbers of replicas."""
    network: str = "fc(width=100)"
    """Network."""
    rule: str = "np"
    """Rule."""
    dataset: str = "mnist"
    """Data set."""
    epochs: int = 3
    """Epochs."""
    repeats: int = 3
    """Commands of each kind; the result is their median."""
    data_dir: str | None = None
    """Directory of the data files."""
    json: Path = Path("replicas.json")
    """Output file."""


def seconds(options: Options, count: int, cache: Path | None) -> float:
    """Wall time of one command with `count` seeds."""
    command = [sys.executable, "-m", "nodepert", "train", "--dataset", options.dataset, "--network", options.network,
               "--rule", options.rule, "--epochs", str(options.epochs), "--seeds", f"0..{count - 1}"]  # fmt: skip
    command += ["--data-dir", options.data_dir] if options.data_dir else []
    keep = {"JAX_COMPILATION_CACHE_DIR": str(cache), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1"}
    environment = os.environ | (keep if cache else {"JAX_ENABLE_COMPILATION_CACHE": "false"})
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        subprocess.run([*command, "--out", folder], check=True, stdout=subprocess.DEVNULL, env=environment)
        return time.perf_counter() - start


def measure(options: Options, cache: Path | None) -> list[dict]:
    """A row for each number of replicas, and one for a process with a single run."""
    counts = (1, *options.counts)
    for count in counts if cache else ():
        seconds(options, count, cache)  # fills the cache
    times: dict[int, list[float]] = {count: [] for count in counts}
    for _ in range(options.repeats):
        for count in counts:
            times[count].append(seconds(options, count, cache))
    alone = statistics.median(times[1])
    rows = []
    for count in counts:
        took = statistics.median(times[count])
        rows.append({
            "programs": "warm" if cache else "cold",
            "replicas": count,
            "seconds": took,
            "run_epochs_per_s": count * options.epochs / took,
            "gain": count * alone / took,
        })  # fmt: skip
    return rows


def main(options: Options) -> None:
    with tempfile.TemporaryDirectory() as cache:
        rows = [*measure(options, None), *measure(options, Path(cache))]
    columns = {"compilation": ("programs", ""), "replicas": ("replicas", ""), "seconds": ("seconds", ".1f"),
               "run-epochs / s": ("run_epochs_per_s", ".2f"),
               "speedup": ("gain", ".2f")}  # fmt: skip
    about = facts(
        "replicas", network=options.network, rule=options.rule, dataset=options.dataset, epochs=options.epochs
    )
    report(about | {"repeats": options.repeats}, rows, columns, options.json)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
