"""Which sigma? Finite differences of the loss along the noise, compared with the exact directional derivative."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nodepert import registry
from nodepert.core import Array, Key, Loss, Model, Params, in_parts, node_params, node_shapes, per_example
from nodepert.diagnostics.result import Row
from nodepert.registry.spec import Spec
from nodepert.rules.directional import directional, loss_along
from nodepert.rules.noise import Kind, draw, sparse
from nodepert.rules.rounding import default_format, in_float32
from nodepert.rules.weight import noise_shapes, noisy_weights

GRID = tuple(float(f"{10.0**e:.0e}") for e in np.arange(-6, 0.1, 0.5))  # 1e-6, 3e-6, ..., 1
DIFFERENCES = ("forward", "central")
GOOD = 0.99  # of a correlation: what is lost is then below 2% of the variance
SMALL = 0.01  # of an error
DRAWS, EXAMPLES = 8, 32


def perturbing(spec: Spec) -> Spec | None:
    """The first part of a rule's spec that has a sigma, with all defaults: the rule, or one that it wraps."""
    spec = registry.full("rule", spec)
    if "sigma" in dict(spec.kwargs):
        return spec
    return next((found for part in registry.inner("rule", spec) if (found := perturbing(part))), None)


def step_study(key: Key, spec: Spec, model: Model, loss: Loss, params: Params, batch: tuple[Array, Array]) -> list[Row]:
    """How well finite differences measure the slope of the loss: a row for each `difference` and `sigma`.

        correlation over b, k of (L_b(sigma xi^k) - L_b(0)) / sigma (central: of +-sigma) and d/ds L_b(s xi^k) at s = 0

    `slope`, the regression of the first on the second, and `error`, the variance of their difference over that of the
    second, with b up to 32 examples of `batch` = (x, y) and xi^k 8
    draws of noise on the pre-activations of `model`, or on its weights for wp; all in the dtypes of `params` and x.
    Rounding spoils a small sigma, curvature a large one. The grid goes from 1e-6 to 1, and the rule's own sigma is in
    it (`own`). For inp, which perturbs one node at a time, these columns are means over nodes. Products are computed as
    finite differences compute them, in float32; `error_by_default`: in JAX's default precision on this device, which is
    lower on most accelerators. The exact derivative is in float32.

    `spec`: a rule with a sigma, as `perturbing` gives it.
    """
    own = dict(spec.kwargs)
    sigmas = sorted({*GRID, own["sigma"]})
    few = batch[0][:EXAMPLES], batch[1][:EXAMPLES]

    def study(fine: bool) -> Any:
        run = jax.jit(partial(slopes, model, loss, spec.name, noise_of(own), fine=fine))
        return jax.device_get(run(key, params, few, jnp.asarray(sigmas, jnp.float32)))

    parts = study(True)
    by_default = study(False) if default_format() else parts
    rows = []
    for i, difference in enumerate(DIFFERENCES):
        for j, sigma in enumerate(sigmas):
            correlation, slope = np.mean([fitted(exact, measured[:, i, j]) for exact, measured in parts], axis=0)
            error, rough = (np.mean([error_of(exact, m[:, i, j]) for (exact, _), (_, m) in zip(parts, of, strict=True)])
                            for of in (parts, by_default))  # fmt: skip
            mine = (difference, sigma) == (own.get("difference", "forward"), own["sigma"])
            columns = {"correlation": float(correlation), "slope": float(slope), "error": float(error),
                       "error_by_default": float(rough)}  # fmt: skip
            rows.append({"difference": difference, "sigma": sigma, **columns, "own": mine})
    return rows


def noise_of(own: dict[str, Any]) -> Kind:
    """What one draw of a rule with these arguments is."""
    noise = own.get("noise", "gaussian")
    return partial(sparse, own["share"]) if noise == "sparse" else "rademacher" if noise == "orthogonal" else noise


def slopes(
    model: Model, loss: Loss, rule: str, noise: Kind, key: Key, params: Params, batch: Any, sigmas: Array, *, fine: bool
):
    """For every kind of pass the rule makes, over draws: exact slopes (K, B), measured (K, differences, sigmas, B).

    Of a loss in parts, (B, T) in place of B. `fine`: in float32, else in JAX's default precision.
    """
    x, y = batch
    model, loss = (model._replace(apply=in_float32(model.apply)), in_float32(loss)) if fine else (model, loss)
    if rule == "wp":
        shapes, _ = noise_shapes(node_params(model, params, x), (), 1, 0)
        passes = [(lambda psi: per_example(loss, model.apply(params, x, noisy_weights(psi, {})), y), shapes)]
    else:
        f, shapes = loss_along(model, loss, params, batch), node_shapes(model, params, x)
        passes = [(f, {n: s}) for n, s in shapes.items()] if rule == "inp" else [(f, shapes)]
    clean = (per_example if rule == "wp" else in_parts)(loss, model.apply(params, x), y)
    found = []
    for i, (f, shapes) in enumerate(passes):
        own = jax.random.fold_in(key, i)
        exact = directional("jvp", f, clean, shapes, 0.0)

        def one_draw(k, own=own, f=f, shapes=shapes, exact=exact):
            xi = draw(jax.random.fold_in(own, k), shapes, noise)

            def measured(sigma):
                return jnp.stack([directional(d, f, clean, shapes, sigma)(xi) for d in DIFFERENCES])

            return exact(xi), jnp.moveaxis(jax.lax.map(measured, sigmas), 0, 1)

        found.append(jax.lax.map(one_draw, jnp.arange(DRAWS)))
    return found


