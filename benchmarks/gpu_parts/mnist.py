"""An epoch of MNIST with its evaluation, and the best rows of the speedrun."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

import epoch
import speedrun

import nodepert as npt
from gpu_parts import Row, data_here, tried

ORIGINAL = 2.0  # seconds of an epoch of the original code, on 2 CPU cores
RUN_ROWS = ("np, 8 draws, feedback", "np, 16 draws, chain, 5 epochs", "sgd")


def rows(toy: bool) -> Iterator[Row]:
    dataset, network = ("mnist5k(train=200, test=50)", "fc(width=20)") if toy else ("mnist", "fc")
    for rule in ("np", "np(noise=rademacher)", "sgd")[: 1 if toy else None]:
        yield from tried(f"epoch: {rule}", lambda r=rule: an_epoch(dataset, network, r, 2 if toy else 5))
    for name in RUN_ROWS[: 1 if toy else None]:
        yield from tried(f"speedrun: {name}", lambda n=name: sprint(n, dataset, network, toy))


def an_epoch(dataset: str, network: str, rule: str, repeats: int) -> Iterator[Row]:
    run = npt.Run(dataset=dataset, network=network, rule=rule, loss="mse")
    train = epoch.our_trainer(run, data_here(dataset))
    took = statistics.median(train() for _ in range(repeats))
    note = f"1/{ORIGINAL / took:.0f} of the original code's {ORIGINAL:g} s" if dataset == "mnist" else ""
    yield Row(f"{dataset}, {network}: epoch of {rule}", took, "s", note)


def sprint(name: str, dataset: str, network: str, toy: bool) -> Iterator[Row]:
    options = speedrun.Options(dataset=dataset, seeds=1, epochs=1 if toy else None)
    options.network = network if toy else options.network
    row = speedrun.measure(name, options, data_here(dataset))
    reached = [(t, row[f"seconds_to_{t:g}"]) for t in speedrun.targets(options)]
    best = max(((t, s) for t, s in reached if s is not None), default=None)
    note = f"{best[1]:.2g} s to {best[0]:g}%" if best else ""
    yield Row(
        f"{name}: {row['epochs']} epochs", row["test_acc"][0], "% right", f"{row['seconds']} s, {note}".strip(", ")
    )
