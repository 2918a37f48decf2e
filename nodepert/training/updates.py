"""An update as metrics see it, in all or at one node, and their sums over an epoch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from nodepert.core import Info, Params
from nodepert.training.metrics import SAMPLED, Metric


class Update(NamedTuple):
    """One update: the estimated gradient, the change of params, params before, the rule's Info; the exact gradient of
    its examples; another estimate at the same params, of other examples and with other noise."""

    grads: Params
    updates: Params
    params: Params
    info: Info
    exact: Callable[[], Params]
    again: Callable[[], Params]

    def of(self, part: Callable[[Params], Params]) -> Update:
        """The same of a part of the parameters."""
        return self._replace(
            grads=part(self.grads), updates=part(self.updates), params=part(self.params),
            exact=lambda: part(self.exact()), again=lambda: part(self.again()),
        )  # fmt: skip


class Sums(NamedTuple):
    """Sums of metrics over the updates of an epoch, of which there are `steps`."""

    metrics: Mapping[str, Metric]
    steps: int

    @property
    def stride(self) -> int:
        """Expensive metrics are measured in the first of so many updates."""
        return max(1, self.steps // SAMPLED)

    def filled(self, value: float) -> dict[str, Any]:
        return {name: jnp.full(metric.shape, value, jnp.float32) for name, metric in self.metrics.items()}

    def add(self, sums: Mapping[str, Any], update: Callable[[], Update], part: Callable[[str], Any], i: Any) -> Any:
        """The sums with update i. `update()` is called where it is measured, so that nothing else is computed;
        `part(node)` is the function that takes the parameters of a node, of "" those of all, from a pytree."""

        def measured(sampled: bool) -> dict[str, Any]:
            now = update()
            found = {name: (m.update, m.node) for name, m in self.metrics.items() if m.sampled == sampled}
            return {name: sums[name] + jnp.float32(f(now.of(part(node)))) for name, (f, node) in found.items() if f}

        before = {name: sums[name] for name, metric in self.metrics.items() if metric.sampled}
        if not before:
            return measured(sampled=False)
        due = i % self.stride == 0
        return measured(sampled=False) | jax.lax.cond(due, lambda: measured(sampled=True), lambda: before)

    def means(self, sums: Mapping[str, Any]) -> dict[str, Any]:
        """The metrics of the epoch."""
        found = {}
        for name, metric in self.metrics.items():
            mean = sums[name] / (-(-self.steps // self.stride) if metric.sampled else self.steps)
            found[name] = metric.of_mean(mean, None) if metric.of_mean else mean
        return found
