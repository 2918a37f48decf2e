"""What a further draw costs, relative to inference on the same batch: node perturbation, and low-rank weight noise."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import step

import nodepert as npt
from gpu_parts import Row, seconds, tried

RULES = {  # a draw of each
    "np": "np(samples={}, noise=rademacher)",
    "wp, rank 1, an own draw for each example": "wp(samples={}, rank=1, sharing=example)",
}
FEW, MANY = 2, 18


def rows(toy: bool) -> Iterator[Row]:
    batch = 20 if toy else 1000
    for network, shape in (("fc(width=20)", (8, 8, 1)),) if toy else (("fc", (28, 28, 1)), ("conv", (32, 32, 3))):
        step.SETTINGS[network] = (shape, batch)
        yield from tried(network, lambda n=network: rates(n))


def rates(network: str) -> Iterator[Row]:
    shape, batch = step.SETTINGS[network]
    model = npt.make_model(network, shape, 10)
    x, params = jax.random.normal(jax.random.key(0), (batch, *shape)), model.init(jax.random.key(1))
    with jax.default_matmul_precision("highest"):  # as the passes of a draw
        inference = seconds(jax.jit(model.apply), params, x)
    yield Row(f"{network}, batch {batch}: inference in float32", batch / inference, "examples/s")
    for name, rule in RULES.items():
        times = []
        for samples in (FEW, MANY):
            compiled, state, _ = step.compiled_step(network, rule.format(samples))
            times.append(seconds(compiled, *state))
        each = (times[1] - times[0]) / (MANY - FEW)
        yield Row(f"{network}, batch {batch}: {name}", inference / each, "draws per inference", f"{1e3 * each:.3g} ms")
