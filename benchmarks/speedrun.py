"""Seconds, epochs and forward passes to a test accuracy, for each rule at its own setting.

    python benchmarks/speedrun.py                           # every row on MNIST, three seeds; speedrun.json
    python benchmarks/speedrun.py --dataset fmnist --rows sgd "np, 16 draws, chain"

All rows train 784-500-500-10 (ReLU) with cross-entropy and Adam with cosine decay, each at its own learning rate, batch
and number of epochs (ROWS). Each row is also one command, which the table's page shows. Seconds are of training and
evaluation, without compilation; "-": not reached by every seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import tyro
from common import facts, report

import nodepert as npt
from nodepert.registry import passes
from nodepert.training.metrics import mean_error, with_error


class Row(NamedTuple):
    """The setting of a row."""

    rule: str
    lr: float = 1e-3
    epochs: int = 15
    batchsize: int = 100
    wd: float = 0.0


REDUCED = "noise=orthogonal, active=True, head=evaluated"
ROWS = {
    "sgd": Row("sgd"),
    "dfa": Row("dfa"),
    "np": Row("np(noise=rademacher)", 3e-4),
    "np, 8 draws": Row("np(samples=8, noise=rademacher)", 5e-4),
    "np, 16 draws, active, head": Row(f"np(samples=16, {REDUCED})", 1e-3, 10),
    "np, 8 draws, feedback": Row(f"np(samples=8, {REDUCED}, guide=feedback)", 1e-3, 6),
    "np, 16 draws, chain, 5 epochs": Row(f"np(samples=16, {REDUCED}, guide=chain(rate=1e-3))", 1e-3, 5),
    "np, 16 draws, chain": Row(f"np(samples=16, {REDUCED}, guide=chain(rate=1e-3))", 1e-3, 20),
    "np, 4 draws, chain": Row(f"np(samples=4, {REDUCED}, guide=chain(rate=1e-3))", 1e-3, 8),
    "np, 4 draws, kp": Row(f"np(samples=4, {REDUCED}, guide=kp)", 1e-3, 8),
    "np, 16 draws, chain, decay": Row(f"np(samples=16, {REDUCED}, guide=chain(rate=1e-3))", 1e-3, 25, wd=5e-5),
}
TARGETS = {"mnist": (90.0, 95.0, 97.0, 97.5, 98.0, 98.4), "fmnist": (85.0, 88.0, 89.0, 90.0),
           "cifar10": (40.0, 50.0, 60.0, 70.0)}  # fmt: skip


@dataclass
class Options:
    rows: tuple[str, ...] = tuple(ROWS)
    """Rows; a subset of ROWS."""
    dataset: str = "mnist"
    """Data set."""
    network: str = "fc(width=500, depth=2)"
    """Network."""
    seeds: int = 3
    """Runs of each row."""
    epochs: int | None = None
    """Epochs of every row, in place of its own."""
    targets: tuple[float, ...] = ()
    """Test accuracies, per cent; default: those of the data set in TARGETS."""
    data_dir: str | None = None
    """Directory of the data files."""
    json: Path = Path("speedrun.json")
    """Output file."""


def measure(name: str, options: Options, data: npt.Dataset) -> dict[str, Any]:
    """One row: the setting, final accuracies, and means over seeds of epochs, passes and seconds to each target."""
    setting = ROWS[name]
    epochs = options.epochs or setting.epochs
    found = []
    for seed in range(options.seeds):  # one after another: each has the whole machine
        run = npt.Run(dataset=options.dataset, network=options.network, loss="cross-entropy", rule=setting.rule,
                      lr=setting.lr, epochs=epochs, batchsize=setting.batchsize, wd=setting.wd, seed=seed)  # fmt: skip
        found.append(npt.train(run, data=data).rows)
    final = [rows[-1]["test_acc"] for rows in found]
    seconds = [sum(row["epoch_time"] for row in rows) for rows in found]
    row: dict[str, Any] = {"row": name, **setting._asdict(), "epochs": epochs, "test_acc": final}
    row |= {"test": with_error(*mean_error(final)), "seconds": with_error(*mean_error(seconds))}
    steps = -(-len(data.train_y) // setting.batchsize)
    for target in targets(options):
        at = [next((r["epoch"] for r in rows if r["test_acc"] >= target), None) for rows in found]
        reached = [e for e in at if e is not None]
        complete = len(reached) == len(found)
        row[f"epochs_to_{target:g}"] = sum(reached) / len(reached) if complete else None
        cost = passes(setting.rule)
        row[f"passes_to_{target:g}"] = sum(reached) / len(reached) * steps * cost if complete and cost else None
        row[f"seconds_to_{target:g}"] = _mean_seconds(found, reached) if complete else None
    return row


def _mean_seconds(found: list[list[dict[str, Any]]], reached: list[int]) -> float:
    sums = [sum(r["epoch_time"] for r in rows[: epoch + 1]) for rows, epoch in zip(found, reached, strict=True)]
    return sum(sums) / len(sums)


def targets(options: Options) -> tuple[float, ...]:
    return options.targets or TARGETS.get(options.dataset, (90.0,))


def main(options: Options) -> None:
    data = npt.load_dataset(options.dataset, options.data_dir)
    rows = []
    columns = {
        "row": ("row", ""),
        "lr": ("lr", "g"),
        "epochs": ("epochs", ""),
        "test %": ("test", ""),
        "s": ("seconds", ""),
    }
    columns |= {f"s to {target:g}%": (f"seconds_to_{target:g}", ".1f") for target in targets(options)}
    about = facts("speedrun", dataset=options.dataset, network=options.network, seeds=options.seeds)
    for name in options.rows:
        rows.append(measure(name, options, data))
        report(about, rows, columns, options.json)  # after each row: it takes minutes


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
