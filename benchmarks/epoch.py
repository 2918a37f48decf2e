"""An epoch with evaluation and data, relative to a plain loop that takes the same batches from numpy.

    python benchmarks/epoch.py                 # fc on MNIST: the table, and epoch.json
    python benchmarks/epoch.py --dataset mnist5k --rules np sgd

The plain loop is the simplest implementation: for each batch of a shuffled epoch it takes the images from the uint8
arrays, standardizes them in numpy and calls a jitted step; then it calls a jitted evaluation for each batch of both
splits and accumulates the sums on the device. "Prepared" is the same with all images standardized in advance, outside
the measured time. Model, rule, optimizer and batch sizes are those of NodePert's epoch. "Products" is the lower bound
for fully connected networks: only the compiled matrix products of the epoch, on one batch already on the device.
Repeats are interleaved; results are medians.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from common import facts, report

import nodepert as npt
from nodepert.studies.setup import prepare
from nodepert.training.devices import compiler_options
from nodepert.training.program import EVALUATION_BATCH
from nodepert.training.replicas import fit_all


@dataclass
class Options:
    rules: tuple[str, ...] = ("sgd", "np", "np(noise=rademacher)")
    """Rules to time."""
    networks: tuple[str, ...] = ("fc", "fc(width=100)")
    """Networks."""
    dataset: str = "mnist"
    """Data set."""
    batchsize: int = 100
    """Examples per update."""
    repeats: int = 7
    """Interleaved repeats; the result is their median."""
    data_dir: str | None = None
    """Directory of the data files."""
    json: Path = Path("epoch.json")
    """Output file."""


def plain_loop(run: npt.Run, data: npt.Dataset, prepared: bool) -> Callable[[], float]:
    """A function that trains another epoch by a Python loop over batches and returns the seconds."""

    def standardised(x: np.ndarray) -> np.ndarray:
        return (x.astype(np.float32) - data.mean) / data.std

    def images(x: np.ndarray) -> np.ndarray:  # a batch
        return x if prepared else standardised(x)

    model, loss = npt.make_model(run.network, data.train_x.shape[1:], data.classes), npt.make_loss("mse")
    rule, optimizer = npt.make_rule(run.rule, model, loss), optax.adam(run.lr)
    splits = [(data.train_x, data.train_y), (data.test_x, data.test_y)]
    splits = [(standardised(x), y) for x, y in splits] if prepared else splits

    @jax.jit
    def step(params, opt, key, number, x, y):
        grads, _, _ = rule.grads(jax.random.fold_in(key, number), (), params, (x, y))
        updates, opt = optimizer.update(grads, opt, params)
        return optax.apply_updates(params, updates), opt

    @jax.jit
    def evaluate(params, sums, x, y):
        outputs = model.apply(params, x)
        return sums + jnp.stack([(outputs.argmax(-1) == y).sum(), loss(outputs, y).sum()])

    state = {"params": model.init(jax.random.key(0))}
    state["opt"] = optimizer.init(state["params"])
    key, rng = jax.random.key(1), np.random.default_rng(0)

    def epoch() -> float:
        start = time.perf_counter()
        x, y = splits[0]
        order = rng.permutation(len(y))
        for number, i in enumerate(range(0, len(y), run.batchsize)):
            at = order[i : i + run.batchsize]
            state["params"], state["opt"] = step(state["params"], state["opt"], key, number, images(x[at]), y[at])
        metrics = []
        for x, y in splits:
            sums = jnp.zeros(2)
            for i in range(0, len(y), EVALUATION_BATCH):
                sums = evaluate(state["params"], sums, images(x[i : i + EVALUATION_BATCH]), y[i : i + EVALUATION_BATCH])
            metrics.append(np.asarray(sums) / len(y))
        return time.perf_counter() - start

    epoch()
    return epoch


def our_trainer(run: npt.Run, data: npt.Dataset) -> Callable[[], float]:
    """A function that trains another epoch by the trainer and returns the seconds."""
    _, _, model, loss, data, hypers = prepare([run], data)[0]
    epochs = fit_all(model, loss, data, hypers, batchsize=run.batchsize, epochs=1000)
    for _ in range(2):
        next(epochs)
    return lambda: next(epochs).rows[0]["epoch_time"]


def products(run: npt.Run, data: npt.Dataset) -> Callable[[], float]:
    """A function that returns the seconds of an epoch's matrix products: forward, backward (or noisy forward), weight
    gradients, evaluation."""
    params = npt.make_model(run.network, data.train_x.shape[1:], data.classes).init(jax.random.key(0))
    weights = [leaf for leaf in jax.tree.leaves(params) if leaf.ndim == 2]
    keys = jax.random.split(jax.random.key(1), 2)
    inputs = weights[0].shape[0]
    batch = jax.random.normal(keys[0], (run.batchsize, inputs))
    held_out = jax.random.normal(keys[1], (EVALUATION_BATCH, inputs))
    steps = len(data.train_y) // run.batchsize
    evaluations = (len(data.train_y) + len(data.test_y)) // EVALUATION_BATCH

    def step(weights, _):
        activities = [batch]
        for w in weights:
            activities.append(activities[-1] @ w)
        signal, updated = activities.pop(), []
        for w in reversed(weights):
            updated.append(w - 1e-9 * activities.pop().T @ signal)
            signal = signal @ w.T
        return updated[::-1], None

    def evaluate(x, weights):
        for w in weights:
            x = x @ w
        return x.sum()

    def epoch(weights):
        weights, _ = jax.lax.scan(step, weights, None, length=steps)
        one = lambda total, _: (total + evaluate(held_out + total * 1e-9, weights), None)  # noqa: E731
        return weights, jax.lax.scan(one, jnp.zeros(()), None, length=evaluations)[0]

    compiled = jax.jit(epoch, compiler_options=compiler_options())

    def seconds() -> float:
        start = time.perf_counter()
        jax.block_until_ready(compiled(weights))
        return time.perf_counter() - start

    seconds()
    return seconds


def measure(network: str, rule: str, options: Options, data: npt.Dataset) -> dict:
    """One row: seconds of an epoch of each kind, and the ratio of each loop to the trainer."""
    run = npt.Run(dataset=options.dataset, network=network, rule=rule, loss="mse", batchsize=options.batchsize)
    kinds = [our_trainer(run, data), plain_loop(run, data, prepared=False), plain_loop(run, data, prepared=True)]
    kinds += [products(run, data)] if run.network.startswith("fc") else []
    times = [[epoch() for epoch in kinds] for _ in range(options.repeats)]
    seconds = [statistics.median(column) for column in zip(*times, strict=True)]
    ratios = [statistics.median(row[kind] / row[0] for row in times) for kind in (1, 2)]
    row = {"network": run.network, "rule": rule, "ours_s": seconds[0], "plain_s": seconds[1], "prepared_s": seconds[2]}
    floor = {"products_s": None, "plain_over_products": None}
    if len(kinds) > 3:
        floor = {"products_s": seconds[3], "plain_over_products": statistics.median(row[1] / row[3] for row in times)}
    return row | {"plain_over_ours": ratios[0], "prepared_over_ours": ratios[1]} | floor


def main(options: Options) -> None:
    data = npt.load_dataset(options.dataset, options.data_dir)
    rows = [measure(network, rule, options, data) for network in options.networks for rule in options.rules]
    columns = {
        "network": ("network", ""),
        "rule": ("rule", ""),
        "NodePert (s)": ("ours_s", ".2f"),
        "plain loop (s)": ("plain_s", ".2f"),
        "/ NodePert": ("plain_over_ours", ".2f"),
        "prepared (s)": ("prepared_s", ".2f"),
        "prepared / NodePert": ("prepared_over_ours", ".2f"),
        "products (s)": ("products_s", ".2f"),
        "plain / products": ("plain_over_products", ".2f"),
    }
    report(facts("epoch", repeats=options.repeats, dataset=options.dataset), rows, columns, options.json)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
