"""What the benchmarks share: facts about the machine, a table on the terminal, figures as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from nodepert.runner import device
from nodepert.store import versions


def facts(benchmark: str, **more: Any) -> dict[str, Any]:
    """Device, versions and date."""
    machine = {"benchmark": benchmark, "date": date.today().isoformat(), "device": device(), "cores": os.cpu_count()}
    return machine | {"versions": versions()} | more


def report(
    about: dict[str, Any], rows: Sequence[dict[str, Any]], columns: dict[str, tuple[str, str]], path: Path
) -> None:
    """Print the columns {title: (key, format)} of the rows, and write all of them."""
    table = Table(
        box=None, title=f"{about['benchmark']}, {about['device']}, {about['cores']} cores", title_justify="left"
    )
    for title, (key, _) in columns.items():
        table.add_column(title, justify="left" if isinstance(rows[0][key], str) else "right")
    for row in rows:
        table.add_row(*("-" if row[key] is None else format(row[key], form) for key, form in columns.values()))
    Console(width=140).print(table)
    path.write_text(json.dumps(about | {"rows": list(rows)}, indent=1) + "\n")
    print(f"figures: {path}")
