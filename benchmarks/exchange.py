"""What the processes of one training send each other: gradients, or slopes alone (`--exchange slopes`).

    python benchmarks/exchange.py                       # four processes on this machine; exchange.json

For each width of 64-width-width-10, rule np with several draws, trained by processes that share each batch: bytes per
step and process on the loopback network while they train (Linux counts them), updates per second, and how far the final
losses are from those of one process.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import tyro
from common import facts, report

import nodepert as npt


@dataclass
class Options:
    widths: tuple[int, ...] = (100, 400)
    """Units of each hidden layer."""
    processes: int = 4
    """Processes, one device each."""
    samples: int = 4
    """Noise draws."""
    epochs: int = 3
    """Epochs; the first is not measured."""
    json: Path = Path("exchange.json")
    """Output file."""
    worker: str = ""
    """Of one of the processes: where its result goes."""
    exchange: str = "gradients"
    """Of one of the processes."""


def run_of(width: int, options: Options) -> npt.Run:
    return npt.Run(dataset="digits", network=f"fc(width={width}, depth=2)", epochs=options.epochs, batchsize=100,
                   rule=f"np(samples={options.samples}, difference=jvp)", lr=1e-3)  # fmt: skip


def sent() -> int:
    """Bytes that went over the loopback network since the machine started."""
    (line,) = [line for line in Path("/proc/net/dev").read_text().splitlines() if line.strip().startswith("lo:")]
    return int(line.split()[1])


class Counted(npt.Callback):
    """Bytes and seconds of the epochs after the first."""

    def __init__(self):
        self.at = []

    def on_epoch(self, run, row, state):
        self.at.append((sent(), time.perf_counter()))


def work(options: Options) -> None:
    """One process: train, and write what was seen."""
    from nodepert.training import processes

    processes.joined()
    counted, (width,) = Counted(), options.widths
    how = {"exchange": "slopes"} if options.exchange == "slopes" else {"spread_batch": True}
    result = npt.train(run_of(width, options), callbacks=[counted], **how)
    if processes.writes():
        (first, began), (last, ended) = counted.at[1], counted.at[-1]
        found = {"bytes": last - first, "seconds": ended - began, "rows": result.rows}
        Path(options.worker).write_text(json.dumps(found))


def measure(width: int, exchange: str, options: Options, alone: npt.Result) -> dict[str, object]:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    out, count = options.json.with_suffix(".part"), options.processes
    command = [sys.executable, __file__, "--worker", str(out), "--exchange", exchange, "--widths", str(width),
               "--samples", str(options.samples), "--epochs", str(options.epochs)]  # fmt: skip
    who = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": str(count), "JAX_NUM_CPU_DEVICES": "1"}
    started = [subprocess.Popen(command, env=os.environ | who | {"JAX_PROCESS_ID": str(i)}) for i in range(count)]
    statuses = [process.wait(timeout=900) for process in started]
    if any(statuses):
        raise SystemExit(f"a process failed (width {width}, exchange {exchange})")
    found = json.loads(out.read_text())
    out.unlink()
    steps = -(-1437 // 100) * (options.epochs - 1)  # of the measured epochs, an evaluation after each
    off = max(abs(a["train_loss"] / b["train_loss"] - 1) for a, b in zip(found["rows"], alone.rows, strict=True))
    weights = 64 * width + width * width + width * 10
    return {"width": width, "weights": weights, "exchange": exchange, "processes": count,
            "bytes": found["bytes"] / steps / count, "per_second": steps / found["seconds"], "off": off}  # fmt: skip


def main(options: Options) -> None:
    rows = []
    columns = {"weights": ("weights", ","), "exchange": ("exchange", ""), "bytes a step and process": ("bytes", ",.0f"),
               "updates/s": ("per_second", ".0f"), "off one process": ("off", ".1e")}  # fmt: skip
    about = facts("exchange", processes=options.processes, samples=options.samples)
    for width in options.widths:
        alone = npt.train(run_of(width, options))
        for exchange in ("gradients", "slopes"):
            rows.append(measure(width, exchange, options, alone))
            report(about, rows, columns, options.json)


if __name__ == "__main__":
    asked = tyro.cli(Options, description=__doc__)
    work(asked) if asked.worker else main(asked)
