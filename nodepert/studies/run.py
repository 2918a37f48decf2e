"""What a run is: one flat record of everything that decides its result, and nothing else."""

from __future__ import annotations

import hashlib
import json
import numbers
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from nodepert.errors import UserError
from nodepert.registry import check, entry, full, to_float


@dataclass(frozen=True)
class Task:
    """What is to be learned, by which network, for how long."""

    dataset: str = "mnist"
    """Data set, as a spec: mnist, mnist5k, 'cifar10(train=2000)' (the first 2,000 examples). See 'nodepert list'."""
    network: str = "fc"
    """Network, as a spec: fc, 'fc(width=500, depth=2)', linfc, conv, conv-large."""
    loss: str = "auto"
    """Per-example loss: mse, linear-mse, cross-entropy; 'auto': the network's own (linear-mse for linfc, else mse)."""
    batchsize: int = 100
    """Examples per update."""
    epochs: int = 10
    """Passes over the training data."""
    wd: float = 0.0
    """Weight shrinkage per update, decoupled from the learning rate: W <- (1 - wd) W."""
    seed: int = 0
    """Seed of weights, shuffling and noise."""


@dataclass(frozen=True)
class Run(Task):
    """One training run: a task, a rule and an optimizer. Its identity is `run_id(run)`."""

    rule: str = "np"
    """Learning rule, as a spec: sgd (backprop), np, 'np(samples=4, noise=rademacher)', 'np; out=exact', wp, fa, ...
    See 'nodepert list rules'."""
    optimizer: str = "adam(schedule=cosine)"
    """Optimizer, as a spec: sgd, momentum, adam, rmsprop, each with schedule=constant or cosine; 'normalise(adam)'."""
    lr: float = 3e-4
    """Learning rate of the optimizer (its first value, under a schedule)."""


def checked(run: Run) -> Run:
    """The run with canonical specs and the loss chosen. Raises UserError for a wrong type, name or argument."""
    for field in fields(run):
        value, kind = getattr(run, field.name), str(field.type)
        real = isinstance(value, numbers.Real) and not isinstance(value, bool)  # numpy's as well
        if kind == "float" and real:
            run = replace(run, **{field.name: to_float(field.name, value)})
        elif kind == "int" and real and isinstance(value, numbers.Integral):
            run = replace(run, **{field.name: int(value)})
        elif type(value).__name__ != kind:
            raise UserError(f"{field.name} must be {_NOUNS[kind]}; got {value!r}")
    network = check("network", run.network)
    inner = network
    while inner.args:  # a combinator: the loss of what it goes around
        inner = inner.args[0]
    loss = entry("network", inner.name).loss if run.loss == "auto" else run.loss
    specs = {"dataset": run.dataset, "loss": loss, "rule": run.rule, "optimizer": run.optimizer}
    return replace(run, network=str(network), **{kind: str(check(kind, spec)) for kind, spec in specs.items()})


def run_id(run: Run) -> str:
    """Twelve hex digits of a hash of the full configuration, every default written out."""
    text = json.dumps(complete(run), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def complete(run: Run) -> dict[str, Any]:
    """The full configuration as plain values: specs with every default written out."""
    run = checked(run)
    specs = {kind: str(full(kind, getattr(run, kind))) for kind in ("dataset", "network", "loss", "rule", "optimizer")}
    return asdict(run) | specs


def from_dict(values: Any) -> Run:
    """A run from plain values, as `complete` gives them. Raises UserError for unknown or missing names and types."""
    known = {f.name for f in fields(Run)}
    if not isinstance(values, dict) or not all(isinstance(k, str) for k in values):
        raise UserError("a configuration is a table of option names and values")
    if unknown := sorted(set(values) - known):
        raise UserError(f"unknown option{'s' * (len(unknown) > 1)} {', '.join(unknown)}; "
                        f"there are: {', '.join(sorted(known))}")  # fmt: skip
    if missing := sorted(known - set(values)):
        raise UserError(f"it lacks {', '.join(missing)}")
    return checked(Run(**values))


_NOUNS = {"str": "a text", "int": "a whole number", "float": "a number"}
