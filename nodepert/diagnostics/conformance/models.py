"""`check_model`: does a network satisfy its contract?"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nodepert import registry
from nodepert.core import Array, Model, Params, Signals, adding, node_shapes, pullback, recording
from nodepert.diagnostics.conformance.common import by_place, compiled, must, require, same, same_bits
from nodepert.models.wiring import wiring
from nodepert.registry.generator import pinned
from nodepert.rules.noise import key_of

BATCH = 3
CLOSE = 1e-4  # relative: products of other shapes round otherwise


@pinned()
def check_model(model: str | Model, input_shape: tuple[int, ...], *, seed: int = 0) -> None:
    """Check that a network satisfies the contract, on inputs of this shape.

    Parameters are floating and the same for the same key; outputs and nodes have the examples on their first axis and
    keep them apart; node names differ; every parameter enters through a node and is credited by `pullback`, which makes
    the exact gradient from exact error signals; the network is one function under every node handler, under jit, and
    under vmap over params.

    Args:
        model: A Model, or a spec, which is built for four classes.
        input_shape: Shape of one input, without batch axis.
        seed: Seed of the parameters and inputs.

    Raises:
        AssertionError: A violation, in one sentence: where it is, what it is, what to do.

    Examples:
        >>> from nodepert.testing import check_model
        >>> check_model("fc(width=9)", (8, 8, 3))
    """
    where = f"network '{model}'" if isinstance(model, str) else "this network"
    built: Model = registry.make("network", model, input_shape, 4) if isinstance(model, str) else model
    x = jnp.asarray(np.random.default_rng(seed).normal(size=(BATCH, *input_shape)), jnp.float32)
    with must(where, "init fails"):
        params, again, other = (built.init(key_of(seed + i)) for i in (0, 0, 1))
    require(same_bits(params, again), where, "init gives other parameters for the same key; draw them from the key")
    for place, leaf in by_place(params).items():
        floating = jnp.issubdtype(getattr(leaf, "dtype", type(leaf)), jnp.floating)
        require(floating, where, f"parameter {place} is not floating; keep what is not learned outside of params")
    check_structure(where, built, params, x)
    check_values(where, computed(where, built, params, other, x))


def check_structure(where: str, model: Model, params: Params, x: Array) -> None:
    """By tracing alone: the batch axis, the names of nodes, and that every parameter enters through a node."""
    for size in (BATCH, BATCH - 1):
        with must(where, "it cannot be traced"):
            shape = jnp.shape(jax.eval_shape(model.apply, params, x[:size]))
            wires = wiring(model, params, x[:size])
        first = f"the outputs have shape {shape}; their first axis must be the {size} examples"
        require(shape[:1] == (size,), where, first)
        outside = "is used outside of nodes, where no error signal reaches it; call node(name, operation, params, h)"
        require(not wires.bypassing, where, f"parameter {', '.join(wires.bypassing)} {outside}")
        missing = "is given to no node; drop it, or give it to the node whose operation uses it"
        require(not wires.unused, where, f"parameter {', '.join(wires.unused)} {missing}")


def computed(where: str, model: Model, params: Params, other: Params, x: Array) -> dict[str, Any]:
    """Everything that `check_values` compares, in one compiled program, which must repeat bit by bit."""
    random = np.random.default_rng(0)
    weights = jnp.asarray(random.normal(size=jax.eval_shape(model.apply, params, x).shape), jnp.float32)
    shapes = node_shapes(model, params, x)
    signals: Signals = {name: jnp.asarray(random.normal(size=s.shape), s.dtype) for name, s in shapes.items()}

    def observed(params, x):
        record: Signals = {}
        return model.apply(params, x, recording(record)), record

    def total(params, eps, x, weights):
        return (model.apply(params, x, adding(eps)) * weights).sum()

    def program(params, other, x):
        gradient, errors = jax.grad(total, (0, 1))(params, jax.tree.map(jnp.zeros_like, signals), x, weights)
        pair = jax.tree.map(lambda *p: jnp.stack(p), params, other)
        return {
            "twice": [model.apply(params, x) for _ in range(2)],
            "observed": observed(params, x),
            "alone": jax.lax.map(lambda x: jax.tree.map(lambda a: a[0], observed(params, x[None])), x),
            "derivative": jax.grad(total, 2)(params, {}, x, weights.at[1:].set(0)),  # of the first example's outputs
            "gradient": gradient,
            "pullback": pullback(model, params, x, errors),
            "credit": pullback(model, params, x, signals),
            "pair": jax.vmap(model.apply, (0, None))(pair, x),
            "singly": jnp.stack([model.apply(p, x) for p in (params, other)]),
        }

    run = compiled(program)
    with must(where, "it cannot be run under jit, vmap, grad and lax.map"):
        found, again = run(params, other, x), run(params, other, x)
    repeats = same_bits(*found["twice"]) and same_bits(found, again)
    require(repeats, where, "one input gives two results; a network draws nothing at random")
    return found


def check_values(where: str, found: dict[str, Any]) -> None:
    """By computing: one function however it is run, examples apart, and credit for every parameter."""
    (plain, _), (recorded, _) = found["twice"], found["observed"]
    mix = "examples mix (batch norm?):"
    same(where, "outputs with and without a node handler", recorded, plain, CLOSE)
    same(where, f"{mix} outputs and nodes of one example alone and in a batch", found["alone"], found["observed"],
         CLOSE)  # fmt: skip
    apart = not found["derivative"][1:].any()
    require(apart, where, f"{mix} the outputs of one have a derivative by the input of another")
    same(where, "pullback of exact error signals and gradient (does an operation use activity other than its input?)",
         found["pullback"], found["gradient"], CLOSE)  # fmt: skip
    same(where, "outputs for params vmapped and one by one", found["pair"], found["singly"], CLOSE)
    for place, leaf in by_place(found["credit"]).items():
        none = "gets no credit: its node does not depend on it, or not by a derivative (stop_gradient, sign, round)"
        require(leaf.any(), where, f"parameter {place} {none}")