def fitted(exact: np.ndarray, measured: np.ndarray) -> tuple[float, float]:
    """(correlation, slope of the regression) of measured on exact slopes; 0 where either is constant."""
    e, m = exact.ravel().astype(np.float64), measured.ravel().astype(np.float64)
    e, m = e - e.mean(), m - m.mean()
    both, ee, mm = e @ m, e @ e, m @ m
    if not (ee > 0 and mm > 0 and np.isfinite(both)):
        return 0.0, 0.0
    return both / (ee * mm) ** 0.5, both / ee


def error_of(exact: np.ndarray, measured: np.ndarray) -> float:
    """The variance of measured minus exact slopes over that of the exact ones; infinite if these are constant."""
    e, m = exact.ravel().astype(np.float64), measured.ravel().astype(np.float64)
    return float((m - e).var() / e.var()) if e.var() > 0 else np.inf


def recommendation(rows: list[Row], spec: Spec, dtype: str) -> str:
    """Advice on a rule's own sigma and difference, from the rows of `step_study`."""
    return " ".join(text for text in (_advice(rows, spec, dtype), _by_default(rows)) if text)


def _by_default(rows: list[Row]) -> str:
    """What the default precision of products would do to a rule's own finite difference, where it is low."""
    own, low = next((r for r in rows if r["own"]), None), default_format()
    if not (own and low):
        return ""

    def survive(column: str) -> str:
        fine = [r["sigma"] for r in rows if r["difference"] == own["difference"] and r[column] < SMALL]
        return f"sigma from {min(fine):g} to {max(fine):g}" if fine else "no sigma"

    return (f"Finite differences compute products in float32: the error is {own['error']:.2g} of the variance of the "
            f"slope. In {low}, the default here, it would be {own['error_by_default']:.2g}. Below {SMALL:g}: "
            f"{survive('error')} in float32, {survive('error_by_default')} in {low}.")  # fmt: skip


def _advice(rows: list[Row], spec: Spec, dtype: str) -> str:
    own = dict(spec.kwargs)
    difference, sigma = own.get("difference", "forward"), own["sigma"]
    spans = {d: found for d in DIFFERENCES if (found := usable([r for r in rows if r["difference"] == d]))}
    if difference == "jvp":
        also = "; ".join(f"{d}, {span(found)}" for d, found in spans.items()) or f"none in {dtype}"
        return f"difference=jvp has no sigma to choose. Finite differences that would do: {also}."
    now = next(r["correlation"] for r in rows if r["own"])
    said = f"sigma={sigma:g} with difference={difference} measures slopes with correlation {now:.4f}"
    if found := spans.get(difference):
        fine = found[0]["sigma"] <= sigma <= found[-1]["sigma"]
        return f"{said}: {'keep it' if fine else 'take another'} ({span(found)})."
    said = f"{said}, but no decade of sigma is all above {GOOD}"
    if found := spans.get("central"):
        return f"{said}: take difference=central ({span(found)})."
    best = max(rows, key=lambda r: r["correlation"])
    at = f"best {best['correlation']:.4f}, {best['difference']} at sigma={best['sigma']:.2g}"
    instead = "take difference=jvp" if "difference" in own else f"compute in more than {dtype}"
    return f"{said} in {dtype}, central differences neither ({at}): {instead}."


def usable(rows: list[Row]) -> list[Row]:
    """The rows of one difference around its best that are above GOOD; none if they span less than a decade of sigma."""
    best = max(range(len(rows)), key=lambda i: rows[i]["correlation"])
    low = high = best
    while low > 0 and rows[low - 1]["correlation"] > GOOD:
        low -= 1
    while high + 1 < len(rows) and rows[high + 1]["correlation"] > GOOD:
        high += 1
    found = rows[low : high + 1]
    wide = found[-1]["sigma"] >= 9.99 * found[0]["sigma"]  # weights grow in training, and a fit sigma with them
    return found if wide and rows[best]["correlation"] > GOOD else []


def span(rows: list[Row]) -> str:
    """A usable range of sigma, as text."""
    best = max(rows, key=lambda r: r["correlation"])
    return f"above {GOOD} from {rows[0]['sigma']:.2g} to {rows[-1]['sigma']:.2g}, best at {best['sigma']:.2g}"
