"""A training step of np relative to backpropagation, on four networks."""

from __future__ import annotations

from collections.abc import Iterator

import step
from common import matmul_rate

from gpu_parts import Row, tried

BOTH = ("np", "np(noise=rademacher)")
MORE = ("np(samples=4, noise=rademacher)", "np(samples=16, noise=rademacher)", "np(replay=True)")
RULES = {"fc": BOTH + MORE, "conv": BOTH + MORE[:1], "conv-large": BOTH, "mixer": BOTH}
TOY = {"fc(width=20)": ((8, 8, 1), 10), "mixer(width=12, groups=3, blocks=1)": ((8, 8, 3), 4)}


def rows(toy: bool) -> Iterator[Row]:
    step.SETTINGS |= TOY if toy else {}
    rate = matmul_rate(128 if toy else 4096)
    for network in TOY if toy else RULES:
        rules = ("np", MORE[2]) if toy else RULES[network]
        yield from tried(network, lambda n=network, r=rules: ratios(n, r, toy, rate))


def ratios(network: str, rules: tuple[str, ...], toy: bool, rate: float) -> Iterator[Row]:
    options = step.Options(rules=rules, repeats=3 if toy else 15, seconds=0.005 if toy else 0.03)
    for row in step.measure(network, options, rate):
        note = f"{row['ms']:.3g} ms, {row['of_matmul_rate']:.0%} of the matmul rate"
        yield Row(f"{network}: {row['rule']}, over sgd", row["over_sgd"], "", note)
