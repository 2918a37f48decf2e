"""The change of the loss by one update W - lr g, over draws of batch and noise and over learning rates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from nodepert.core import Array, Params, per_example
from nodepert.errors import UserError
from nodepert.experiments.shared.tasks import Task
from nodepert.registry import make
from nodepert.registry.spec import Spec
from nodepert.rules.noise import key_of
from nodepert.training.program import standardised

Losses = Callable[[Params], Any]  # params -> the loss of every example, (examples,), of one set or a dict of sets
Update = Callable[[Array], tuple[Params, Losses]]  # key -> (gradient, losses that judge it): one draw


def one_step_change(params: Params, update: Update, lrs: Array, keys: Array, lanes: int = 1) -> Any:
    """L(W - lr g) - L(W), averaged over the examples of L: (draws, learning rates), of each set that `update` names.

    `lanes` learning rates are vectorised; draws follow one another, so that memory does not grow with them. The
    difference is taken example by example: that of two means would lose small steps to rounding.
    """

    def draw(key):
        grads, losses = update(key)
        before = losses(params)

        def at(lr):
            after = losses(jax.tree.map(lambda w, g: w - lr * g, params, grads))
            return jax.tree.map(lambda new, old: (new - old).mean(), after, before)

        return jax.lax.map(at, lrs, batch_size=lanes if lanes > 1 else None)

    return jax.lax.map(draw, keys)


def update_of(task: Task, rule: Spec, state: Any, params: Params, data: Any) -> Update:
    """Updates of a rule on batches of the training split, judged by their own "batch" and by the "test" split.

    `data` is `training.task_data`, `state` the rule's own; to be called inside a compiled function.
    """
    built = make("rule", rule, task.model, task.loss)
    unseen, labels = standardised(data, data["test"][0]), data["test"][1]

    def update(key):
        chosen, noise = jax.random.split(key)
        pixels, targets = data["train"]
        indices = jax.random.choice(chosen, len(targets), (task.batchsize,), replace=False)
        x, y = standardised(data, pixels[indices]), targets[indices]
        grads, _, _ = built.grads(noise, state, params, (x, y))

        def losses(params):
            return {"batch": per_example(task.loss, task.model.apply(params, x), y),
                    "test": per_example(task.loss, task.model.apply(params, unseen), labels)}  # fmt: skip

        return grads, losses

    return update


def rule_state(task: Task, rule: Spec, params: Params, data: Any, seed: int) -> Any:
    """The initial state of a rule on a trained network."""
    x = standardised(data, data["train"][0][:1])
    return make("rule", rule, task.model, task.loss).init(key_of(seed), params, x)


def refuse_adapting(rules: Sequence[str]) -> None:
    """Raise UserError for unknown rules, and for rules that add parameters to the network: their update is not W - lr g
    of the network itself."""
    tiny = make("network", "fc(width=2)", (2, 2, 1), 2)
    for rule in rules:
        if make("rule", rule, tiny, lambda outputs, y: jnp.square(outputs).sum(-1)).model:
            raise UserError(f"'{rule}' adds parameters to the network; give rules that train the network itself")
