"""Losses: (outputs, targets) -> losses, (B,), one per example and never averaged over the batch.

Of outputs (B, T, n) they have a part for every time step, (B, T), with class indices (B, T) or values (B, T, n) as
targets. It is 0 where a step is not graded: its class is -1, or its values are nan.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from nodepert.contract.losses import are_classes, as_array, graded
from nodepert.core import Array, as_values
from nodepert.errors import UserError


def mse(outputs: Array, targets: Array) -> Array:
    """Squared error of sigmoid(outputs): L_b = 1/n sum_i (sigmoid(o_bi) - y_bi)^2.

    Args:
        outputs: Outputs of the network, (B, n).
        targets: Class indices, (B,), or values, (B, n).

    Returns:
        Losses, (B,), one per example.

    Examples:
        >>> import jax.numpy as jnp, nodepert as npt
        >>> npt.make_loss("mse")(jnp.array([[0.0, 2.0]]), jnp.array([1])).shape
        (1,)
    """
    return linear_mse(jax.nn.sigmoid(outputs), targets)


def linear_mse(outputs: Array, targets: Array) -> Array:
    """Squared error of the outputs: L_b = 1/n sum_i (o_bi - y_bi)^2.

    Args:
        outputs: Outputs of the network, (B, n).
        targets: Class indices, (B,), or values, (B, n).

    Returns:
        Losses, (B,), one per example.

    Examples:
        >>> import jax.numpy as jnp, nodepert as npt
        >>> npt.make_loss("linear-mse")(jnp.array([[0.0, 2.0]]), jnp.array([1])).shape
        (1,)
    """
    return jnp.square(outputs - as_values(targets, outputs)).mean(-1)


def cross_entropy(outputs: Array, targets: Array) -> Array:
    """Softmax cross-entropy, in nats: L_b = -sum_i y_bi log softmax(o_b)_i.

    Args:
        outputs: Outputs of the network, (B, n).
        targets: Class indices, (B,), or values, (B, n).

    Returns:
        Losses, (B,), one per example.

    Examples:
        >>> import jax.numpy as jnp, nodepert as npt
        >>> npt.make_loss("cross-entropy")(jnp.array([[0.0, 2.0]]), jnp.array([1])).shape
        (1,)
    """
    targets = as_array(targets)
    surprise = jax.nn.logsumexp(outputs, axis=-1, keepdims=True) - outputs
    if are_classes(targets, outputs):  # not a product with one_hot: under vmap, for more than 32,768 rows,
        classes = jnp.arange(outputs.shape[-1], dtype=jnp.int32)  # jax 0.10 compiles that wrongly on CPU
        return jnp.where(targets.astype(jnp.int32)[..., None] == classes, surprise, 0).sum(-1)
    return (targets * surprise).sum(-1)


def sigmoid_cross_entropy(outputs: Array, targets: Array) -> Array:
    """Cross-entropy of each output's sigmoid, in nats: L_b = -1/n sum_i [y_bi log p_bi + (1 - y_bi) log(1 - p_bi)],
    with p = sigmoid(o).

    Args:
        outputs: Outputs of the network, (B, n).
        targets: Labels of 0 and 1 or probabilities, floats (B, n); or class indices, (B,).

    Returns:
        Losses, (B,), one per example.

    Examples:
        >>> import jax.numpy as jnp, nodepert as npt
        >>> npt.make_loss("sigmoid-cross-entropy")(jnp.array([[0.0, 2.0]]), jnp.array([[1.0, 1.0]])).shape
        (1,)
    """
    losses = optax.sigmoid_binary_cross_entropy(outputs, as_values(targets, outputs)).mean(-1)
    there = graded(as_array(targets))
    return losses if there is None else jnp.where(there, losses, 0)


def by_target(outputs: Array, targets: Array) -> Array:
    """`cross_entropy` for class indices, `linear_mse` for values.

    Args:
        outputs: Outputs of the network, (B, n).
        targets: Class indices, (B,), or values, (B, n).

    Returns:
        Losses, (B,), one per example.

    Examples:
        >>> import jax.numpy as jnp, nodepert as npt
        >>> npt.make_loss("by-target")(jnp.array([[0.0, 2.0]]), jnp.array([[0.0, 1.0]])).shape
        (1,)
    """
    targets = as_array(targets)
    return cross_entropy(outputs, targets) if are_classes(targets, outputs) else linear_mse(outputs, targets)


def reward(outputs: Array, targets: Array) -> Array:
    """Minus the expected reward of a policy that draws a class by softmax, and is rewarded by 1 for the right one:
    L_b = -softmax(o_b)_y.

    Args:
        outputs: Outputs of the network, (B, n).
        targets: Class indices, (B,).

    Returns:
        Losses, (B,), one per example, in [-1, 0].

    Examples:
        >>> import jax.numpy as jnp, nodepert as npt
        >>> float(npt.make_loss("reward")(jnp.array([[0.0, 0.0]]), jnp.array([1]))[0])
        -0.5
    """
    right = jax.lax.stop_gradient(as_values(targets, outputs))
    losses = -(jax.nn.softmax(outputs) * right).sum(-1)
    there = graded(as_array(targets))
    return losses if there is None else jnp.where(there, losses, 0)


def zero_one(outputs: Array, targets: Array) -> Array:
    """Classification error: L_b = 0 where the largest output is that of the class, else 1.

    All that a learner sees who is only told whether its answer was right: reward is 1 - L. It has no derivative: rules
    that need one are refused, as is difference=jvp. With finite differences use a large sigma, about 0.1, so that noise
    changes some answers; the mean of the estimates is the gradient of E L(a + sigma xi).

    Args:
        outputs: Outputs of the network, (B, n).
        targets: Class indices, (B,).

    Returns:
        Losses, (B,), one per example.

    Examples:
        >>> import jax.numpy as jnp, nodepert as npt
        >>> float(npt.make_loss("zero-one")(jnp.array([[0.0, 2.0]]), jnp.array([1]))[0])
        0.0
    """
    targets = as_array(targets)
    if not are_classes(targets, outputs):
        raise ValueError("the loss zero-one needs class indices as targets, not values")
    wrong = (_answer(outputs) != targets).astype(outputs.dtype)
    there = graded(targets)
    return wrong if there is None else jnp.where(there, wrong, 0)


@jax.custom_jvp
def _answer(outputs: Array) -> Array:
    return outputs.argmax(-1)


@_answer.defjvp
def _no_derivative(primals: Any, tangents: Any) -> Any:
    raise UserError("the loss zero-one has no derivative, and this rule needs one; take np with difference=forward, "
                    "another rule that needs none (`nodepert list rules`), or the loss cross-entropy")  # fmt: skip
