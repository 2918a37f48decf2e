"""Peak temporary memory of a training step against depth and batch size, from XLA's analysis of the compiled step.

    python benchmarks/memory.py                # the table, and memory.json
    python benchmarks/memory.py --depths 8 32 128 --no-time

A step is a rule's gradient and plain gradient descent, with parameters updated in place; inference is the forward pass.
Times (such as `np(replay=True)` relative to `np`) are medians of interleaved repeats, at the smallest depth.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import jax
import tyro
from common import facts, report

import nodepert as npt
from nodepert.training.devices import compiler_options

INFERENCE = "inference"
RULES = ("sgd", "np", "np(replay=True)", "np(noise=rademacher)", "np(noise=rademacher, replay=True)",
         "np(samples=4, replay=True)", "np(difference=jvp, replay=True)")  # fmt: skip


@dataclass
class Options:
    rules: tuple[str, ...] = RULES
    """Rules; inference is always included."""
    depths: tuple[int, ...] = (8, 32)
    """Hidden layers."""
    batches: tuple[int, ...] = (100, 1000)
    """Examples."""
    width: int = 1000
    """Units per layer."""
    repeats: int = 5
    """Interleaved repeats of each time."""
    time: bool = True
    """Also measure times."""
    json: Path = Path("memory.json")
    """Output file."""


def compiled(rule: str, width: int, depth: int, batch: int):
    """(the compiled step, its arguments)."""
    model, loss = npt.make_model(f"fc(width={width}, depth={depth})", (28, 28, 1), 10), npt.make_loss("mse")
    keys = jax.random.split(jax.random.key(0), 4)
    data = jax.random.normal(keys[0], (batch, 28, 28, 1)), jax.random.randint(keys[1], (batch,), 0, 10)
    params = jax.jit(model.init)(keys[2])
    if rule == INFERENCE:
        forward = jax.jit(lambda params, key, batch: model.apply(params, batch[0]))
        return forward.lower(params, keys[3], data).compile(), (params, keys[3], data)
    grads = npt.make_rule(rule, model, loss).grads

    def step(params, key, batch):
        found, _, info = grads(key, (), params, batch)
        return jax.tree.map(lambda p, g: p - 1e-3 * g, params, found), info.loss.mean()

    jitted = jax.jit(step, donate_argnums=0, compiler_options=compiler_options())
    return jitted.lower(params, keys[3], data).compile(), (params, keys[3], data)


def temporaries(options: Options, rule: str, depth: int, batch: int) -> dict:
    program, _ = compiled(rule, options.width, depth, batch)
    analysis = program.memory_analysis()
    assert analysis is not None
    return {"rule": rule, "depth": depth, "batchsize": batch, "temporary_mb": analysis.temp_size_in_bytes / 1e6}


def times(options: Options) -> dict[str, float]:
    """{rule: milliseconds of its step}, at the smallest depth and the largest batch."""
    rules = [rule for rule in options.rules if rule != INFERENCE]
    programs = {rule: compiled(rule, options.width, min(options.depths), max(options.batches)) for rule in rules}
    states = {rule: arguments for rule, (_, arguments) in programs.items()}
    found: dict[str, list[float]] = {rule: [] for rule in rules}
    for repeat in range(options.repeats + 1):
        for rule, (program, _) in programs.items():
            _, key, data = states[rule]
            start = time.perf_counter()
            params, loss = program(*states[rule])
            jax.block_until_ready(loss)
            jax.block_until_ready(params)
            if repeat:  # the first one warms up
                found[rule].append(1e3 * (time.perf_counter() - start))
            states[rule] = params, key, data
    return {rule: statistics.median(values) for rule, values in found.items()}


def main(options: Options) -> None:
    took = times(options) if options.time else {}
    rows = []
    for batch in options.batches:
        for rule in (INFERENCE, *options.rules):
            found = [temporaries(options, rule, depth, batch) for depth in options.depths]
            for row in found:
                timed = (row["depth"], batch) == (min(options.depths), max(options.batches))
                rows.append(row | {"ms": took.get(rule) if timed else None})
    backprop = {(r["depth"], r["batchsize"]): r["temporary_mb"] for r in rows if r["rule"] == "sgd"}
    for row in rows:
        row["over_sgd"] = row["temporary_mb"] / backprop[row["depth"], row["batchsize"]]
    columns = {
        "batch": ("batchsize", ""),
        "rule": ("rule", ""),
        "depth": ("depth", ""),
        "temporaries (MB)": ("temporary_mb", ".1f"),
        "/ sgd": ("over_sgd", ".2f"),
        "step (ms)": ("ms", ".0f"),
    }
    report(facts("memory", width=options.width, repeats=options.repeats), rows, columns, options.json)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
