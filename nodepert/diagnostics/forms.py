"""`recommend`: which form of node perturbation has the least variance on a network, for the same forward passes?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from nodepert import registry
from nodepert.core import Loss, Model, Params
from nodepert.diagnostics.advice import Recommendation
from nodepert.diagnostics.comparison import Comparison
from nodepert.diagnostics.gradient_check import Progress, checked, whole
from nodepert.diagnostics.moments import GROUPS
from nodepert.diagnostics.reference import reference
from nodepert.errors import UserError
from nodepert.models.adapters.anything import model_of
from nodepert.registry.generator import pinned
from nodepert.registry.spec import Spec
from nodepert.rules.noise import key_of
from nodepert.training import devices

COMMON = ("sigma", "samples", "noise", "difference")  # options that all forms share


@pinned()
def recommend(
    model: Model | Any,
    rule: str | Spec,
    loss: str | Spec | Loss,
    data: tuple[Any, Any],
    *,
    params: Params | None = None,
    guides: Sequence[str] | None = None,
    batchsize: int = 100,
    steps: int = 1000,
    draws: int = 40,
    seed: int = 0,
    progress: Progress = lambda done, of: None,
) -> Recommendation:
    """Compare the forms of node perturbation at the same number of forward passes: which has the least variance?

        variance = E||g - grad||^2 / ||grad||^2,    gain = variance of `rule` / variance

    with g the estimate of one step at fixed `params`, and grad the gradient of the batch-mean loss by backpropagation,
    which only this comparison takes. The variance falls as 1 / draws, so that a gain of 3 saves two of three noisy
    passes. The forms are `rule` itself; active=True, head=evaluated and noise=orthogonal; these with each guide, whose
    state is learned at `params`, on other examples than those that are measured; and maps that perturb each node alone,
    with the numbers of draws that suit the measured variance of each node (see `allocation.allocated`).

    Beside the measured variance is the one predicted in closed form from the number of perturbed units and from what a
    guide leaves of the error signals (see variance.py).

    Args:
        model: The network: a `Model`, or a Flax or Equinox module.
        rule: The plain form, np with any sigma, samples, noise and difference: "np(samples=8)". Orthogonal draws are
            compared if samples is a power of 2, draws per node if it is at least the number of perturbed nodes.
        loss: The loss, as a spec or as a function (outputs, targets) -> (B,).
        data: Inputs x, (N, ...), and targets y, (N,) or (N, ...). `batchsize` of them, drawn at random, are measured;
            guides learn on the others.
        params: Parameters of the network; None: those of its init. Gains change in training: take trained ones.
        guides: Guides, as specs; None: all that are registered.
        batchsize: Examples of a step.
        steps: Steps in which guides learn: as many as they will have had in training, for a gain as in training.
        draws: Steps that are measured, rounded up to a multiple of 20.
        seed: Seed of the initial weights, the examples and the noise.
        progress: Called with the number of forms that are measured, and of all.

    Returns:
        A `Recommendation`: a table with a row per form, and the one to take.

    Raises:
        UserError: If the rule is not a plain np, a spec, the data or a number is invalid, the loss has no derivative,
            or the gradient is zero or not finite.
        ValueError: If model or loss break their contract.

    Examples:
        >>> import jax, nodepert as npt
        >>> x, y = jax.random.normal(jax.random.key(0), (200, 8)), jax.numpy.arange(200) % 3
        >>> model = npt.make_model("fc(width=16, depth=1)", (8,), 3)
        >>> found = npt.recommend(model, "np(samples=2)", "cross-entropy", (x, y), guides=["feedback"])
        >>> found.rule
        'np(samples=2, noise=orthogonal, active=True, head=evaluated, guide=feedback)'
    """
    batchsize, steps, draws, seed = map(registry.plain, (batchsize, steps, draws, seed))
    whole(batchsize=(batchsize, 1), steps=(steps, 0), draws=(draws, 1), seed=(seed, 0))
    base = plain_form(rule)
    forms = combinations(base, registry.names("guide")[1:] if guides is None else guides)
    devices.start()
    x, y = checked(data)
    if len(x) <= batchsize:
        raise UserError(f"recommend needs more than the {batchsize} examples of a step, as guides learn on others; got "
                        f"{len(x)}")  # fmt: skip
    model = model_of(model, x.shape[1:], 0)
    loss = loss if callable(loss) else registry.make_loss(loss)
    order = np.random.default_rng(seed).permutation(len(x))
    batch, others = ((x[part], y[part]) for part in (order[:batchsize], order[batchsize:]))
    init, key = jax.random.split(key_of(seed))
    params = model.init(init) if params is None else params
    exact, _, _ = reference(model, loss, params, batch)
    samples, size = dict(registry.full("rule", base).kwargs)["samples"], -(-draws // GROUPS)
    comparison = Comparison(model, loss, params, batch, others, exact, samples, steps, size, key)
    return Recommendation(str(base), GROUPS * size, steps, *comparison.table(forms, progress))


def plain_form(rule: str | Spec) -> Spec:
    """The spec of a plain np. Raises UserError for another rule, and for the options that are compared."""
    spec = registry.short("rule", rule)
    if spec.name != "np":
        raise UserError(f"recommend compares forms of np, as in np(samples=8); got '{spec}'")
    options = dict(spec.kwargs)
    if other := next((key for key in options if key not in COMMON), "") or "noise" * (
        options.get("noise") in ("orthogonal", "sparse")
    ):
        raise UserError(f"recommend compares the forms of a plain np: leave out {other}={options[other]}")
    return spec


def combinations(base: Spec, guides: Sequence[str]) -> dict[str, Spec]:
    """{label: form}, the simpler forms first. Raises UserError for an unknown guide."""

    def form(**options: Any) -> Spec:
        return registry.check("rule", Spec("np", (), tuple((dict(base.kwargs) | options).items())))

    samples = dict(base.kwargs).get("samples", 1)
    orthogonal = {} if samples & (samples - 1) else {"noise": "orthogonal"}
    head = {"head": "evaluated"}
    reduced = orthogonal | {"active": True} | head
    label = ", ".join(["orthogonal"] * bool(orthogonal) + ["active", "head"])
    return {
        "plain": form(),
        "active": form(active=True),
        "head": form(**head),
        "active, head": form(active=True, **head),
        **({"orthogonal": form(**orthogonal)} if orthogonal else {}),
        label: form(**reduced),
        **{f"{label}, {guide}": form(**reduced, guide=registry.check("guide", guide)) for guide in guides},
    }
