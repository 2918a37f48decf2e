"""Training: one compiled program per epoch, whole evaluations compiled as well, rows out.

Everything numeric that may differ between runs (`Hyper`) is a traced argument, and rule and optimizer are built
inside the traced step: the same program serves another learning rate, sigma or seed, and can be vmapped over them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nodepert.core import Array, Key, Loss, Model, Params, node_shapes, per_example
from nodepert.data.dataset import Dataset
from nodepert.registry import Spec, UserError, make

Row = dict[str, Any]
Epochs = Iterator[tuple[Row, "State"]]
EVALUATION_BATCH = 500  # examples at a time; metrics do not depend on it, memory does


def _flatten(spec: Spec):
    items = [*enumerate(spec.args), *spec.kwargs]
    traced = [not isinstance(v, int | str | None) for _, v in items]  # floats, and specs that hold some
    leaves = [v for (_, v), t in zip(items, traced, strict=True) if t]
    return leaves, (spec.name, tuple((k, None if t else v, t) for (k, v), t in zip(items, traced, strict=True)))


def _unflatten(structure, leaves) -> Spec:
    name, items = structure
    leaves = iter(leaves)
    values = [(k, next(leaves) if traced else v) for k, v, traced in items]
    args = tuple(v for k, v in values if isinstance(k, int))
    return Spec(name, args, tuple(values[len(args) :]))


# A spec's float arguments are leaves and the rest is structure: specs of one structure share a compiled program.
jax.tree_util.register_pytree_node(Spec, _flatten, _unflatten)


class Hyper(NamedTuple):
    """What may be traced, hence differ between runs of one program. `wd`: W <- (1 - wd) W after each step."""

    rule: Spec
    optimizer: Spec
    lr: float
    wd: float = 0.0
    seed: int = 0


class State(NamedTuple):
    """Everything that training changes. Its buffers are donated: copy what must outlive the next epoch."""

    params: Params
    rule: Any
    opt: Any
    step: Array  # () int32, batches seen
    noise: Key
    shuffle: Key


class Program(NamedTuple):
    """Pure functions of one training task, not yet compiled; `data` is what `on_device` gives."""

    init: Callable[[Hyper, Any], State]
    epoch: Callable[[State, Hyper, Any], tuple[State, Array]]  # and whether every batch's loss was finite
    evaluate: Callable[[Params, Hyper, Any], dict[str, Array]]


def program(model: Model, loss: Loss, *, batchsize: int, epochs: int) -> Program:
    """Write the task as pure functions. Accuracies are in per cent, losses are means over a whole split."""

    def built(hyper, data):
        rule = make("rule", hyper.rule, model, loss)
        steps = epochs * math.ceil(len(data["train"][1]) / batchsize)
        shrink = optax.add_decayed_weights(-hyper.wd)  # after the optimizer, so that wd does not depend on lr
        return rule, rule.optimizer(optax.chain(make("optimizer", hyper.optimizer, hyper.lr, steps), shrink))

    def trained(hyper, data):
        """The network that the rule trains."""
        adapted = make("rule", hyper.rule, model, loss).model
        return adapted(standardised(data, data["train"][0][:1])) if adapted else model

    def init(hyper, data):
        weights, rule_key, noise, shuffle = jax.random.split(jax.random.key(hyper.seed), 4)
        rule, optimizer = built(hyper, data)
        params = trained(hyper, data).init(weights)
        rule_state = rule.init(rule_key, params, standardised(data, data["train"][0][:1]))
        return State(params, rule_state, optimizer.init(params), jnp.int32(0), noise, shuffle)

    def epoch(state, hyper, data):
        pixels, labels = data["train"]
        rule, optimizer = built(hyper, data)

        def step(carry, indices):
            state, finite = carry
            batch = standardised(data, pixels[indices]), labels[indices]
            key = jax.random.fold_in(state.noise, state.step)
            grads, rule_state, info = rule.grads(key, state.rule, state.params, batch)
            updates, opt = optimizer.update(grads, state.opt, state.params)
            params = optax.apply_updates(state.params, updates)
            state = State(params, rule_state, opt, state.step + 1, state.noise, state.shuffle)
            return state, finite & jnp.isfinite(info.loss).all()

        order = jax.random.permutation(jax.random.fold_in(state.shuffle, state.step), len(labels))
        return over_batches(step, (state, jnp.bool_(True)), order, batchsize)

    def evaluate(params, hyper, data):
        network = trained(hyper, data)

        def add(sums, batch):
            pixels, labels = batch
            outputs = network.apply(params, standardised(data, pixels))
            correct = (outputs.argmax(-1) == labels).astype(jnp.float32)
            return sums + jnp.stack([correct.sum(), per_example(loss, outputs, labels).sum()])

        def split(name):
            correct, losses = over_batches(add, jnp.zeros(2), data[name], EVALUATION_BATCH)
            n = len(data[name][1])
            return {f"{name}_acc": 100 * correct / n, f"{name}_loss": losses / n}

        return split("train") | split("test")

    return Program(init, epoch, evaluate)


def over_batches(f: Callable[[Any, Any], Any], carry: Any, arrays: Any, batchsize: int) -> Any:
    """Fold `f(carry, batch) -> carry` over the leading axis of `arrays`; the last batch may be smaller."""
    n = len(jax.tree.leaves(arrays)[0])
    full, rest = divmod(n, batchsize)
    batches = jax.tree.map(lambda a: a[: full * batchsize].reshape(full, batchsize, *a.shape[1:]), arrays)
    carry, _ = jax.lax.scan(lambda c, b: (f(c, b), None), carry, batches)
    return f(carry, jax.tree.map(lambda a: a[n - rest :], arrays)) if rest else carry


def on_device(data: Dataset) -> dict[str, Any]:
    """The data as arrays of the default device: pixels stay uint8, and are standardised batch by batch."""
    return jax.device_put({
        "train": (data.train_x, data.train_y),
        "test": (data.test_x, data.test_y),
        "mean": data.mean,
        "std": data.std,
    })  # fmt: skip


def standardised(data: dict[str, Any], pixels: Array) -> Array:
    """(pixels - mean) / std in float32, channel by channel, with the training split's statistics."""
    return (pixels.astype(jnp.float32) - data["mean"]) / data["std"]


