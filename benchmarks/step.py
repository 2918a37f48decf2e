"""Time of one training step of each rule relative to backpropagation, per network.

    python benchmarks/step.py                                   # the table, and step.json
    python benchmarks/step.py --networks fc --rules "np(difference=jvp)" --repeats 50

A step is the gradient estimate and plain gradient descent, compiled, on data already on the device. Repeats are
interleaved (every rule once, then again), and the result is the median over repeats of rule / sgd, so that changes in
the speed of the machine affect both. The fraction of the matmul rate is the number of operations that XLA counts in the
compiled step, divided by its time and by the rate of a large square product on the same device. Memory is from XLA's
analysis of the compiled step: temporaries, and the total.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import jax
import tyro
from common import facts, matmul_rate, report

import nodepert as npt
from nodepert.training.devices import compiler_options

SETTINGS: dict[str, tuple[tuple[int, ...], int]] = {  # network: (input shape, batch size), those of the original code
    "fc": ((28, 28, 1), 100),
    "linfc": ((28, 28, 1), 100),
    "conv": ((32, 32, 3), 100),
    "conv-large": ((32, 32, 3), 20),
}
RULES = (
    "np",
    "np(noise=rademacher)",
    "np(difference=central)",
    "np(difference=jvp)",
    "np(noise=rademacher, difference=jvp)",
    "np(sharing=batch)",
    "np(samples=4, noise=rademacher)",
)


@dataclass
class Options:
    networks: tuple[str, ...] = ("fc", "conv", "conv-large")
    """Networks to time."""
    rules: tuple[str, ...] = RULES
    """Rules to time; sgd is always included."""
    repeats: int = 20
    """Interleaved repeats; the result is their median."""
    seconds: float = 0.1
    """Minimum duration of one measurement, which sets its number of steps."""
    json: Path = Path("step.json")
    """Output file."""


def compiled_step(network: str, rule: str):
    """The compiled step, its first arguments, and from XLA: operations, bytes of temporaries, total bytes."""
    shape, batchsize = SETTINGS[network]
    model, loss = npt.make_model(network, shape, 10), npt.make_loss("mse")
    rule_ = npt.make_rule(rule, model, loss)
    keys = jax.random.split(jax.random.key(0), 3)
    batch = jax.random.normal(keys[0], (batchsize, *shape)), jax.random.randint(keys[1], (batchsize,), 0, 10)
    params = model.init(keys[2])

    def step(params, key, batch):
        grads, _, _ = rule_.grads(key, (), params, batch)
        return jax.tree.map(lambda p, g: p - 1e-3 * g, params, grads), jax.random.fold_in(key, 1)

    compiled = jax.jit(step, compiler_options=compiler_options()).lower(params, keys[0], batch).compile()
    memory = compiled.memory_analysis()
    assert memory is not None
    whole = memory.temp_size_in_bytes + memory.argument_size_in_bytes + memory.output_size_in_bytes
    operations = (compiled.cost_analysis() or {}).get("flops", 0.0)
    return (lambda p, k: compiled(p, k, batch)), (params, keys[0]), (operations, memory.temp_size_in_bytes, whole)


def seconds_per_step(step, state, steps: int) -> float:
    start = time.perf_counter()
    for _ in range(steps):
        state = step(*state)
    jax.block_until_ready(state)
    return (time.perf_counter() - start) / steps


def measure(network: str, options: Options, rate: float) -> list[dict]:
    """One row per rule: milliseconds, ratio to sgd, examples per second, fraction of the matmul rate, memory."""
    steps = {rule: compiled_step(network, rule) for rule in ("sgd", *options.rules)}
    counts = {}
    for rule, (step, state, _) in steps.items():
        seconds_per_step(step, state, 2)
        counts[rule] = max(1, round(options.seconds / seconds_per_step(step, state, 2)))
    times = {rule: [] for rule in steps}
    for _ in range(options.repeats):
        for rule, (step, state, _) in steps.items():
            times[rule].append(seconds_per_step(step, state, counts[rule]))
    rows = []
    for rule, (_, _, (operations, temporary, whole)) in steps.items():
        median = statistics.median(times[rule])
        rows.append({
            "network": network,
            "batchsize": SETTINGS[network][1],
            "rule": rule,
            "ms": 1e3 * median,
            "over_sgd": statistics.median(a / b for a, b in zip(times[rule], times["sgd"], strict=True)),
            "examples_per_s": SETTINGS[network][1] / median,
            "of_matmul_rate": operations / median / rate,
            "temporary_mb": temporary / 1e6,
            "memory_mb": whole / 1e6,
        })  # fmt: skip
    return rows


def main(options: Options) -> None:
    rate = matmul_rate()
    rows = [row for network in options.networks for row in measure(network, options, rate)]
    columns = {
        "network": ("network", ""),
        "rule": ("rule", ""),
        "ms": ("ms", ".2f"),
        "/ sgd": ("over_sgd", ".2f"),
        "examples/s": ("examples_per_s", ",.0f"),
        "of matmul rate": ("of_matmul_rate", ".0%"),
        "temporaries (MB)": ("temporary_mb", ".1f"),
        "all memory (MB)": ("memory_mb", ".1f"),
    }
    report(facts("step", repeats=options.repeats, matmul_rate=rate), rows, columns, options.json)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
