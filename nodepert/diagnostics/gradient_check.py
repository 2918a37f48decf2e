"""`check`: a rule's estimate, drawn many times, against the exact gradient."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from nodepert import registry
from nodepert.core import (
    Array,
    Loss,
    Model,
    Params,
    Rule,
    differentiate,
    node_params,
    node_shapes,
    per_example,
    preactivations,
    pullback,
)
from nodepert.diagnostics.moments import GROUPS, Vectors, judged, sample, vector
from nodepert.diagnostics.sigma import perturbing, recommendation, step_study
from nodepert.diagnostics.verdict import ALL, PROMISES, Check
from nodepert.errors import UserError
from nodepert.registry.spec import Spec
from nodepert.rules.directional import loss_along

FEWEST = 5 * GROUPS  # draws
Batch = tuple[Array, Array]
Progress = Callable[[int, int], Any]


def check(
    model: Model,
    rule: str | Spec | Rule,
    loss: str | Spec | Loss,
    batch: tuple[Any, Any],
    *,
    params: Params | None = None,
    draws: int | None = None,
    warmup: int = 10,
    seed: int = 0,
    study: bool = True,
    progress: Progress = lambda drawn, of: None,
) -> Check:
    """Hold a rule's estimate against the exact gradient, on `batch` = (x, y), x: (B, ...), y: (B,) or (B, ...).

        gain = <m, g> / ||g||^2,    bias^2 = mean over i != j of <m_i - g, m_j - g> / ||g||^2

    with g the gradient of the batch-mean loss by backpropagation, m the mean of `draws` estimates g_k at fixed `params`
    and rule state, and m_i the mean of the i-th of 20 groups of them: the noise of different groups has mean product 0,
    so that noise is not taken for bias. A third figure, mixing, looks where a rule errs that does not keep examples
    apart (see `mixed`). A rule is biased where its gain differs from 1, or its mixing or bias from 0, at a node or at
    all together, by more than chance does in one check of a thousand (see moments.py).

    Gradients are compared by what nodes receive: a parameter that reaches the outputs around the nodes is not seen. A
    rule that changes the network (`Rule.model`) is compared with the gradient of the changed one.

    `rule` is a spec, "np(sigma=1e-3)", or a Rule; `loss` is a spec or a function (outputs, targets) -> (B,). `params`:
    the network's own init if not given. `warmup`: calls of the rule before, so that its state has met the batch.
    `draws` is rounded up to a multiple of 20; by default 1,000, and up to 20,000 where network and batch are small.
    `study=False` leaves out what recommends a sigma (stepsize.py). `progress` is called with the number of draws so far
    and in all.

    Cost: `draws` steps of the rule, and 20 gradients in the host's memory.

    Raises UserError for a spec, batch or number that cannot be, a loss without a derivative, and estimates that are not
    finite; ValueError where model or loss break their contract.
    """
    for name, value, least in (("draws", draws, FEWEST), ("warmup", warmup, 0), ("seed", seed, 0)):
        if value is not None and (not isinstance(value, int) or not least <= value < 2**31):
            raise UserError(f"{name} must be a whole number of at least {least}; got {value!r}")
    batch = checked(batch)
    spec = None if isinstance(rule, Rule) else registry.check("rule", rule)
    loss = loss if callable(loss) else registry.make_loss(loss)
    made = rule if isinstance(rule, Rule) else registry.make("rule", rule, model, loss)
    network = made.model(batch[0]) if made.model else model
    init, first, estimates, along = jax.random.split(jax.random.key(seed), 4)
    params = network.init(init) if params is None else params
    state = made.init(first, params, batch[0][:1])
    exact, mix, dtype = reference(network, loss, params, batch)
    shapes = node_shapes(network, params, batch[0])
    dtype = coarsest([dtype, *(s.dtype for s in shapes.values())])
    units = {name: math.prod(s.shape[1:]) for name, s in shapes.items()}
    sizes = {name: (units[name], v.size) for name, v in exact.items()}
    draws = GROUPS * -(-(draws or enough(len(batch[0]), sizes)) // GROUPS)
    draw, given = estimator(made, network, state, params, batch, estimates, warmup)
    moments = sample(draw, given, exact, mix, draws // GROUPS, progress)
    noisy = perturbing(spec) if spec and study else None
    steps = step_study(along, noisy, network, loss, params, batch) if noisy else []
    advice = recommendation(steps, noisy, dtype.name) if noisy else ""
    rows = tabled(moments, sizes, tolerance=0.3 * float(jnp.finfo(dtype).eps) ** 0.5)  # 1e-4 in float32
    found = Check(str(spec or "this rule"), draws, rows, declared(spec) if spec else None, steps, advice)
    unexpected = found.verdict == "biased" and found.declared != "biased"
    return found._replace(note=kinks(network, params, batch[0])) if unexpected else found


def checked(batch: Any) -> Batch:
    """(x, y) as arrays. Raises UserError for anything else."""
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        raise UserError("a batch is a pair (x, y) of inputs and targets")
    x, y = map(jnp.asarray, batch)
    if not (x.ndim and y.ndim and len(x) == len(y) > 0):
        raise UserError(f"a batch has as many targets as inputs, at least one; got shapes {y.shape} and {x.shape}")
    return x, y


def reference(model: Model, loss: Loss, params: Params, batch: Batch) -> tuple[Vectors, Vectors, Any]:
    """The exact gradient by node, what mixing examples would add to it, and the coarsest dtype of either.

    Raises UserError where there is no gradient.
    """
    x, y = batch
    node_shapes(model, params, x)
    jax.eval_shape(lambda p, x: per_example(loss, model.apply(p, x), y), params, x)  # what breaks the contract raises

    def gradient(params, batch):
        return differentiate(model, loss, params, batch)[0]

    try:
        leaves = jax.tree.leaves(jax.eval_shape(gradient, params, batch))
    except Exception as error:
        why = (str(error).splitlines() or [""])[0]
        raise UserError("check compares with the true gradient, but this loss or network cannot be differentiated "
                        f"({type(error).__name__}: {why})") from error  # fmt: skip

    def both(params, batch):
        return by_node(model, gradient(params, batch), batch[0]), mixed(model, loss, params, batch)

    return *jax.jit(both)(params, batch), coarsest([leaf.dtype for leaf in leaves])


def coarsest(dtypes: Sequence[Any]) -> Any:
    """The dtype of the largest rounding."""
    return max(dtypes, key=lambda dtype: float(jnp.finfo(dtype).eps))


def mixed(model: Model, loss: Loss, params: Params, batch: Batch) -> Vectors:
    """{node: r}: what is added to the gradient where errors and activity are averaged before they are multiplied.

        r_l = mean_b(delta_l[b]) mean_b(z_l[b])^T - mean_b(delta_l[b] z_l[b]^T)

    A rule that credits one noise draw for the batch with the change of the batch's mean loss has mean g + r.
    """
    x, _ = batch
    along = loss_along(model, loss, params, batch)
    zeros = {name: jnp.zeros(s.shape, s.dtype) for name, s in node_shapes(model, params, x).items()}
    delta = jax.grad(lambda eps: along(eps).mean())(zeros)
    return by_node(model, pullback(model, params, x, {n: d.mean(0, keepdims=True) - d for n, d in delta.items()}), x)


def by_node(model: Model, tree: Params, x: Array) -> Vectors:
    """{node: its part of a gradient, as a vector}, of the nodes that have parameters."""
    return {name: vector(part) for name, part in node_params(model, tree, x).items() if jax.tree.leaves(part)}


def estimator(rule: Rule, model: Model, state: Any, params: Params, batch: Batch, key: Array, warmup: int):
    """(draw, given): draw(given, k) is the rule's estimate k by node, at the state that it has after `warmup` calls."""
    before, noise = jax.random.split(key)

    def called(state, params, batch):
        def again(i, state):
            return rule.grads(jax.random.fold_in(before, i), state, params, batch)[1]

        return jax.lax.fori_loop(0, warmup, again, state)

    def draw(given, k):
        state, params, batch = given
        return by_node(model, rule.grads(jax.random.fold_in(noise, k), state, params, batch)[0], batch[0])

    if jax.tree.leaves(state):
        state = jax.jit(called)(state, params, batch)
    return draw, (state, params, batch)