def fit(model: Model, loss: Loss, data: Dataset, hyper: Hyper, *, batchsize: int, epochs: int) -> Epochs:
    """Train, and yield (row, state) before training (epoch 0) and after every epoch.

    A row has epoch, epoch_time (seconds of training and evaluation, compilation left out), train_acc, test_acc
    (per cent), train_loss, test_loss. When a loss is not finite the row says so (`diverged(row)`) and is the last.
    A state is valid until the next row is asked for. Same arguments, same machine: the same bits.

    Raises UserError for sizes and rates out of range, ValueError for a model or loss that breaks its contract.
    """
    shapes = jax.ShapeDtypeStruct((2, *data.train_x.shape[1:]), "float32"), jax.ShapeDtypeStruct((2,), "int32")
    rehearse(model, loss, hyper, shapes, batchsize=batchsize, epochs=epochs)  # complain now, not at the first row
    if batchsize > len(data.train_y):
        raise UserError(f"batchsize must be at most the {len(data.train_y):,} training examples; got {batchsize}")
    return _epochs(program(model, loss, batchsize=batchsize, epochs=epochs), model, data, hyper, epochs)


def rehearse(model: Model, loss: Loss, hyper: Hyper, batch: Sequence[Any], *, batchsize: int, epochs: int) -> None:
    """Check everything that can be checked without data or computation: `batch` is the shapes of (x, y) for a few
    examples, on which one step is traced. Raises UserError."""
    if batchsize < 1:
        raise UserError(f"batchsize must be at least 1; got {batchsize}")
    if epochs < 0:
        raise UserError(f"epochs must not be negative; got {epochs}")
    if not 0 <= hyper.lr < math.inf:
        raise UserError(f"lr (learning rate) must be finite and not negative; got {hyper.lr}")
    if not 0 <= hyper.wd < 1:
        raise UserError(f"wd (weight shrinkage per update) must be at least 0 and below 1; got {hyper.wd}")
    if not 0 <= hyper.seed < 2**31:
        raise UserError(f"seed must be in 0..2147483647; got {hyper.seed}")
    make("optimizer", hyper.optimizer, hyper.lr, 1)
    rule = make("rule", hyper.rule, model, loss)

    def step(key, x, y):
        key, weights = jax.random.split(key)
        network = rule.model(x) if rule.model else model
        params = network.init(weights)
        node_shapes(network, params, x)  # every node has its own name, and keeps its examples apart
        return rule.grads(key, rule.init(key, params, x), params, (x, y))[0]

    try:
        jax.eval_shape(step, jax.random.key(0), *batch)
    except ValueError as error:  # of the network, the rule or the loss, against its contract
        raise error if isinstance(error, UserError) else UserError(str(error)) from error


def _epochs(task: Program, model: Model, data: Dataset, hyper: Hyper, epochs: int) -> Epochs:
    arrays = on_device(data)
    hyper = jax.tree.map(jnp.asarray, hyper)
    state = jax.jit(task.init)(hyper, arrays)
    evaluate = jax.jit(task.evaluate).lower(state.params, hyper, arrays).compile()
    epoch = jax.jit(task.epoch, donate_argnums=0).lower(state, hyper, arrays).compile()
    row = _row(0, 0.0, True, evaluate(state.params, hyper, arrays))
    yield row, state
    if diverged(row):
        return
    for number in range(1, epochs + 1):
        start = time.perf_counter()
        state, finite = epoch(state, hyper, arrays)
        finite, metrics = _fetch((finite, evaluate(state.params, hyper, arrays)))
        row = _row(number, time.perf_counter() - start, bool(finite), metrics)
        yield row, state
        if diverged(row):
            return


def diverged(row: Row) -> bool:
    """Whether a loss of this row is not finite."""
    return not (math.isfinite(row["train_loss"]) and math.isfinite(row["test_loss"]))


def _row(epoch: int, seconds: float, finite: bool, metrics: dict[str, Any]) -> Row:
    row = {"epoch": epoch, "epoch_time": seconds}
    row |= {name: round(float(metrics[name]), 4) for name in ("train_acc", "test_acc")}  # counts in float32
    row |= {name: float(metrics[name]) for name in ("train_loss", "test_loss")}
    return row if finite else row | {"train_loss": math.nan}


def _fetch(tree: Any) -> Any:
    """Bring results to the host: the one transfer of an epoch. Waits in Python, where Ctrl-C is heard."""
    while not all(leaf.is_ready() for leaf in jax.tree.leaves(tree)):
        time.sleep(0.001)
    return jax.tree.map(np.asarray, jax.device_get(tree))
