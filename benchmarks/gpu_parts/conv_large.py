"""The large convolutional network of the original code on CIFAR-10: examples per second, share of the matmul peak."""

from __future__ import annotations

from collections.abc import Iterator

import epoch
import step
from common import matmul_rate

import nodepert as npt
from gpu_parts import Row, data_here, tried

BATCHES = (20, 100, 500)


def rows(toy: bool) -> Iterator[Row]:
    network, shape = ("conv", (8, 8, 3)) if toy else ("conv-large", (32, 32, 3))
    rate = matmul_rate(128 if toy else 4096)
    yield Row("peak: a square product in the default precision", rate / 1e12, "TFLOP/s")
    for batch in (4,) if toy else BATCHES:
        yield from tried(f"batch {batch}", lambda b=batch: steps(network, shape, b, rate, toy))
    if not toy:
        yield from tried("epoch of CIFAR-10", trained)


def steps(network: str, shape: tuple[int, ...], batch: int, rate: float, toy: bool) -> Iterator[Row]:
    step.SETTINGS[network] = (shape, batch)
    options = step.Options(rules=("np(noise=rademacher)",), repeats=2 if toy else 7, seconds=0.005 if toy else 0.05)
    for row in step.measure(network, options, rate):
        note = f"{row['of_matmul_rate']:.0%} of the peak, {row['over_sgd']:.2f} of sgd"
        yield Row(f"{network}, batch {batch}: {row['rule']}", row["examples_per_s"], "examples/s", note)


def trained() -> Iterator[Row]:
    run = npt.Run(dataset="cifar10", network="conv-large", rule="np(noise=rademacher)", batchsize=100)
    data = data_here("cifar10")
    took = epoch.our_trainer(run, data)()
    yield Row("cifar10, conv-large: an epoch with evaluation", took, "s", f"{len(data.train_y) / took:,.0f} examples/s")
