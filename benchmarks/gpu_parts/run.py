"""One part of `gpu.py`, in its own process: python -m gpu_parts.run PART FILE [--toy]. FILE has the rows so far."""

from __future__ import annotations

import json
import sys
import time
import traceback
from importlib import import_module
from pathlib import Path

import jax
from common import facts

from gpu_parts import Row


def main(part: str, path: Path, toy: bool) -> int:
    start, rows = time.perf_counter(), []
    toy = toy or jax.default_backend() == "cpu"
    if toy:  # what is compiled runs for a moment only
        jax.config.update("jax_disable_most_optimizations", True)
    about = facts(f"gpu: {part}", part=part, toy=toy)

    def save(status: str) -> None:
        found = about | {"status": status, "seconds": time.perf_counter() - start, "rows": [r._asdict() for r in rows]}
        whole = path.with_suffix(".tmp")
        whole.write_text(json.dumps(found, indent=1) + "\n")
        whole.replace(path)  # a part may be stopped at any time

    status = "complete"
    save("started")
    try:
        for row in import_module(f"gpu_parts.{part}").rows(toy):
            rows.append(row)
            save("started")
    except Exception as error:
        traceback.print_exc()
        status = "failed"
        rows.append(Row(part, note=f"failed: {type(error).__name__}: {str(error).strip().split(chr(10))[0]}", ok=False))
    save(status)
    return 0 if all(row.ok for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), "--toy" in sys.argv[3:]))
