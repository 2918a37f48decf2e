"""Epochs and seconds of training to reach a test accuracy, per rule, on MNIST.

    python benchmarks/time_to_accuracy.py                   # the table, and time_to_accuracy.json
    python benchmarks/time_to_accuracy.py --epochs 40

All rules train 784-500-500-10 (ReLU) with cross-entropy, batch 100 and Adam with cosine decay over `epochs`, each at
its own learning rate (see RULES). Seconds include evaluation but not compilation; "-": not reached. One seed: the
number of epochs to a target varies by one or two between seeds.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from common import facts, report

import nodepert as npt

RULES = {  # rule: learning rate
    "sgd": 1e-3,
    "np(noise=rademacher)": 3e-4,
    "np(samples=8, noise=rademacher)": 5e-4,
    "np(noise=rademacher); out=exact": 1e-3,
    "decorrelate(np(noise=rademacher))": 1e-3,
    "wp": 1e-3,
    "dfa": 1e-3,
}


@dataclass
class Options:
    rules: tuple[str, ...] = tuple(RULES)
    """Rules; a subset of RULES."""
    epochs: int = 15
    """Epochs of each run."""
    targets: tuple[float, ...] = (90.0, 95.0, 97.0)
    """Test accuracies, per cent."""
    dataset: str = "mnist"
    """Data set."""
    data_dir: str | None = None
    """Directory of the data files."""
    json: Path = Path("time_to_accuracy.json")
    """Output file."""


def measure(rule: str, options: Options, data: npt.Dataset) -> dict[str, Any]:
    """One row: final accuracy, seconds per epoch, and epochs and seconds to each target."""
    run = npt.Run(dataset=options.dataset, network="fc(width=500, depth=2)", loss="cross-entropy", rule=rule,
                  lr=RULES[rule], epochs=options.epochs)  # fmt: skip
    rows = npt.train(run, data=data).rows
    row: dict[str, Any] = {"rule": rule, "lr": run.lr, "test_acc": rows[-1]["test_acc"]}
    row["epoch_s"] = sum(r["epoch_time"] for r in rows) / options.epochs
    for target in options.targets:
        reached = next((r["epoch"] for r in rows if r["test_acc"] >= target), None)
        row[f"epochs_to_{target:g}"] = reached
        row[f"seconds_to_{target:g}"] = None if reached is None else sum(r["epoch_time"] for r in rows[: reached + 1])
    return row


def main(options: Options) -> None:
    data = npt.load_dataset(options.dataset, options.data_dir)
    rows = [measure(rule, options, data) for rule in options.rules]
    columns = {"rule": ("rule", ""), "lr": ("lr", "g"), "test %": ("test_acc", ".2f"), "s/epoch": ("epoch_s", ".2f")}
    for target in options.targets:
        columns[f"{target:g}%: epochs"] = (f"epochs_to_{target:g}", "")
        columns["s" + " " * len(columns)] = (f"seconds_to_{target:g}", ".1f")
    report(facts("time_to_accuracy", dataset=options.dataset, epochs=options.epochs), rows, columns, options.json)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
