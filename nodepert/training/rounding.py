"""Finite differences of the loss in low precision: does rounding drown them?

    error variance / variance of the slope = (0.4 u / sigma)^2, roughly, with u the unit roundoff of products

(measured on `fc` with the products in TF32), which is 1% at sigma = 4 u.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from nodepert import registry
from nodepert.core import Model
from nodepert.registry.spec import Spec

UNITS = {"TF32": 2.0**-11, "float16": 2.0**-11, "bfloat16": 2.0**-9}  # unit roundoff
ENOUGH = 4  # times the unit roundoff, of sigma
PRODUCTS = ("dot_general", "conv_general_dilated", "ragged_dot_general")
SETTING = "jax_default_matmul_precision"
LOW = {"tensorfloat32": "TF32", "bfloat16": "bfloat16"}  # names of it
ALGORITHMS = {"TF32": "TF32", "BF16": "bfloat16", "F16": "float16"}
log = logging.getLogger("nodepert")


def warn_of_rounding(works: Sequence[tuple[Model, Sequence[Spec], tuple[int, ...]]]) -> None:
    """Warn, once, if rounding drowns the finite differences of a rule. `works`: (model, rules, shape of an input)."""
    for model, rules, shape in works:
        steps = [step for rule in rules for step in finite_differences(rule)]
        if not steps:
            continue
        sigma, name = min(steps)
        formats = [low for low in set(formats_of(model, shape)) if sigma < 0.999 * ENOUGH * UNITS[low]]
        if formats:
            low = max(formats, key=UNITS.__getitem__)
            config = (
                'jax.default_matmul_precision("highest"), ' if low == "TF32" or getattr(jax.config, SETTING) else ""
            )
            log.warning("%s takes finite differences of the loss with sigma=%g, but products have the precision of %s, "
                        "whose rounding drowns them below sigma=%.1g or so; use %sdifference=jvp or a larger sigma",
                        name, sigma, low, ENOUGH * UNITS[low], config)  # fmt: skip
            return


def finite_differences(rule: Spec) -> Iterator[tuple[float, str]]:
    """(sigma, name) of a rule, and of those that it wraps, that take finite differences."""
    own = dict(registry.full("rule", rule).kwargs)
    if own.get("difference", "jvp") != "jvp" and isinstance(own.get("sigma"), int | float):
        yield float(own["sigma"]), rule.name
    for inner in registry.inner("rule", rule):
        yield from finite_differences(inner)


def formats_of(model: Model, shape: tuple[int, ...]) -> Iterator[str]:
    """The formats below float32 in which a network's products are computed on the default device."""
    params = jax.eval_shape(model.init, jax.random.key(0))
    inputs = jax.ShapeDtypeStruct((2, *shape), "float32")
    for equation in equations(jax.make_jaxpr(lambda p, x: model.apply(p, x))(params, inputs).jaxpr):
        if equation.primitive.name not in PRODUCTS:
            continue
        dtypes = [variable.aval.dtype for variable in equation.invars[:2]]
        rounded = next((dtype.name for dtype in dtypes if dtype.name in UNITS), None)
        if low := rounded or (format_of(equation.params.get("precision")) if jnp.float32 in dtypes else None):
            yield low


def format_of(precision: Any) -> str | None:
    """The format of a product of float32 with this precision, if it is a lower one."""
    first = precision[0] if isinstance(precision, tuple) else precision
    if first == jax.lax.Precision.HIGHEST:
        return None
    if isinstance(first, jax.lax.DotAlgorithmPreset):
        kind, _, _, *times = [*first.name.split("_"), "", "", ""][:4]
        return None if any(times) else ALGORITHMS.get(kind)
    backend = {"gpu": "TF32", "tpu": "bfloat16"}.get(jax.default_backend())  # what the hardware does by default
    return LOW.get(str(getattr(jax.config, SETTING))) or backend


def equations(jaxpr: Any) -> Iterator[Any]:
    """All equations of a program, those of inner programs too."""
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda v: hasattr(v, "eqns")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from equations(inner)
