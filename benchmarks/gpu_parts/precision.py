"""Products on the device: their rates and rounding, the cost of finite differences in float32, and their sigma."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import step
from common import matmul_rate

import nodepert as npt
from gpu_parts import Row, seconds, tried
from nodepert import registry
from nodepert.diagnostics.sigma import perturbing, step_study
from nodepert.rules import rounding

X3 = "TF32_TF32_F32_X3"  # float32 as three products in TF32
PRECISIONS = ("default", "highest", X3)
NETWORKS = ("fc", "conv")
TOY = {"fc(width=20)": ((8, 8, 1), 10)}


def rows(toy: bool) -> Iterator[Row]:
    for precision in PRECISIONS:
        yield from tried(
            f"products, {precision}", lambda p=precision: products(p, 128 if toy else 4096), precision == X3
        )
    for difference in ("forward", "central"):
        yield from tried(f"slopes, {difference}", lambda d=difference: slopes(d, toy))
    step.SETTINGS |= TOY if toy else {}
    for network in TOY if toy else NETWORKS:
        times: dict[str, float] = {}
        for kind in ("sgd", "np", "np, all products by default", f"np, {X3}"):
            yield from tried(f"{network}: {kind}", lambda n=network, k=kind, t=times: ratio(n, k, t), X3 in kind)


def products(precision: str, size: int) -> Iterator[Row]:
    """The rate of a square product, and its error relative to float64."""
    with jax.default_matmul_precision(None if precision == "default" else precision):
        a, b = jax.random.normal(jax.random.key(0), (2, 256, 256))
        exact = np.asarray(a, np.float64) @ np.asarray(b, np.float64)
        error = np.linalg.norm(np.asarray(jax.jit(jnp.dot)(a, b)) - exact) / np.linalg.norm(exact)
        rate = matmul_rate(size)
    yield Row(f"products, {precision}", rate / 1e12, "TFLOP/s", f"rounding {error:.1e}")


def slopes(difference: str, toy: bool) -> Iterator[Row]:
    """The error of a finite difference, in float32 and in the device's default."""
    model, loss = npt.make_model("fc(width=20)" if toy else "fc", (28, 28, 1), 10), npt.make_loss("cross-entropy")
    params, x = model.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (32, 28, 28, 1))
    spec = perturbing(registry.check("rule", f"np(difference={difference})"))
    assert spec
    found = step_study(jax.random.key(2), spec, model, loss, params, (x, jnp.arange(32) % 10))
    for row in found:
        if row["difference"] == difference and row["sigma"] in (1e-4, 1e-3, 1e-2):
            note = f"by default {row['error_by_default']:.2%} ({rounding.default_format() or 'float32'})"
            what = f"{difference}, sigma={row['sigma']:g}: error variance"
            yield Row(
                what, 100 * row["error"], "% of the slope's", note, ok=row["sigma"] != 1e-3 or row["error"] < 0.01
            )


def ratio(network: str, kind: str, times: dict[str, float]) -> Iterator[Row]:
    """A step of np, with its finite differences in float32 or as `kind` says, relative to backpropagation."""
    rule, _, products = kind.partition(", ")
    stated = rounding.default_format
    rounding.default_format = stated if products in ("", X3) else lambda: None
    try:
        with jax.default_matmul_precision(X3 if products == X3 else None):
            compiled, state, _ = step.compiled_step(network, rule)
            times[kind] = seconds(compiled, *state)
    finally:
        rounding.default_format = stated
    yield Row(f"{network}: {kind}, over sgd", times[kind] / times["sgd"], "", f"{1e3 * times[kind]:.3g} ms")
