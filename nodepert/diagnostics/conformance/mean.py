"""The mean of a rule's estimates is what the rule declares: the gradient, or at least something at every node."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nodepert.core import Params, backprop, node_params
from nodepert.diagnostics.bias import gain, principal_z, rms
from nodepert.diagnostics.conformance.cases import Case
from nodepert.diagnostics.conformance.common import by_place, compiled, must, require
from nodepert.training.losses import mse

SINGLES, WARM_UP = 4, 8  # steps
PER_PASS = 512  # draws; more than 32,768 rows, draws x BATCH x samples, might be compiled wrongly (jax 0.10, on CPU)
RMS_Z = 1.5  # limit of the rms z-score, which is 1 but for chance
FACTOR_Z = 4.0  # limit of the z-score of the factor between mean and gradient
RESOLUTION = 0.035  # limit of that factor's standard error: 1.15 is then 4 of them from 1, on each of three networks
AT_A_NODE = 0.08  # the same, of one node: 1.32
SHARED = "is noise shared by examples whose losses are averaged?"


class Estimates(NamedTuple):
    """A rule's gradients on one case, in one compiled program."""

    settled: Any  # the state after WARM_UP steps, at which all draws are taken
    first: Params  # gradients of the first SINGLES steps under lax.scan, stacked; () where there was no scan
    few: Params  # gradients of the first SINGLES draws, stacked
    draws: dict[str, np.ndarray]  # node -> (draws, parameters of the node), vmapped over keys
    exact: dict[str, np.ndarray]  # node -> (parameters of the node,), by backpropagation


def estimates(on: Case, draws: int, scan: bool = False) -> Estimates:
    """Draw a rule's gradients; `scan`: warm up even a stateless rule. Raises AssertionError if they are not finite."""

    def program(beginning, warming, drawing):
        def scanned(state, i):
            grads, state, _ = on.rule.grads(jax.random.fold_in(warming, i), state, on.params, on.batch)
            return state, grads

        def drawn(i):
            return on.rule.grads(jax.random.fold_in(drawing, i), settled, on.params, on.batch)[0]

        def by_node(grads):
            return node_params(on.network, grads, on.batch[0])

        settled, first = on.rule.init(beginning, on.params, on.batch[0]), ()
        if scan or jax.tree.leaves(settled):
            settled, first = jax.lax.scan(scanned, settled, jnp.arange(WARM_UP))
        draw = jax.lax.map(drawn, jnp.arange(draws), batch_size=PER_PASS)
        gradient, _, _ = backprop(on.network, mse).grads(drawing, (), on.params, on.batch)
        first, few = jax.tree.map(lambda g: g[:SINGLES], (first, draw))
        return settled, first, few, jax.vmap(by_node)(draw), by_node(gradient)

    with must(on.where, "it cannot run under lax.scan, with its state in the carry, and vmap over keys"):
        settled, first, few, draw, gradient = compiled(program)(on.key(0), on.key(3), on.key(4))
    finite(on.where, draw)
    exact = {node: vectors(jax.tree.map(lambda g: g[None], tree))[0] for node, tree in gradient.items()}
    return Estimates(settled, first, few, {node: vectors(tree) for node, tree in draw.items()}, exact)


def check_mean(where: str, bias: str, found: Estimates) -> None:
    """Require of the estimates what `bias` declares: exact, unbiased or biased. Raises AssertionError."""
    if bias == "unbiased":
        check_unbiased(where, found.draws, found.exact)
        return
    for node, g in found.exact.items():
        at, off, size = f"{where}, at node '{node}'", np.abs(found.draws[node] - g).max(), np.abs(g).max()
        require(found.draws[node].mean(0).any(), at, "its mean is zero: nothing is learned there")
        exact = bias != "exact" or off <= 1e-5 * size
        require(exact, at, f"it is off the gradient by {off / (size or 1):.2%}, though declared exact")


def check_unbiased(where: str, draws: dict[str, np.ndarray], exact: dict[str, np.ndarray]) -> None:
    """Require estimates {node: (draws, n)} whose mean is the gradient {node: (n,)}. Raises AssertionError.

    The gain detects a wrong factor or sign in few draws, node by node and in all. The rms of z-scores along the
    principal axes of the noise detects errors in any direction, as of noise that examples share. Estimates too noisy to
    tell a factor of 1.15, or of 1.32 at a node, are refused: no bias seen there would prove nothing.
    """
    errors = [check_gain(f"{where}, at node '{node}'", draws[node], g) / AT_A_NODE for node, g in exact.items()]
    every, g = np.concatenate([draws[n] for n in exact], axis=1), np.concatenate(list(exact.values()))
    coarse = max(*errors, check_gain(where, every, g) / RESOLUTION)
    need = int(len(every) * coarse**2) + 1
    require(coarse <= 1, where, f"it is too noisy for {len(every):,} draws to tell its bias; give draws={need}")

    limit = 1e-3 * np.abs(g).max()
    z, rest = principal_z(every, g, floor=1e-3 * limit)
    require(rms(z) < RMS_Z, where, f"its mean is not the gradient (rms z-score {rms(z):.2f}, limit {RMS_Z}); {SHARED}")
    off = np.abs(rest).max()
    require(off < limit, where, f"its mean is off the gradient by {off:.1e} in directions without noise; {SHARED}")


def check_gain(where: str, draws: np.ndarray, exact: np.ndarray) -> float:
    """Require a mean that is 1 times the gradient along the gradient; gives the standard error of that factor."""
    factor, error = gain(draws, exact)
    text = (f"its mean is {factor:.3f} +- {error:.3f} times the gradient, not 1; is a factor or a sign wrong, or is "
            "noise shared by examples whose losses are averaged?")  # fmt: skip
    require(abs(factor - 1) <= max(FACTOR_Z * error, 1e-4), where, text)
    return float(error)


def finite(where: str, grads: Any) -> None:
    """Require gradients without nan and inf."""
    for place, leaf in by_place(grads).items():
        require(np.isfinite(np.asarray(leaf, np.float32)).all(), where, f"the gradient at {place} is not finite")


def vectors(tree: Any) -> np.ndarray:
    """Draws of a node's gradient, leaves (draws, ...), as (draws, n)."""
    leaves = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(tree)]
    return np.concatenate([leaf.reshape(len(leaf), -1) for leaf in leaves], axis=1)
