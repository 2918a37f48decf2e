"""The cost of an update, by analysis: multiplications in units of a forward pass, and memory."""

from __future__ import annotations

from math import prod
from typing import Any

import jax
import numpy as np

from nodepert.experiments.experiment import Row
from nodepert.experiments.shared.tasks import Task
from nodepert.rules.noise import key_of
from nodepert.training import devices
from nodepert.training.hyper import Hyper, stacked
from nodepert.training.multiplications import multiplications
from nodepert.training.program import Program, standardised, task_data


class Cost:
    """The cost of updates of one task, for any rule."""

    def __init__(self, task: Task):
        self.task, self.data = task, jax.eval_shape(lambda: task_data(task.data))
        self.pure: Program = Program(task.model, task.loss, batchsize=task.batchsize, epochs=1)

    def of(self, hyper: Hyper) -> Row:
        """The columns "passes" and "memory"."""
        return {"passes": self.passes(hyper), "memory": self.memory(hyper)}

    def passes(self, hyper: Hyper) -> float:
        """Multiplications of an update, over those of a forward pass."""

        def forward(params, data, indices):
            return self.task.model.apply(params, standardised(data, data["train"][0][indices]))

        one, state, indices = self._arguments(hyper)
        params = jax.eval_shape(self.task.model.init, key_of(0))
        update = multiplications(jax.make_jaxpr(self.pure.grads)(state, one, self.data, indices))
        return update / multiplications(jax.make_jaxpr(forward)(params, self.data, indices))

    def memory(self, hyper: Hyper) -> float:
        """Most bytes that an update needs: parameters, states of rule and optimizer, gradients and temporaries, without
        the data set; nan where the compiler does not report it."""
        step = jax.jit(self.pure.step, donate_argnums=0, compiler_options=devices.compiler_options())
        one, state, indices = self._arguments(hyper)
        needed, _ = devices.memory_needed(step.lower(state, one, self.data, indices).compile())
        data = sum(prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(self.data))
        return needed - data if needed else float("nan")

    def _arguments(self, hyper: Hyper) -> tuple[Any, Any, Any]:
        """Numbers, state and indices of the examples of one update."""
        one = jax.tree.map(lambda a: a[0], stacked([hyper]))
        state = jax.eval_shape(self.pure.init, one, self.data)
        return one, state, jax.ShapeDtypeStruct((self.task.batchsize,), np.int32)
