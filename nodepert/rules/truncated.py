"""Truncated backpropagation through time."""

from __future__ import annotations

from nodepert.contract.loops import truncated
from nodepert.core import Array, Loss, Model, Node, Params, Rule, backprop, plain
from nodepert.registry.ranges import at_least


def truncated_backprop(model: Model, loss: Loss, *, steps: int = 0) -> Rule:
    """Truncated backpropagation through time: errors do not pass from one window of steps to the one before.

        g = 1/B sum_b sum_t delta_t[b] z_t[b]^T,    delta_t = d(sum of L_t' up to the end of t's window)/da_t

    Windows are steps 1 to k, k + 1 to 2k, and so on of each loop of `npt.scan`; activity passes through all of them. A
    window of one step gives the derivative of the loss of each step alone, and one as long as the sequence the exact
    gradient.

    Cost: a forward pass, a backward pass, the weight gradients.
    Bias: exact; biased unless steps=0, where a sequence is longer.
    Derivative of the loss: needed.

    Args:
        model: The network to train.
        loss: (outputs, targets) -> losses, (B,).
        steps: Length k of a window; 0: all steps, which is backpropagation through time.

    Returns:
        The `Rule`, without state.

    Raises:
        ValueError: steps < 0, or, at the first step, the loss is not per example.

    Examples:
        >>> import nodepert as npt
        >>> model, loss = npt.make_model("rnn(width=20)", (50, 4), 3), npt.make_loss("cross-entropy")
        >>> rule = npt.make_rule("bptt(steps=10)", model, loss)

    References:
        Williams and Peng 1990.
    """
    at_least("steps", steps, 0)

    def apply(params: Params, x: Array, node: Node = plain) -> Array:
        with truncated(steps):
            return model.apply(params, x, node)

    return backprop(Model(model.init, apply), loss)
