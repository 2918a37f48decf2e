"""The multiplications of a computation, counted in its jaxpr."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

from nodepert.models.convolution import same_p

LOOPS = ("scan", "while", "cond")


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
    if name == same_p.name:
        return size * prod(equation.invars[1].aval.shape[:3])
    if name == "cond":
        return max(inner, default=0)
    return equation.params["length"] * sum(inner) if name == "scan" else sum(inner)


def _bare(jaxpr: Any) -> Any:
    return getattr(jaxpr, "jaxpr", jaxpr)


def _inner(values: Any) -> list[Any]:
    """The jaxprs among the parameters of an equation."""
    each = [v for value in values for v in (value if isinstance(value, (tuple, list)) else (value,))]
    return [v for v in each if hasattr(_bare(v), "eqns")]
