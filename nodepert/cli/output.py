"""What a command prints: its result, as text or as JSON, and while it works progress and remarks."""

from __future__ import annotations

import json as json_
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from nodepert.training.metrics import finite_or_none


@dataclass(frozen=True)
class Output:
    """What is printed."""

    quiet: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print errors and the result alone: no progress, no remarks."""
    json: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Print the result as JSON, and nothing else."""

    @property
    def brief(self) -> bool:
        return self.quiet or self.json

    @contextmanager
    def working(self) -> Iterator[None]:
        """What is printed inside is progress and remarks."""
        if not self.brief:
            yield
            return
        with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(nowhere):
            yield

    def show(self, text: Callable[[], None], found: Callable[[], Any]) -> None:
        """Print the result: `text` prints it, and `found` gives it as plain values for JSON."""
        if self.json:
            print(json_.dumps(plain(found()), indent=2, allow_nan=False))
        else:
            text()


def plain(value: Any) -> Any:
    """A value as JSON has it: paths as text, null for what is not finite."""
    if isinstance(value, Mapping):
        return {str(key): plain(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, Path):
        return str(value)
    return plain(value.tolist()) if hasattr(value, "tolist") else finite_or_none(value)
