"""`check`: many estimates of a rule, compared with the exact gradient."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from nodepert import registry
from nodepert.contract.losses import as_array
from nodepert.core import Array, Loss, Model, Params, Rule, node_shapes, preactivations
from nodepert.diagnostics.declared import bias_of_spec
from nodepert.diagnostics.moments import FEWEST, GROUPS, Moments, sample
from nodepert.diagnostics.reference import Batch, by_node, coarsest, reference_of
from nodepert.diagnostics.result import Check
from nodepert.diagnostics.sigma import perturbing, recommendation, step_study
from nodepert.diagnostics.verdict import ALL, judged
from nodepert.errors import UserError
from nodepert.models.adapters.anything import model_of
from nodepert.registry.generator import pinned
from nodepert.registry.spec import Spec
from nodepert.rules.noise import key_of
from nodepert.training import devices

Progress = Callable[[int, int], Any]


@pinned()
def check(
    model: Model | Any,
    rule: str | Spec | Rule | Callable[..., Rule],
    loss: str | Spec | Loss,
    batch: tuple[Any, Any],
    *,
    params: Params | None = None,
    draws: int | None = None,
    warmup: int = 10,
    seed: int = 0,
    study: bool = True,
    smoothed: float | None = None,
    progress: Progress = lambda drawn, of: None,
) -> Check:
    """Compare a rule's estimates with the exact gradient on one batch: is it biased, how noisy is it, which sigma?

        gain = <m, g> / ||g||^2,    bias^2 = mean over i != j of <m_i - g, m_j - g> / ||g||^2

    with g the gradient of the batch-mean loss by backpropagation, m the mean of `draws` estimates g_k at fixed `params`
    and rule state, and m_i the mean of group i of 20. The noise of different groups is independent, so that noise is
    not taken for bias. A third statistic, mixing, detects rules that average over examples too early (see `mixed`). A
    rule is biased if its gain differs from 1, or its mixing or bias from 0, at a node or at all nodes together, by more
    than chance gives in one check of a thousand (see verdict.py). It is unbiased only if the draws exclude a bias of
    20% along the gradient and of 50% in all directions together; where they are too few for this, the verdict is
    undecided, with the number of draws that would decide.

    Gradients are compared node by node: a parameter that reaches the outputs around the nodes is not seen. A rule that
    changes the network (`Rule.model`) is compared with the gradient of the changed network.

    Args:
        model: The network: a `Model`, or a Flax or Equinox module.
        rule: The learning rule, as a spec ("np(sigma=1e-3)"), a factory (model, loss) -> Rule, or a Rule.
        loss: The loss, as a spec or as a function (outputs, targets) -> (B,).
        batch: Inputs x, (B, ...), and targets y, (B,) or (B, ...).
        params: Parameters at which the gradient is taken; None: those of the network's init.
        draws: Number of estimates, rounded up to a multiple of 20; None: 1,000, and up to 20,000 where network and
            batch are small.
        warmup: Number of calls of the rule before the first draw, which update its state on the batch.
        seed: Seed of the initial weights and the noise.
        study: Whether to measure which sigma suits finite differences (see `step_study`).
        smoothed: Compare with the gradient of the loss smoothed by Gaussian noise of this sigma on all pre-activations,
            d/dtheta E L(a + sigma xi), which exists where loss or network have none, as with spikes (see
            `smoothed_gradient`). None: with the exact gradient; if there is none, or it is 0 at a node where noise of
            the rule's own sigma does lower the loss, with that of the loss smoothed by this sigma.
        progress: Called with the number of draws so far and in all.

    Returns:
        A `Check`: a table with a row per node, a verdict, and advice on sigma. Computing it takes `draws` steps of the
        rule, and 20 gradients in the host's memory.

    Raises:
        UserError: If the spec, the batch or a number is invalid, the loss has no derivative and the rule no
            sigma, or an estimate is not finite.
        ValueError: If model or loss break their contract.

    Examples:
        >>> import jax, nodepert as npt
        >>> x, y = jax.random.normal(jax.random.key(0), (20, 8)), jax.numpy.arange(20) % 3
        >>> model = npt.make_model("fc(width=16)", (8,), 3)
        >>> npt.check(model, "np", "cross-entropy", (x, y), draws=2000).verdict
        'unbiased'
    """
    draws, warmup, seed = map(registry.plain, (draws, warmup, seed))
    if smoothed is not None and not (isinstance(smoothed, int | float) and 0 < smoothed < math.inf):
        raise UserError(f"smoothed must be a positive number, the sigma of the noise; got {smoothed!r}")
    whole(draws=(FEWEST if draws is None else draws, FEWEST), warmup=(warmup, 0), seed=(seed, 0))
    devices.start()
    batch = checked(batch)
    model = model_of(model, batch[0].shape[1:], 0)
    if callable(rule):
        rule, _held = registry.spec_of("rule", rule)  # its name is valid while the line is held
    spec = None if isinstance(rule, Rule) else registry.check("rule", rule)
    loss = loss if callable(loss) else registry.make_loss(loss)
    made = rule if isinstance(rule, Rule) else registry.make("rule", rule, model, loss)
    network = made.model(batch[0]) if made.model else model
    init, first, estimates, along = jax.random.split(key_of(seed), 4)
    params = network.init(init) if params is None else params
    state = made.init(first, params, batch[0][:1])
    shapes = node_shapes(network, params, batch[0])
    parts = by_node(network, params, batch[0])
    sizes = {name: (math.prod(shapes[name].shape[1:]), v.size) for name, v in parts.items()}
    draws = GROUPS * -(-(draws or enough(len(batch[0]), sizes)) // GROUPS)
    noisy = perturbing(spec) if spec else None
    own = dict(noisy.kwargs)["sigma"] if noisy else None
    to = reference_of(network, loss, params, batch, smoothed, own, along, draws)
    dtype = coarsest([to.dtype, *(s.dtype for s in shapes.values())])
    draw, given = estimator(made, network, state, params, batch, estimates, warmup)
    moments = sample(draw, given, to.gradient, to.mixed, draws // GROUPS, progress)
    noisy = noisy if study and not to.about else None
    steps = step_study(along, noisy, network, loss, params, batch) if noisy else []
    advice = recommendation(steps, noisy, dtype.name) if noisy else ""
    rows = tabulated(moments, sizes, tolerance=0.3 * float(jnp.finfo(dtype).eps) ** 0.5)  # 1e-4 in float32
    result = Check(str(spec or "this rule"), draws, rows, bias_of_spec(spec) if spec else None, steps, advice,
                   about=to.about)  # fmt: skip
    unexpected = result.verdict == "biased" and result.declared != "biased"
    return result._replace(note=kinks(network, params, batch[0])) if unexpected else result


def whole(**numbers: tuple[Any, int]) -> None:
    """Raises UserError for numbers, (value, lowest) by name, that are not whole or too low."""
    for name, (value, lowest) in numbers.items():
        if not isinstance(value, int) or not lowest <= value < 2**31:
            raise UserError(f"{name} must be a whole number of at least {lowest}; got {value!r}")


def checked(batch: Any) -> Batch:
    """(x, y) as arrays. Raises UserError for anything else."""
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        raise UserError("a batch is a pair (x, y) of inputs and targets")
    try:
        x, y = map(as_array, batch)
    except ValueError as error:
        raise UserError(str(error)) from None
    if not (x.ndim and y.ndim and len(x) == len(y) > 0):
        raise UserError(f"a batch has as many targets as inputs, at least one; got shapes {y.shape} and {x.shape}")
    return x, y


def estimator(rule: Rule, model: Model, state: Any, params: Params, batch: Batch, key: Array, warmup: int):
    """(draw, given): draw(given, k) is estimate k of the rule, by node, at its state after `warmup` calls."""
    before, noise = jax.random.split(key)

    def called(state, params, batch):
        def again(i, state):
            return rule.grads(jax.random.fold_in(before, i), state, params, batch)[1]

        return jax.lax.fori_loop(0, warmup, again, state)

    def draw(given, k):
        state, params, batch = given
        return by_node(model, rule.grads(jax.random.fold_in(noise, k), state, params, batch)[0], batch[0])

    if warmup and jax.tree.leaves(state):
        state = jax.jit(called)(state, params, batch)
    return draw, (state, params, batch)


def enough(examples: int, sizes: dict[str, tuple[int, int]]) -> int:
    """1,000 draws, and up to 20,000 where a pass is cheap."""
    work = examples * sum(parameters + 100 * units for units, parameters in sizes.values())  # roughly; 100: convolution
    return 1000 * min(20, max(1, 30_000_000 // work))


def tabulated(moments: dict[str, Moments], sizes: dict[str, tuple[int, int]], tolerance: float) -> list[dict[str, Any]]:
    """The rows of a `Check`. Raises UserError if something is not finite."""
    for name, m in moments.items():
        if not math.isfinite(m.norm + m.square.sum()):
            raise UserError(f"the {'estimate' if math.isfinite(m.norm) else 'gradient'} is not finite at node '{name}'")
    total = tuple(map(sum, zip(*sizes.values(), strict=True)))
    sizes = sizes | {ALL: (total[0], total[1])}
    rows = judged(moments, tolerance).items()
    return [{"node": name, "units": sizes[name][0], "parameters": sizes[name][1]} | row for name, row in rows]


def kinks(model: Model, params: Params, x: Array) -> str:
    """A note on pre-activations of exactly 0, as of an example to which no unit below responds; or nothing."""
    zero = jax.jit(lambda p, x: {n: (a == 0).any() for n, a in preactivations(model, p, x).items()})(params, x)
    nodes = ", ".join(name for name, found in zero.items() if found)
    note = f"Some pre-activations are exactly 0 (at {nodes}): if relu follows, its derivative there is a convention."
    return note if nodes else ""
