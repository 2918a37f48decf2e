"""A training task as pure functions: initial state, one epoch, evaluation of both splits.

Everything numeric that may differ between runs (`Hyper`) is a traced argument, and rule and optimizer are built
inside the traced step: one compiled program serves any learning rate, sigma or seed, and many of them together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from nodepert.core import Array, Info, Loss, Model, Params, node_shapes, per_example
from nodepert.data.dataset import Dataset
from nodepert.errors import UserError
from nodepert.registry import make
from nodepert.training.hyper import Hyper

EVALUATION_BATCH = 500  # examples at a time; metrics do not depend on it, memory does


class State(NamedTuple):
    """Everything that training changes. Its buffers are donated: copy what must outlive the next epoch."""

    params: Params
    rule: Any
    opt: Any
    step: Array  # () int32, batches seen


class Program(NamedTuple):
    """Pure functions of one training task, not yet compiled; `data` is what `task_data` gives, on a device."""

    init: Callable[[Hyper, Any], State]
    order: Callable[[Array, Hyper, Any], Array]  # the shuffled examples of the epoch that begins at this step
    grads: Callable[
        [State, Hyper, Any, Array], tuple[Params, Any, Info]
    ]  # of the rule, on the examples of these indices
    step: Callable[[State, Hyper, Any, Array], tuple[State, Info]]  # one update, by these
    epoch: Callable[[State, Hyper, Any], tuple[State, Array]]  # and whether every batch's loss was finite
    evaluate: Callable[[Params, Hyper, Any], dict[str, Array]]


def program(
    model: Model, loss: Loss, *, batchsize: int, epochs: int, spread: Callable[[Any], Any] = lambda batch: batch
) -> Program:
    """Write the task as pure functions. Accuracies are in per cent, losses are means over a whole split.

    `spread` is applied to every batch, to divide its examples among devices.
    """

    def built(hyper, data):
        rule = make("rule", hyper.rule, model, loss)
        steps = epochs * math.ceil(len(data["train"][1]) / batchsize)
        shrink = optax.add_decayed_weights(-hyper.wd)  # after the optimizer, so that wd does not depend on lr
        return rule, rule.optimizer(optax.chain(make("optimizer", hyper.optimizer, hyper.lr, steps), shrink))

    def keys(hyper):
        """Of weights, rule state, noise and shuffling: one for each use, and the same ones for a seed."""
        return jax.random.split(jax.random.key(hyper.seed), 4)

    def trained(hyper, data):
        """The network that the rule trains."""
        adapted = make("rule", hyper.rule, model, loss).model
        return adapted(standardised(data, data["train"][0][:1])) if adapted else model

    def init(hyper, data):
        weights, rule_key, _, _ = keys(hyper)
        rule, optimizer = built(hyper, data)
        params = trained(hyper, data).init(weights)
        rule_state = rule.init(rule_key, params, standardised(data, data["train"][0][:1]))
        return State(params, rule_state, optimizer.init(params), jnp.int32(0))

    def order(begun, hyper, data):
        _, _, _, shuffle = keys(hyper)
        return jax.random.permutation(jax.random.fold_in(shuffle, begun), len(data["train"][1]))

    def grads(state, hyper, data, indices):
        pixels, labels = data["train"]
        rule, _ = built(hyper, data)
        _, _, noise, _ = keys(hyper)
        batch = spread((standardised(data, pixels[indices]), labels[indices]))
        return rule.grads(jax.random.fold_in(noise, state.step), state.rule, state.params, batch)

    def step(state, hyper, data, indices):
        _, optimizer = built(hyper, data)
        found, rule_state, info = grads(state, hyper, data, indices)
        updates, opt = optimizer.update(found, state.opt, state.params)
        return State(optax.apply_updates(state.params, updates), rule_state, opt, state.step + 1), info

    def epoch(state, hyper, data):
        def batch(carry, indices):
            state, info = step(carry[0], hyper, data, indices)
            return state, carry[1] & jnp.isfinite(info.loss).all()

        return over_batches(batch, (state, jnp.bool_(True)), order(state.step, hyper, data), batchsize)

    def evaluate(params, hyper, data):
        network = trained(hyper, data)

        def add(sums, batch):
            pixels, labels = spread(batch)
            outputs = network.apply(params, standardised(data, pixels))
            correct = (outputs.argmax(-1) == labels).astype(jnp.float32)
            return sums + jnp.stack([correct.sum(), per_example(loss, outputs, labels).sum()])

        def split(name):
            correct, losses = over_batches(add, jnp.zeros(2), data[name], EVALUATION_BATCH)
            n = len(data[name][1])
            return {f"{name}_acc": 100 * correct / n, f"{name}_loss": losses / n}

        return split("train") | split("test")

    return Program(init, order, grads, step, epoch, evaluate)


def over_batches(f: Callable[[Any, Any], Any], carry: Any, arrays: Any, batchsize: int) -> Any:
    """Fold `f(carry, batch) -> carry` over the leading axis of `arrays`; the last batch may be smaller."""
    n = len(jax.tree.leaves(arrays)[0])
    full, rest = divmod(n, batchsize)
    batches = jax.tree.map(lambda a: a[: full * batchsize].reshape(full, batchsize, *a.shape[1:]), arrays)
    carry, _ = jax.lax.scan(lambda c, b: (f(c, b), None), carry, batches)
    return f(carry, jax.tree.map(lambda a: a[n - rest :], arrays)) if rest else carry


def task_data(data: Dataset) -> dict[str, Any]:
    """The data as a program takes them: pixels stay uint8, and are standardised batch by batch."""
    return {
        "train": (data.train_x, data.train_y),
        "test": (data.test_x, data.test_y),
        "mean": data.mean,
        "std": data.std,
    }


def standardised(data: dict[str, Any], pixels: Array) -> Array:
    """(pixels - mean) / std in float32, channel by channel, with the training split's statistics."""
    return (pixels.astype(jnp.float32) - data["mean"]) / data["std"]


