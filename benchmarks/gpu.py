"""Everything that a GPU is to show, with one command: correctness, precision, speed, replicas, memory.

    make gpu PYTHON=python3.12                       # this script, by an interpreter that has JAX; installs nothing
    python benchmarks/gpu.py --out build/gpu         # on a CPU all parts run at toy size
    python benchmarks/gpu.py --parts precision steps # some of the parts

Each part is a process with a time limit (PARTS). Its rows are saved one by one, in OUT/PART.json, and what it prints in
OUT/PART.log. The most telling parts are first; all together take at most 8 minutes (4 on a CPU), after which what is
left is a row "out of time". A part that fails is a row with the reason. At the end gpu.json has everything, and a table
is printed; the exit status is 1 if a part failed.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

HERE = Path(__file__).resolve().parent
PARTS = {  # seconds at most
    "correct": 80, "precision": 60, "steps": 100, "many": 90, "mnist": 70, "conv_large": 50,
    "draws": 40, "noise": 30, "depth": 40,
}  # fmt: skip
MINUTES = {"cpu": 4.0, "gpu": 8.0}


@dataclass
class Options:
    parts: tuple[str, ...] = tuple(PARTS)
    """Parts, in this order."""
    toy: bool = False
    """At toy size, as on a CPU."""
    minutes: float | None = None
    """At most so long in all. Default: 8, and 4 on a CPU."""
    out: Path = Path("build/gpu")
    """Directory of the results."""


def measured(part: str, options: Options, limit: float) -> dict[str, Any]:
    """The results of one part, run for at most `limit` seconds: status, seconds, rows."""
    path, start = options.out / f"{part}.json", time.perf_counter()
    path.unlink(missing_ok=True)
    command = [sys.executable, "-m", "gpu_parts.run", part, str(path.resolve()), *["--toy"] * options.toy]
    found = [str(HERE), str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    defaults = {
        "JAX_COMPILATION_CACHE_DIR": str((options.out / "cache").resolve()),  # a second try is faster
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # a part may start another process
    }
    environment = defaults | os.environ | {"PYTHONPATH": os.pathsep.join(found), "PYTHONUNBUFFERED": "1"}
    with (options.out / f"{part}.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        try:
            code = process.wait(timeout=limit)
            status = "" if code in (0, 1) else f"ended with status {code}: {last_line(options.out / f'{part}.log')}"
        except subprocess.TimeoutExpired:
            status = f"out of time after {limit:.0f} s"
        finally:  # also at Ctrl-C; and processes that a part has started
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    result = json.loads(path.read_text()) if path.exists() else {"rows": [], "status": "failed"}
    if not path.exists():
        status = status or f"did not start: {last_line(options.out / f'{part}.log')}"
    if status:
        result["rows"].append(without_value(part, status))
        result["status"] = status
    return result | {"seconds": time.perf_counter() - start}


def without_value(part: str, why: str) -> dict[str, Any]:
    """The row of a part that has not finished."""
    return {"what": part, "value": None, "unit": "", "note": why, "ok": False}


def last_line(path: Path) -> str:
    """The last line of a log that says something."""
    return next((line for line in reversed(path.read_text(errors="replace").splitlines()) if line.strip()), "no output")


def cell(value: float | None) -> str:
    """A number in four digits or so."""
    return "-" if value is None else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def show(found: dict[str, Any], console: Console) -> None:
    """Print the rows of all parts as one table."""
    about = next((part for part in found["parts"].values() if "device" in part), {})
    size = ", toy size" * bool(about.get("toy"))
    table = Table(box=None, title=f"{about.get('device', 'no part has started')}{size}", title_justify="left")
    for title in ("part", "measured"):
        table.add_column(title)
    table.add_column(justify="right")
    table.add_column()
    table.add_column(overflow="fold")
    for name, part in found["parts"].items():
        for row in part["rows"]:
            style = None if row["ok"] else "red"
            table.add_row(name, escape(row["what"]), cell(row["value"]), row["unit"], escape(row["note"]), style=style)
        table.add_row(name, "[dim]all[/dim]", f"[dim]{part['seconds']:.0f}[/dim]", "[dim]s[/dim]", "", end_section=True)
    console.print(table)


def main(options: Options) -> int:
    if unknown := set(options.parts) - set(PARTS):
        sys.exit(f"no part '{unknown.pop()}'; parts: {', '.join(PARTS)}")
    options.out.mkdir(parents=True, exist_ok=True)
    start, console = time.perf_counter(), Console(width=None if sys.stdout.isatty() else 140)
    found: dict[str, Any] = {"benchmark": "gpu", "parts": {}}
    minutes = options.minutes or MINUTES["gpu"]
    for part in options.parts:
        left = 60 * minutes - (time.perf_counter() - start)
        if left < 5:
            status = f"not started: {minutes:g} minutes are over"
            found["parts"][part] = {"status": status, "seconds": 0.0, "rows": [without_value(part, status)]}
            continue
        result = found["parts"][part] = measured(part, options, min(PARTS[part], left))
        if result.get("device", "").startswith("cpu"):
            minutes = options.minutes or MINUTES["cpu"]
        found |= {key: result[key] for key in ("date", "device", "cores", "versions", "toy") if key in result}
        console.print(
            f"{part}: {len(result['rows'])} rows, {result['seconds']:.0f} s, {result['status']}", markup=False
        )
        (options.out / "gpu.json").write_text(json.dumps(found, indent=1) + "\n")
    found["seconds"] = time.perf_counter() - start
    (options.out / "gpu.json").write_text(json.dumps(found, indent=1) + "\n")
    show(found, console)
    console.print(f"results: {options.out / 'gpu.json'}", markup=False)
    return 0 if all(row["ok"] for part in found["parts"].values() for row in part["rows"]) else 1


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Options, description=__doc__)))