def enough(examples: int, sizes: dict[str, tuple[int, int]]) -> int:
    """1,000 draws, and up to 20,000 where a pass costs little."""
    work = examples * sum(parameters + 100 * units for units, parameters in sizes.values())  # roughly; 100: convolution
    return 1000 * min(20, max(1, 30_000_000 // work))


def tabled(moments: dict[str, Any], sizes: dict[str, tuple[int, int]], tolerance: float) -> list[dict[str, Any]]:
    """The rows of a `Check`. Raises UserError where something is not finite."""
    for name, m in moments.items():
        if not math.isfinite(m.norm + m.square.sum()):
            raise UserError(f"the {'estimate' if math.isfinite(m.norm) else 'gradient'} is not finite at node '{name}'")
    total = tuple(map(sum, zip(*sizes.values(), strict=True)))
    found = judged(moments, tolerance)
    sizes = sizes | {ALL: (total[0], total[1])}
    return [{"node": name, "units": sizes[name][0], "parameters": sizes[name][1]} | row for name, row in found.items()]


def kinks(model: Model, params: Params, x: Array) -> str:
    """A remark on pre-activations of exactly 0, as of an example that no unit below responds to."""
    zero = jax.jit(lambda p, x: {n: (a == 0).any() for n, a in preactivations(model, p, x).items()})(params, x)
    nodes = ", ".join(name for name, found in zero.items() if found)
    remark = f"Some pre-activations are exactly 0 (at {nodes}): if relu follows, its derivative there is a convention."
    return remark if nodes else ""


def declared(spec: Spec) -> str | None:
    """What a rule says of its bias: exact, unbiased or biased; of a combinator, the worst of what it goes around."""
    word = registry.facts("rule", spec.name).get("Bias", "").split()[:1]
    said = word[0].strip(",;:.") if word else ""
    if said == "as":
        inner = [declared(v) for v in (*spec.args, *dict(spec.kwargs).values()) if isinstance(v, Spec)]
        return max((d for d in inner if d), key=PROMISES.index) if inner and all(inner) else None
    return said if said in PROMISES else None
