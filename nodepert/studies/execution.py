"""How runs are executed: one value, passed whole from the command line to a worker. Nothing here changes a result."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from nodepert.errors import UserError, did_you_mean
from nodepert.registry import check, plain
from nodepert.training.metrics import measured

Exchange: TypeAlias = Literal["gradients", "slopes"]


@dataclass(frozen=True)
class Execution:
    """How runs are executed.

    Raises:
        UserError: For a value out of range, or an unknown tracker or metric.
    """

    data_dir: Path | None = None
    """Folder of the data files; else NODEPERT_DATA_DIR, the user's cache, then a download."""
    checkpoint_every: float = 60.0
    """Seconds between checkpoints, from which interrupted runs resume; 0 for one after every epoch."""
    log: tuple[str, ...] = ()
    """Send rows to trackers as well: tensorboard, wandb, as specs. See 'nodepert list trackers'."""
    metrics: tuple[str, ...] = ()
    """Further metrics of the updates: grad_norm, update_norm, weight_norm, alignment, signal_to_noise; of single nodes:
    alignment/fc0, 'alignment/*'. See 'nodepert list metrics'."""
    lanes: int | None = None
    """Replicas that are vectorised on each device; by default all on a GPU, one on a CPU."""
    memory: float | None = field(default=None, metadata={"metavar": "BYTES"})
    """Bytes for one program on each device, as in 8e9; by default what is free."""
    spread_batch: bool = False
    """For one large run: spread each batch over all devices. (Several runs are spread over them anyway.)"""
    exchange: Exchange = "gradients"
    """What the devices of one large run send each other: gradients, or slopes, which do not grow with the network: each
    device sends the noisy losses of its own examples, and computes the whole update."""

    def __post_init__(self):
        for f in fields(self):
            object.__setattr__(self, f.name, plain(getattr(self, f.name)))
        for name in ("log", "metrics"):
            value = getattr(self, name)
            object.__setattr__(self, name, (value,) if isinstance(value, str) else tuple(value))
        if self.data_dir is not None:
            object.__setattr__(self, "data_dir", Path(self.data_dir))
        if not 0 <= self.checkpoint_every < math.inf:
            raise UserError(f"checkpoint_every is in seconds, finite and not negative; got {self.checkpoint_every}")
        if self.lanes is not None and self.lanes < 1:
            raise UserError(f"lanes must be at least 1; got {self.lanes}")
        if self.memory is not None and not 0 < self.memory < math.inf:
            raise UserError(f"memory is in bytes, finite and above 0; got {self.memory}")
        if self.exchange not in get_args(Exchange):
            raise UserError(f"exchange must be gradients or slopes; got {self.exchange!r}")
        for spec in self.log:
            check("tracker", spec)
        measured(self.metrics)

    @property
    def one_run(self) -> str:
        """The option by which a single run is spread over all devices, or nothing."""
        return "exchange=slopes" if self.exchange == "slopes" else "spread_batch" if self.spread_batch else ""

    def check_runs(self, runs: Sequence[Any]) -> None:
        """Raise UserError where these runs cannot be executed so."""
        if self.one_run and len(runs) > 1:
            raise UserError(f"{self.one_run} needs a single run; got {len(runs)} (several runs are spread over the "
                            "devices anyway)")  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """Plain values; paths are absolute, since a worker has another working folder."""
        return asdict(self) | {"data_dir": self.data_dir and str(self.data_dir.absolute())}


def execution_of(base: Execution | None = None, **options: Any) -> Execution:
    """An `Execution` with some options changed. Raises UserError for an option that does not exist."""
    known = [f.name for f in fields(Execution)]
    for name in options:
        if name not in known:
            raise UserError(f"unknown option '{name}'{did_you_mean(name, known)}; there are: {', '.join(known)}")
    return Execution(**({f.name: getattr(base, f.name) for f in fields(base)} if base else {}) | options)
