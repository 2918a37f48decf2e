"""The cost of an update, by analysis: multiplications in units of a forward pass, and memory."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import jax
import numpy as np

from nodepert.experiments.experiment import Row
from nodepert.experiments.shared.tasks import Task
from nodepert.rules.noise import key_of
from nodepert.training import devices
from nodepert.training.hyper import Hyper, stacked
from nodepert.training.program import Program, standardised, task_data

LOOPS = ("scan", "while", "cond")


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
        needed = devices.memory_needed(step.lower(state, one, self.data, indices).compile())
        data = sum(prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(self.data))
        return needed - data if needed else float("nan")

    def _arguments(self, hyper: Hyper) -> tuple[Any, Any, Any]:
        """Numbers, state and indices of the examples of one update."""
        one = jax.tree.map(lambda a: a[0], stacked([hyper]))
        state = jax.eval_shape(self.pure.init, one, self.data)
        return one, state, jax.ShapeDtypeStruct((self.task.batchsize,), np.int32)


def multiplications(closed: Any) -> int:
    """Multiplications in the matrix products and convolutions of a closed jaxpr, without those that a compiler removes:
    dead code, and common subexpressions. A scan counts its length, a condition its most expensive branch, and a loop
    of unknown length once."""
    numbers: dict[Any, int] = {}  # of values; equal expressions have one number
    nodes: list[tuple[int, tuple[int, ...]]] = []  # by number: (multiplications, the numbers of its inputs)

    def number(key: Any, cost: int = 0, inputs: tuple[int, ...] = ()) -> int:
        if key not in numbers:
            numbers[key] = len(nodes)
            nodes.append((cost, inputs))
        return numbers[key]

    def walk(closed: Any, arguments: tuple[int, ...]) -> tuple[int, ...]:
        jaxpr, constants = _bare(closed), getattr(closed, "consts", ())
        values = dict(zip(jaxpr.constvars, (number(("constant", id(c))) for c in constants), strict=False))
        values |= zip(jaxpr.invars, arguments, strict=True)

        def read(variables):
            return tuple(number(("literal", str(v.val), str(v.aval))) if hasattr(v, "val") else values[v]
                         for v in variables)  # fmt: skip

        for equation in jaxpr.eqns:
            inputs, inner = read(equation.invars), _inner(equation.params.values())
            if equation.primitive.name == "stop_gradient":
                outputs = inputs
            elif equation.primitive.name not in LOOPS and len(inner) == 1:
                outputs = walk(inner[0], inputs)
            else:
                cost = _cost(equation, [multiplications(each) for each in inner])
                whole = number((equation.primitive.name, str(equation.params), inputs), cost, inputs)
                outputs = [number((whole, i), 0, (whole,)) for i in range(len(equation.outvars))]
            values |= zip(equation.outvars, outputs, strict=True)
        return read(jaxpr.outvars)

    needed = set(walk(closed, tuple(number(("argument", i)) for i in range(len(_bare(closed).invars)))))
    for i in range(len(nodes) - 1, -1, -1):  # inputs have lower numbers
        if i in needed:
            needed.update(nodes[i][1])
    return sum(nodes[i][0] for i in needed)


def _cost(equation: Any, inner: Sequence[int]) -> int:
    """Multiplications of one equation, given those of the jaxprs in it."""
    name, size = equation.primitive.name, prod(equation.outvars[0].aval.shape) if equation.outvars else 0
    if name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        return size * prod(equation.invars[0].aval.shape[i] for i in contracted)
    if name == "conv_general_dilated":
        kernel, place = equation.invars[1].aval.shape, equation.params["dimension_numbers"].rhs_spec
        return size * prod(kernel) // kernel[place[0]]
    if name == "cond":
        return max(inner, default=0)
    return equation.params["length"] * sum(inner) if name == "scan" else sum(inner)


def _bare(jaxpr: Any) -> Any:
    return getattr(jaxpr, "jaxpr", jaxpr)


def _inner(values: Any) -> list[Any]:
    """The jaxprs among the parameters of an equation."""
    each = [v for value in values for v in (value if isinstance(value, (tuple, list)) else (value,))]
    return [v for v in each if hasattr(_bare(v), "eqns")]
