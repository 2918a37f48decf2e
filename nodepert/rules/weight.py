"""Weight perturbation: noise on the weights, credited by the change in the loss."""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp

from nodepert.core import (
    Array,
    Info,
    Loss,
    Model,
    Node,
    Rule,
    batchsize,
    expand,
    node_params,
    per_example,
    recording,
    stateless,
)
from nodepert.errors import UserError
from nodepert.models.layers import Affine
from nodepert.registry.ranges import at_least, positive
from nodepert.rules.directional import Difference, Noise, directional, mean_over
from nodepert.rules.exchange import measured
from nodepert.rules.rounding import precise
from nodepert.rules.synapses import active_inputs, factors


def weight_perturbation(
    model: Model,
    loss: Loss,
    *,
    sigma: float = 1e-3,
    samples: int = 1,
    noise: Noise = "gaussian",
    difference: Difference = "forward",
    sharing: Literal["batch", "example"] = "batch",
    rank: int = 0,
    active: bool = False,
) -> Rule:
    """Weight perturbation: perturb all weights at once, and credit the noise with the change in the loss.

        g = mean_k mean_b (dL_b^k / sigma) Psi_b^k

    with unit-variance noise Psi on every parameter of every node, and the slope dL_b/sigma, (B,), at weights
    W + sigma Psi_b, computed by `difference` (see `node_perturbation`; central is SPSA, jvp the "forward gradient").

    With one draw (jvp, gaussian), E||g||^2 = (d + 2) ||gradient||^2 for d weights; at rank 1, for the m n weights of a
    single layer, (m + 2)(n + 2) ||gradient||^2, and with orthogonal factors m n ||gradient||^2.

    Cost: a clean and a noisy forward pass, no weight gradients, and noise for every weight; each further draw, and
    central, adds 1.
    Bias: unbiased as sigma -> 0, with an error of O(sigma^2) where the network is smooth; with jvp at any sigma.
    Derivative of the loss: not needed, except by jvp.

    Args:
        model: The network to train.
        loss: (outputs, targets) -> losses, (B,).
        sigma: Standard deviation of the noise, in units of the weights.
        samples: Draws per step; the variance is divided by their number.
        noise: gaussian, rademacher (signs), sphere (uniform on the sphere of radius sqrt(size) for every leaf), or
            orthogonal: the columns of A are orthogonal to each other, of length sqrt(m) and uniformly random, those of
            B too, of length sqrt(n); needs rank, at most m and n. Biases then have signs.
        difference: forward, central or jvp.
        sharing: batch: one Psi for the batch, multiplied by the batch-mean loss difference. example: independent Psi_b
            for every example, B times the memory and noise of the weights.
        rank: 0: independent noise on every weight. r: Psi = A B^T / sqrt(r) for the weights of dense and convolution,
            A (m, r) and B (n, r) of unit variance, for m inputs (of a patch) and n outputs. The noisy pre-activation is
            a + sigma (z A) B^T / sqrt(r): the matrix is never formed, which makes sharing=example cheap. Biases have
            noise of full rank.
        active: Credit the noise on a weight with the loss of the examples whose input to it is not 0; the loss of the
            others does not depend on it. Of dense layers and convolutions. The d weights in the variance of an example
            are then those of its active inputs.

    Returns:
        The `Rule`, without state.

    Raises:
        ValueError: sigma is not positive and finite, samples < 1, rank < 0, noise=orthogonal without rank, or, at the
            first step, the loss is not per example.
        UserError: At the first step, rank > 0 and a node's operator is neither `dense` nor `conv2d`, or it has fewer
            inputs or outputs than the rank of orthogonal factors.

    Examples:
        >>> import nodepert as npt
        >>> model, loss = npt.make_model("fc(width=20)", (4,), 3), npt.make_loss("mse")
        >>> rule = npt.make_rule("wp(rank=1, sharing=example)", model, loss)

    References:
        Spall 1992 (SPSA); Werfel, Xie and Seung 2005; Baydin et al. 2022 (jvp); Sarkar et al. 2025 (EGGROLL, low rank).
    """
    positive("sigma", sigma)
    at_least("samples", samples, 1)
    at_least("rank", rank, 0)
    if noise == "orthogonal" and not rank:
        raise ValueError("noise=orthogonal needs rank: it is the factors of low-rank noise that are orthogonal")

    fine, fine_loss = precise(model, loss, difference, sigma)

    def grads(key, state, params, batch):
        x, y = batch
        outputs = measured(lambda x, _: fine.apply(params, x), x, ())
        clean = per_example(fine_loss, outputs, y)
        weights, place = jax.vjp(lambda p: node_params(model, p, x), params)
        draws = batchsize(x) if sharing == "example" else 1
        left, right = noise_shapes(weights, affine(model, params, x) if rank else (), draws, rank)
        gates = active_inputs(model, params, x) if active else {}

        def losses(batch, psi_and_right):
            return per_example(fine_loss, fine.apply(params, batch[0], noisy_weights(*psi_and_right)), batch[1])

        def one_draw(key):
            scaled_key, fixed_key = jax.random.split(key)
            fixed = factors(fixed_key, right, noise, tuple(right))

            def perturbed(psi):
                return measured(losses, batch, (psi, fixed))

            psi = factors(scaled_key, left, noise, tuple(right))
            gain = directional(difference, perturbed, clean, left, sigma)(psi) / batchsize(x)
            return place(credited(gain, psi, fixed, weights, gates))[0]

        return mean_over(one_draw, key, samples), state, Info(clean, outputs)

    return Rule(stateless, grads)


