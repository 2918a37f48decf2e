"""A training task as pure functions: initial state, one update, the batches of an epoch, evaluation of both splits.

Everything numeric that may differ between runs (`Hyper`) is a traced argument, and rule and optimizer are built
inside the traced step: one compiled program serves any learning rate, sigma or seed, and many of them together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nodepert.contract.losses import graded
from nodepert.core import Array, Info, Loss, Model, Params, Rule, differentiate, node_params, per_example
from nodepert.data.dataset import Dataset, is_wide, standardise
from nodepert.data.targets import units
from nodepert.registry import make
from nodepert.rules.exchange import measured as apart
from nodepert.rules.noise import key_of
from nodepert.rules.update import started, updated
from nodepert.training.hyper import Hyper
from nodepert.training.metrics import Metric, measured
from nodepert.training.updates import Sums, Update

SPLITS = ("train", "val", "test")
EVALUATION_BATCH = 500  # examples at a time; metrics do not depend on it, memory does


class State(NamedTuple):
    """Everything that training changes. Its buffers are donated: copy what must outlive the next epoch."""

    params: Params
    rule: Any
    opt: Any
    step: Array  # () int32, batches seen


Carry: TypeAlias = tuple[State, dict[str, Array]]  # an epoch under way: the state, and totals


@dataclass(frozen=True)
class Program:
    """Pure functions of one training task, not yet compiled.

    `data` is what `task_data` gives, on a device. `spread` is applied to every batch, to divide its examples among
    devices. Accuracies are in per cent, losses are means over a whole split, in time over its graded steps.
    """

    model: Model
    loss: Loss
    batchsize: int
    epochs: int
    spread: Callable[[Any], Any] = lambda batch: batch
    metrics: Mapping[str, Metric] = field(default_factory=measured)

    @property
    def of_examples(self) -> dict[str, Metric]:
        """The metrics that are means over the examples of a split."""
        return {name: metric for name, metric in self.metrics.items() if metric.example}

    @property
    def of_updates(self) -> dict[str, Metric]:
        """The metrics that are means over the updates of an epoch."""
        return {name: metric for name, metric in self.metrics.items() if metric.update}

    def sums(self, data: Any) -> Sums:
        """Their sums over the updates of an epoch."""
        return Sums(self.of_updates, self.steps(data))

    def init(self, hyper: Hyper, data: Any) -> State:
        """The state before training."""
        weights, rule_key, _, _ = _keys(hyper)
        rule, optimizer = self._built(hyper, data)
        params = self._network(hyper, data).init(weights)
        rule_state = rule.init(rule_key, params, standardised(data, data["train"][0][:1]))
        return State(params, rule_state, started(optimizer, params), jnp.int32(0))

    def order(self, start: Array, hyper: Hyper, data: Any) -> Array:
        """The shuffled training examples of the epoch that starts at this step."""
        _, _, _, shuffle = _keys(hyper)
        return jax.random.permutation(jax.random.fold_in(shuffle, start), len(data["train"][1]))

    def batch(self, data: Any, indices: Array) -> tuple[Array, Array]:
        """The training examples of these indices, standardised, and their targets."""
        pixels, labels = data["train"]
        return self.spread((standardised(data, pixels[indices]), labels[indices]))

    def grads(
        self, state: State, hyper: Hyper, data: Any, indices: Array, draw: Array | None = None
    ) -> tuple[Params, Any, Info]:
        """What the rule gives on the examples of these indices: (gradient, rule state, Info). `draw`: the number of the
        noise, by default that of the step."""
        rule, _ = self._built(hyper, data)
        _, _, noise, _ = _keys(hyper)
        key = jax.random.fold_in(noise, state.step if draw is None else draw)
        return rule.grads(key, state.rule, state.params, self.batch(data, indices))

    def update(self, state: State, hyper: Hyper, data: Any, indices: Array) -> tuple[State, Params, Params, Info]:
        """One update on these examples: (state after it, gradient, change of the params, Info)."""
        _, optimizer = self._built(hyper, data)
        found, rule_state, info = self.grads(state, hyper, data, indices)
        params, updates, opt = updated(optimizer, found, state.opt, state.params)
        return State(params, rule_state, opt, state.step + 1), found, updates, info

    def step(self, state: State, hyper: Hyper, data: Any, indices: Array) -> tuple[State, Info]:
        """One update on these examples, with the Info of its clean pass."""
        after, _, _, info = self.update(state, hyper, data, indices)
        return after, info

    def measured(self, sums: Any, at: tuple[Any, ...], hyper: Hyper, data: Any, indices: Array, other: Array, i: Any):
        """Add update i to the sums; `at`: state before, gradient, change, Info; `other`: examples of another batch."""
        state, found, updates, info = at
        network, adapted = self._network(hyper, data), make("rule", hyper.rule, self.model, self.loss).model
        one = standardised(data, data["train"][0][:1])

        def part(node: str) -> Callable[[Params], Any]:
            if node:
                return lambda tree: node_params(network, tree, one)[node]
            return (lambda tree: node_params(network, tree, one)) if adapted else lambda tree: tree  # only weights

        def update() -> Update:
            exact = cache(lambda: differentiate(network, self.loss, state.params, self.batch(data, indices))[0])
            draw = jnp.uint32(2**31) + state.step.astype("uint32")  # of no step
            again = cache(lambda: self.grads(state, hyper, data, other, draw)[0])
            return Update(found, updates, state.params, info, exact, again)

        return self.sums(data).add(sums, update, part, i)

    def steps(self, data: Any) -> int:
        """Batches in an epoch; the last one may be smaller."""
        return math.ceil(len(data["train"][1]) / self.batchsize)

    def totals(self) -> dict[str, Array]:
        """At the start of an epoch: whether all losses are "finite", and the sum of each metric over the updates."""
        return {"finite": jnp.array(True)} | Sums(self.of_updates, 1).filled(0)

    def batches(self, carry: Carry, hyper: Hyper, data: Any, order: Array, first: Any, last: Any) -> Carry:
        """The updates of batches first to last - 1 of an epoch. Traced numbers: one program, and the same bits, however
        the epoch is divided."""
        full, rest = divmod(len(order), self.batchsize)

        def at(i: Any) -> Array:
            return jax.lax.dynamic_slice_in_dim(order, i * self.batchsize, self.batchsize)

        def batch(i: Any, indices: Array, carry: Carry) -> Carry:
            before, totals = carry
            state, found, updates, info = self.update(before, hyper, data, indices)
            finite = totals["finite"] & jnp.isfinite(info.loss).all()
            update = before, found, updates, info
            sums = self.measured(totals, update, hyper, data, indices, at((i + 1) % full), i) if self.of_updates else {}
            return state, {"finite": finite} | sums

        carry = jax.lax.fori_loop(first, jnp.minimum(last, full), lambda i, carry: batch(i, at(i), carry), carry)
        if not rest:
            return carry
        return jax.lax.cond(last > full, lambda: batch(full, order[full * self.batchsize :], carry), lambda: carry)

    def evaluate(self, params: Params, hyper: Hyper, data: Any) -> dict[str, Array]:
        """The metrics that examples have, over all splits that the data have."""
        network = self._network(hyper, data)
        several = {name for name, metric in self.of_examples.items() if metric.of_mean}
        found = {}
        for split in (split for split in SPLITS if split in data):
            measures = {name: m.example for name, m in self.of_examples.items() if m.example and m.split == split}

            def add(sums, batch, measures=measures):
                pixels, labels = self.spread(batch)
                outputs = apart(lambda x, _: network.apply(params, standardised(data, x)), pixels, ())
                losses = per_example(self.loss, outputs, labels)
                each = {name: measure(outputs, labels, losses) for name, measure in measures.items()}
                return {name: sums[name] + e.sum(tuple(range(e.ndim - (name in several)))) for name, e in each.items()}

            targets = data[split][1]
            start = {name: jnp.zeros(targets.shape[-1:] if name in several else ()) for name in measures}
            sums = over_batches(add, start, data[split], EVALUATION_BATCH)
            steps = graded(targets)
            n, units = len(targets) if steps is None else steps.sum(), data["units"].get(split)
            for name, total in sums.items():
                metric = self.metrics[name]
                found[name] = metric.of_mean(total / n, units) if metric.of_mean else metric.scale * total / n
        return found

    def _built(self, hyper: Hyper, data: Any) -> tuple[Rule, optax.GradientTransformation]:
        rule = make("rule", hyper.rule, self.model, self.loss)
        steps = self.epochs * self.steps(data)
        shrink = optax.add_decayed_weights(-hyper.wd)  # after the optimizer, so that wd does not depend on lr
        return rule, rule.optimizer(optax.chain(make("optimizer", hyper.optimizer, hyper.lr, steps), shrink))

    def _network(self, hyper: Hyper, data: Any) -> Model:
        """The network that the rule trains."""
        adapted = make("rule", hyper.rule, self.model, self.loss).model
        return adapted(standardised(data, data["train"][0][:1])) if adapted else self.model


def _keys(hyper: Hyper) -> Array:
    """Keys of weights, rule state, noise and shuffling: one for each use, and the same ones for a seed."""
    return jax.random.split(key_of(hyper.seed), 4)


def over_batches(f: Callable[[Any, Any], Any], carry: Any, arrays: Any, batchsize: int) -> Any:
    """Fold `f(carry, batch) -> carry` over the leading axis of `arrays`; the last batch may be smaller."""
    n = len(jax.tree.leaves(arrays)[0])
    full, rest = divmod(n, batchsize)
    batches = jax.tree.map(lambda a: a[: full * batchsize].reshape(full, batchsize, *a.shape[1:]), arrays)
    if full:
        carry, _ = jax.lax.scan(lambda c, b: (f(c, b), None), carry, batches)
    return f(carry, jax.tree.map(lambda a: a[n - rest :], arrays)) if rest else carry


def task_data(data: Dataset) -> dict[str, Any]:
    """The data as a program takes them: pixels stay uint8, and are standardised batch by batch."""
    mean, std = data.mean, data.std
    splits = {split: (x, data.targets(y)) for split, (x, y) in data.splits.items()}
    if is_wide(mean):  # only the host has the precision
        splits = {split: (data.standardised(x), y) for split, (x, y) in splits.items()}
        mean, std = np.zeros(mean.shape, np.float32), np.ones(std.shape, np.float32)
    own = {split: units(y, data.target_std) for split, (_, y) in splits.items()} if data.target_std is not None else {}
    return {**splits, "mean": mean, "std": std, "units": own}


def standardised(data: Mapping[str, Any], pixels: Array) -> Array:
    """Inputs standardised with the statistics of the training split."""
    return standardise(pixels, data["mean"], data["std"])
