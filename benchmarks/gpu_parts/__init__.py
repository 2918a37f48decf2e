"""The parts of `gpu.py`: one file each, with a function `rows(toy) -> Iterator[Row]`; rows are saved one by one."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax

import nodepert as npt
from nodepert.data import status


class Row(NamedTuple):
    """A line of the summary; without a value, the note says why."""

    what: str
    value: float | None = None
    unit: str = ""
    note: str = ""
    ok: bool = True


class NoData(Exception):
    """A data set that is not on this machine."""


def tried(what: str, measure: Callable[[], Iterator[Row]], optional: bool = False) -> Iterator[Row]:
    """The rows of `measure`; if it fails, a row with the reason, so that the next measurement runs.

    `optional`: what not every device can do.
    """
    try:
        yield from measure()
    except ImportError as error:
        yield Row(what, note=f"not installed: {error.name or error}")
    except NoData as error:
        yield Row(what, note=f"no data: {error}")
    except Exception as error:  # out of memory, a compiler's error: one measurement of many
        text = str(error).strip().split("\n")[0][:100]
        yield Row(what, note=f"{'not here' if optional else 'failed'}: {type(error).__name__}: {text}", ok=optional)


def data_here(name: str) -> npt.Dataset:
    """A data set without a download. Raises NoData if its files are not on this machine."""
    if not next(here for found, here, _ in status() if found == name.split("(")[0]):
        raise NoData(name)
    return npt.load_dataset(name)


def seconds(f: Callable[..., Any], *arguments: Any, repeats: int = 5, at_least: float = 0.05) -> float:
    """Seconds of one call of a compiled function: the median over repeats, each of at least so many seconds."""

    def took(calls: int) -> float:
        start = time.perf_counter()
        for _ in range(calls):
            result = f(*arguments)
        jax.block_until_ready(result)
        return (time.perf_counter() - start) / calls

    took(1)
    calls = max(1, round(at_least / took(1)))
    return statistics.median(took(calls) for _ in range(repeats))
