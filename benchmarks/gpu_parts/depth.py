"""Temporary memory of a step against depth, from XLA's analysis of the compiled step."""

from __future__ import annotations

from collections.abc import Iterator

import memory

from gpu_parts import Row, tried

RULES = (memory.INFERENCE, "sgd", "np", "np(replay=True)")


def rows(toy: bool) -> Iterator[Row]:
    depths, batch = ((1, 2), 10) if toy else ((8, 32), 1000)
    options = memory.Options(width=8 if toy else 1000)
    for rule in RULES:
        yield from tried(rule, lambda r=rule: against_depth(options, r, depths, batch))


def against_depth(options: memory.Options, rule: str, depths: tuple[int, int], batch: int) -> Iterator[Row]:
    shallow, deep = (memory.temporaries(options, rule, depth, batch)["temporary_mb"] for depth in depths)
    yield Row(f"{rule}, depth {depths[1]}", deep, "MB", f"{shallow:.1f} at depth {depths[0]}")
