"""The precision of finite differences: their passes compute products in float32, and say where that is not enough.

    error variance / variance of the slope = (0.4 u / sigma)^2, roughly, with u the unit roundoff of products

(measured on `fc` with the products in TF32), which is 1% at sigma = 4 u. By default a recent GPU computes products of
float32 in TF32, and a TPU in bfloat16. That is enough for the pullback and for difference=jvp, which keep the default.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from nodepert import registry
from nodepert.core import Loss, Model
from nodepert.registry.spec import Spec

FINITE = ("forward", "central")
UNITS = {"TF32": 2.0**-11, "float16": 2.0**-11, "bfloat16": 2.0**-8}  # unit roundoff
ENOUGH = 4  # times the unit roundoff, of sigma
PRODUCTS = ("dot_general", "conv_general_dilated", "ragged_dot_general")
SETTING = "jax_default_matmul_precision"
LOW = {"tensorfloat32": "TF32", "bfloat16": "bfloat16"}  # names of it
ALGORITHMS = {"TF32": "TF32", "BF16": "bfloat16", "F16": "float16"}
EMULATED = {10: "TF32", 7: "bfloat16"}  # bits of mantissa
log = logging.getLogger("nodepert")


def precise(model: Model, loss: Loss, difference: str, sigma: Any) -> tuple[Model, Loss]:
    """Network and loss as the passes of a finite difference of step `sigma` compute them: products in float32.

    Where that is JAX's default, or without a difference (jvp), they are unchanged. Both passes of a difference need it,
    the clean one too. The first pass warns if what remains of the rounding drowns the difference.
    """
    if difference not in FINITE:
        return model, loss
    fine, watching = in_float32(model.apply), not isinstance(sigma, Tracer)  # traced: see warn_of_rounding

    def apply(params, x, *node, **named):
        nonlocal watching
        if watching:
            watching = False
            _warn("this rule", float(sigma), formats_of(fine, params, x))
        return fine(params, x, *node, **named)

    return model._replace(apply=apply), in_float32(loss)


def in_float32(f: Callable[..., Any]) -> Callable[..., Any]:
    """f, with products of float32 computed in float32, and not in a lower precision that is JAX's default."""

    @functools.wraps(f)
    def run(*args, **named):
        with jax.default_matmul_precision("highest") if default_format() else nullcontext():
            return f(*args, **named)

    return run


def warn_of_rounding(works: Sequence[tuple[Model, Sequence[Spec], tuple[int, ...]]]) -> None:
    """Warn, once, if rounding drowns the finite differences of a rule. `works`: (model, rules, shape of an input).

    For training, where the numbers of a rule are traced.
    """
    for model, rules, shape in works:
        steps = [step for rule in rules for step in finite_differences(rule)]
        if steps:
            sigma, name = min(steps)
            params = jax.eval_shape(model.init, jax.random.key(0))
            if _warn(name, sigma, formats_of(in_float32(model.apply), params, jnp.zeros((2, *shape)))):
                return


def _warn(name: str, sigma: float, formats: Iterator[str]) -> bool:
    """Warn if rounding in one of these formats drowns a finite difference of this step; whether it does."""
    drowning = [low for low in set(formats) if sigma < 0.999 * ENOUGH * UNITS[low]]
    if drowning:
        low = max(drowning, key=UNITS.__getitem__)
        log.warning("%s takes finite differences of the loss with sigma=%g, but products have the precision of %s, "
                    "whose rounding drowns them below sigma=%.1g or so; use difference=jvp or a larger sigma",
                    name, sigma, low, ENOUGH * UNITS[low])  # fmt: skip
    return bool(drowning)


def finite_differences(rule: Spec) -> Iterator[tuple[float, str]]:
    """(sigma, name) of a rule, and of those that it wraps, that take finite differences."""
    own = dict(registry.full("rule", rule).kwargs)
    if own.get("difference") in FINITE and isinstance(own.get("sigma"), int | float):
        yield float(own["sigma"]), rule.name
    for inner in registry.inner("rule", rule):
        yield from finite_differences(inner)


def formats_of(apply: Callable[..., Any], params: Any, x: Any) -> Iterator[str]:
    """The formats below float32 in which the products of apply(params, x) are computed on the default device."""
    for equation in equations(jax.make_jaxpr(lambda p, x: apply(p, x))(*jax.eval_shape(lambda *a: a, params, x)).jaxpr):
        kind = equation.primitive.name
        if kind == "reduce_precision" and (emulated := EMULATED.get(equation.params["mantissa_bits"])):
            yield emulated
        if kind not in PRODUCTS:
            continue
        dtypes = [variable.aval.dtype for variable in equation.invars[:2]]
        rounded = next((dtype.name for dtype in dtypes if dtype.name in UNITS), None)
        if low := rounded or (format_of(equation.params.get("precision")) if jnp.float32 in dtypes else None):
            yield low


def default_format() -> str | None:
    """The format in which JAX computes products of float32 by default on the default device, if it is a lower one."""
    return _default_format(getattr(jax.config, SETTING), jax.default_backend())


@functools.cache
def _default_format(setting: str | None, backend: str) -> str | None:
    product = jax.make_jaxpr(jnp.dot)(*[jax.ShapeDtypeStruct((1, 1), "float32")] * 2)
    return next(format_of(e.params["precision"]) for e in equations(product.jaxpr) if e.primitive.name in PRODUCTS)


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
