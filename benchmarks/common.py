"""Shared by the benchmarks: facts about the machine, a table in the terminal, results as JSON."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.table import Table

from nodepert.studies.store.versions import versions
from nodepert.training.devices import device_name


def facts(benchmark: str, **more: Any) -> dict[str, Any]:
    """Device, versions and date."""
    machine = {
        "benchmark": benchmark,
        "date": date.today().isoformat(),
        "device": device_name(),
        "cores": os.cpu_count(),
    }
    return machine | {"versions": versions()} | more


def matmul_rate(size: int = 2048, repeats: int = 10) -> float:
    """Floating-point operations per second of a square float32 matrix product: the best of several repeats."""
    a = jax.random.normal(jax.random.key(0), (size, size))
    product = jax.jit(lambda a: a @ a)
    product(a).block_until_ready()
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        product(a).block_until_ready()
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def report(
    about: dict[str, Any], rows: Sequence[dict[str, Any]], columns: dict[str, tuple[str, str]], path: Path
) -> None:
    """Print the columns {title: (key, format)} of the rows, and write the complete rows to `path`."""
    table = Table(
        box=None, title=f"{about['benchmark']}, {about['device']}, {about['cores']} cores", title_justify="left"
    )
    for title, (key, _) in columns.items():
        table.add_column(title, justify="left" if isinstance(rows[0][key], str) else "right")
    for row in rows:
        table.add_row(*("-" if row[key] is None else format(row[key], form) for key, form in columns.values()))
    Console(width=140).print(table)
    path.write_text(json.dumps(about | {"rows": list(rows)}, indent=1) + "\n")
    print(f"results: {path}")
