"""A guessed direction: the error signal along a prediction of it, measured by one slope."""

from __future__ import annotations

from functools import partial
from math import prod

import jax
import jax.numpy as jnp

from nodepert.core import Array, Info, Loss, Model, Rule, Signals, batchsize, expand, per_example, pullback
from nodepert.registry import check, make
from nodepert.registry.ranges import positive
from nodepert.registry.spec import Spec
from nodepert.rules.credit import total
from nodepert.rules.directional import Difference, directional, loss_along
from nodepert.rules.guided import clean_pass, perturbed, unlearned
from nodepert.rules.rounding import precise


def guessed_direction(
    model: Model, loss: Loss, *, guide: Spec | str = "dfa", sigma: float = 1e-3, difference: Difference = "forward"
) -> Rule:
    """Perturbation along a guessed direction: a guide says where, the change of the loss how far.

        s[b] = (dL_b / sigma) u[b] / n,    u[b] = d[b] / rms(d[b])

    with d[b] the prediction of a guide (see rules/guides/guide.py) over all n perturbed units, and dL_b the change of
    the loss when sigma u[b] is added to the pre-activations. This is the projection of the error signals on the guess:
    never longer than they are, and never against them, however bad the guess is. The nodes that only reach the outputs
    have their exact signal, from the loss alone (see rules/guided.py).

    Cost: a clean pass and one along the guess, the guide's pass, the weight gradients.
    Bias: biased, unless the guess is parallel to the error signals; exact for the nodes that only reach the outputs.
    Derivative of the loss: not needed, except by jvp.

    Args:
        model: The network to train.
        loss: (outputs, targets) -> losses, (B,).
        guide: Where the direction comes from: dfa (fixed random feedback) or kp; a guide that learns from noise
            learns nothing here.
        sigma: Root mean square of the change of the pre-activations, in their unit.
        difference: forward, central or jvp, as for `node_perturbation`.

    Returns:
        The `Rule`; its state is that of the guide.

    Raises:
        ValueError: sigma is not positive and finite, or the guide predicts nothing.

    Examples:
        >>> import nodepert as npt
        >>> model, loss = npt.make_model("fc(width=20)", (4,), 3), npt.make_loss("mse")
        >>> rule = npt.make_rule("guess(guide=kp)", model, loss)

    References:
        Fournier, Rivaud, Belilovsky, Eickenberg and Oyallon 2023; Singhal, Cheung, Chandra, Ragan-Kelley, Tenenbaum,
        Poggio and Yu 2023.
    """
    positive("sigma", sigma)
    spec = check("guide", guide)
    if spec.name == "none":
        raise ValueError("guess needs a guide that predicts: dfa or kp")
    guess = make("guide", spec, model)
    fine, fine_loss = precise(model, loss, difference, sigma)

    def init(key, params, x):
        return unlearned(guess, model, key, params, x)

    def grads(key, state, params, batch):
        clean, losses = clean_pass(fine, fine_loss, params, batch, evaluated=True)
        exact = clean.cut.back({}, clean.error)
        predicted = exact | guess.signals(state, clean)
        u = direction({name: predicted[name] for name in perturbed(clean.cut, evaluated=True)})
        losses_at = loss_along(fine, partial(per_example, fine_loss), params, batch)
        along = directional(difference, losses_at, total(losses), u, sigma)
        share = along(u) / max(1, units(u))
        signals = exact | {name: expand(share, n) * n for name, n in u.items()}
        state = guess.learn(state, clean, predicted, {name: s - predicted[name] for name, s in signals.items()})
        grads = pullback(model, params, batch[0], jax.tree.map(lambda s: s / batchsize(batch[0]), signals))
        return grads, state, Info(total(losses), clean.cut.outputs)

    return Rule(init, grads)


def units(signals: Signals) -> int:
    """Units of an example, over all nodes."""
    return sum(prod(s.shape[1:]) for s in signals.values())


def direction(guess: Signals) -> Signals:
    """The guess of each example divided by its root mean square over all units; 0 where it is 0."""
    if not guess:
        return {}

    def squares(s: Array) -> Array:
        return jnp.square(s.astype(jnp.promote_types(s.dtype, jnp.float32))).sum(range(1, s.ndim))

    mean = jnp.stack([squares(s) for s in guess.values()]).sum(0) / units(guess)
    factor = jnp.where(mean > 0, jax.lax.rsqrt(jnp.where(mean > 0, mean, 1)), 0)
    return {name: (expand(factor, s) * s).astype(s.dtype) for name, s in guess.items()}