def affine(model: Model, params: Any, x: Array) -> tuple[str, ...]:
    """The names of all nodes. Raises UserError for one whose operator does not support low-rank noise."""
    names: list[str] = []

    def node(name, op, params, h):
        if not isinstance(op, Affine):
            raise UserError(f"low-rank noise needs the operators dense and conv2d of nodepert.models.layers; node "
                            f"'{name}' has another: use rank=0")  # fmt: skip
        names.append(name)
        return op(params, h)

    jax.eval_shape(lambda p, x: model.apply(p, x, recording({}, node)), params, x)
    return tuple(names)


def noise_shapes(weights: dict[str, Any], low: tuple[str, ...], draws: int, rank: int):
    """Shapes of the noise by leaf, (draws, ...): the part that sigma multiplies, and right factors at low rank."""
    left, right = {}, {}
    for node, tree in weights.items():
        for path, w in leaves(tree):
            name, low_rank = node + path, node in low and path == "['w']"
            shape = (*w.shape[:-1], rank) if low_rank else w.shape
            left[name] = jax.ShapeDtypeStruct((draws, *shape), w.dtype)
            if low_rank:
                right[name] = jax.ShapeDtypeStruct((draws, w.shape[-1], rank), w.dtype)
    return left, right


def leaves(tree: Any) -> list[tuple[str, Array]]:
    """(path, leaf) of every leaf, as in ("['w']", ...)."""
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree.leaves_with_path(tree)]


def noisy_weights(psi: dict[str, Array], right: dict[str, Array]) -> Node:
    """A node handler that adds psi, already scaled, to the weights; at low rank, psi right^T / sqrt(rank)."""

    def node(name, op, params, h):
        if name + "['w']" in right:
            low, factor = psi[name + "['w']"], right[name + "['w']"]
            zero = jnp.zeros(low.shape[-1], low.dtype)
            rows = each(lambda w, h: op({"w": w, "b": zero}, h), low, h)  # (B, ..., rank)
            noise = each(lambda f, z: z @ f.T / f.shape[-1] ** 0.5, factor, rows)
            return each(lambda b, a: a + b, psi[name + "['b']"], op(params, h) + noise)
        own = jax.tree.unflatten(jax.tree.structure(params), [psi[name + path] for path, _ in leaves(params)])
        return each(lambda noise, h: op(jax.tree.map(jnp.add, params, noise), h), own, h)

    return node


def each(f: Any, noise: Any, h: Array) -> Array:
    """f(noise, h), with one noise for all examples of h (leading axis 1) or one for each."""
    if len(jax.tree.leaves(noise)[0]) == 1:
        return f(jax.tree.map(lambda n: n[0], noise), h)
    return jax.vmap(lambda n, h: f(n, h[None])[0])(noise, h)


def credited(
    gain: Array, psi: dict[str, Array], right: dict[str, Array], weights: dict[str, Any], gates: dict[str, Array]
) -> dict[str, Any]:
    """sum_b gain[b] gate[b] Psi[b], node by node, in the shape of `weights`; a low-rank Psi enters by its factors."""

    def leaf(name):
        n = psi[name]
        c = expand(gain, n) * gates.get(name, 1)  # (B, ...)
        n = (c if len(n) > 1 else c.sum(0, keepdims=True)) * n
        if name not in right:
            return n.sum(0)
        return jnp.tensordot(n, right[name], ((0, -1), (0, -1))) / n.shape[-1] ** 0.5

    return {
        node: jax.tree.unflatten(jax.tree.structure(tree), [leaf(node + path) for path, _ in leaves(tree)])
        for node, tree in weights.items()
    }
