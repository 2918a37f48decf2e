"""The learning rate of each rule, as `compare --tune` finds it: score on held-out examples, by network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro
from common import facts, report

import nodepert as npt

RULES = ("sgd", "np", "np(samples=8)", "inp", "anp", "wp", "fa", "dfa", "opzo", "guess", "usf", "kp", "dtp",
         "decorrelate(np)")  # fmt: skip


@dataclass(frozen=True)
class Options:
    dataset: str = "mnist5k"
    """Data set."""
    data_dir: Path | None = None
    """Where data sets are."""
    networks: tuple[str, ...] = ("fc(width=100)",)
    """Networks."""
    rules: tuple[str, ...] = RULES
    """Rules."""
    loss: str = "cross-entropy"
    """Loss."""
    optimizer: str = "adam(schedule=cosine)"
    """Optimizer."""
    epochs: int = 10
    """Epochs of a trial."""
    trials: int = 12
    """Trials of each rule and network."""
    json: Path = Path("rates.json")
    """Where the rows go."""


def measure(network: str, rule: str, options: Options, data: npt.Dataset) -> dict:
    """One row: the best rate, its score, the score at the default rate, and the lowest and highest rate within 2% of
    the best score."""
    run = npt.Run(dataset=options.dataset, network=network, rule=rule, loss=options.loss, optimizer=options.optimizer,
                  epochs=options.epochs)  # fmt: skip
    found = npt.tune(run, trials=options.trials, data=data)
    near = [trial["lr"] for trial in found.trials if trial["score"] >= found.score - 2]
    print(f"{network}, {rule}: {found.lr:g}, {found.score:.1f}", flush=True)
    return {"network": network, "rule": rule, "lr": found.lr, "score": found.score, "low": min(near), "high": max(near),
            "at_edge": found.at_edge, "passes": found.passes, "trials": found.trials}  # fmt: skip


def main(options: Options) -> None:
    data = npt.load_dataset(options.dataset, options.data_dir)
    rows = [measure(network, rule, options, data) for network in options.networks for rule in options.rules]
    columns = {"network": ("network", ""), "rule": ("rule", ""), "lr": ("lr", "g"), "score": ("score", ".1f"),
               "within 2 from": ("low", "g"), "to": ("high", "g")}  # fmt: skip
    about = {"dataset": options.dataset, "loss": options.loss, "optimizer": options.optimizer, "epochs": options.epochs}
    report(facts("rates", **about), rows, columns, options.json)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