def rehearse(
    model: Model,
    loss: Loss,
    hypers: Sequence[Hyper],
    batch: Sequence[Any],
    *,
    batchsize: int,
    epochs: int,
    of: str = "",
) -> None:
    """Check everything that can be checked without data or computation, for replicas of one structure: their numbers,
    and one step, traced on `batch`, the shapes of (x, y) for a few examples. Raises UserError; of what fails in that
    step it says what it was a step `of`, by default the shape of its inputs."""
    if batchsize < 1:
        raise UserError(f"batchsize must be at least 1; got {batchsize}")
    if epochs < 0:
        raise UserError(f"epochs must not be negative; got {epochs}")
    for hyper in hypers:
        if not 0 <= hyper.lr < math.inf:
            raise UserError(f"lr (learning rate) must be finite and not negative; got {hyper.lr}")
        if not 0 <= hyper.wd < 1:
            raise UserError(f"wd (weight shrinkage per update) must be at least 0 and below 1; got {hyper.wd}")
        if not 0 <= hyper.seed < 2**31:
            raise UserError(f"seed must be in 0..2147483647; got {hyper.seed}")
        make("optimizer", hyper.optimizer, hyper.lr, 1)
        make("rule", hyper.rule, model, loss)
    rule = make("rule", hypers[0].rule, model, loss)

    def step(key, x, y):
        key, weights = jax.random.split(key)
        network = rule.model(x) if rule.model else model
        params = network.init(weights)
        node_shapes(network, params, x)  # every node has its own name, and keeps its examples apart
        return rule.grads(key, rule.init(key, params, x), params, (x, y))[0]

    try:
        jax.eval_shape(step, jax.random.key(0), *batch)
    except UserError:
        raise
    except ValueError as error:  # of the network, the rule or the loss, against its contract
        raise UserError(f"{error}{of}") from error
    except Exception as error:  # of a network or a rule of the user's own
        what = f"the network, the rule or the loss fails{of or f' on inputs of shape {tuple(batch[0].shape)}'}"
        raise UserError(f"{what}: {type(error).__name__}: {str(error).strip().partition(chr(10))[0]}") from error
