"""Difference target propagation: what goes down the network is targets, through learned inverses, and no derivative."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from nodepert.core import Array, Info, Loss, Model, Op, Params, Rule, per_example, pullback, recording
from nodepert.errors import UserError
from nodepert.models.wiring import INPUT, wiring
from nodepert.registry.ranges import at_least, positive
from nodepert.rules.directional import scaled
from nodepert.rules.feedback import random_like
from nodepert.rules.noise import draw

ACTIVATIONS = {"tanh": jnp.tanh, "relu": jax.nn.relu, "linear": lambda h: h}
Feedback = dict[str, tuple[Params, Array]]  # node -> (V, c)


class Inverses(NamedTuple):
    """Rule state: parameters of the inverses, for nodes between the first and the last, and their optimizer's state."""

    feedback: Feedback
    optimizer: Any


def difference_target_propagation(
    model: Model,
    loss: Loss,
    *,
    step: float = 0.1,
    inverse_lr: float = 1e-3,
    noise: float = 1.0,
    activation: Literal["tanh", "relu", "linear"] = "linear",
    scale: float = 0.01,
    seed: int = 0,
) -> Rule:
    """Difference target propagation, DTP: each node makes the next one's activity come nearer to its target.

        t_L = z_L - step dL_b/dz_L,    t_l = z_l + q_l(t_{l+1}) - q_l(z_{l+1})
        s_l[b] = (dz_{l+1}/da_l)^T (z_{l+1} - t_{l+1}) / step,    s_L = dL_b/da_L,    g_l = 1/B sum_b s_l[b] z_l[b]^T

    with z_l the presynaptic activity of node l, a_l its pre-activation, node L the last one, and stage l the map from
    z_l to z_{l+1}: the node and whatever lies between it and the next, through which alone dz_{l+1}/da_l goes. The
    inverse q_l of stage l, for 1 < l < L, is learned, one step of Adam a batch, to undo the stage of noisy activity:

        q_l(z) = activation(op_l(V_l, .)^T z + c_l),    minimise E ||q_l(stage_l(z_l + eps)) - (z_l + eps)||^2

    where op_l(V, .)^T is the transpose of the node's own operator, dense or convolution, with feedback weights V.

    Cost: 7 (a forward pass, the weight gradients; two passes through the inverses for the targets; to learn them a
    noisy forward pass, a pass through the inverses and their weight gradients). The last five leave out nodes 1 and L.
    Bias: biased, but for the last two nodes, whose signals are exact; with true inverses targets are Gauss-Newton's.
    Derivative of the loss: that with respect to the last node's pre-activation and presynaptic activity.

    `step` matters only for a q that is not linear. `inverse_lr` is the rate of that Adam, `noise` the standard
    deviation of eps, in units of activity. V starts normal with `scale` times the standard deviation of the forward
    weights, small so that hardly anything goes down before it is learned, and c at zero; `seed` draws another V for
    the same run seed. The paper's q has its network's activation, tanh; linear suits relu too. Unlike the paper's, the
    local loss is divided by `step`, so that signals have the size of errors and learning rates mean what they do for
    other rules; and targets are found before that batch's step on q.

    For chains only: each node is fed by the one before it alone. An operator must be affine in z. Raises UserError for
    another network, and where a node to be inverted has other than as many units as the next one has inputs (pooling);
    ValueError for numbers that are not positive and finite, or a negative seed.

    Sources: Lee, Zhang, Fischer and Bengio 2015; Meulemans et al. 2020 (Gauss-Newton).
    """
    for name, value in {"step": step, "inverse_lr": inverse_lr, "noise": noise, "scale": scale}.items():
        positive(name, value)
    at_least("seed", seed, 0)
    act = ACTIVATIONS[activation]
    optimizer = optax.adam(inverse_lr)

    def init(key, params, x):
        key, net = jax.random.fold_in(key, seed), clean(model, params, x)
        feedback: Feedback = {}
        for i, name in enumerate(inverted(model, params, x, net)):
            h, own = net.h[name], random_like(jax.random.fold_in(key, i), net.params[name], scale)
            feedback[name] = own, jnp.zeros(h.shape[-1], h.dtype)
        return Inverses(feedback, optimizer.init(feedback))

    def grads(key, state, params, batch):
        x, y = batch
        net = clean(model, params, x)
        above = inverted(model, params, x, net)
        (h, outputs), back = jax.vjp(lambda a: between(model, params, x, a), net.a)
        losses, loss_back = jax.vjp(lambda o: per_example(loss, o, y), outputs)
        (error,) = loss_back(jnp.ones_like(losses))

        # gap[l] = (h_l - t_l) / step: what stands where backpropagation has dL_b/dh_l.
        last, nothing = list(net.a)[-1], jax.tree.map(jnp.zeros_like, h)
        _, last_back = jax.vjp(lambda h: net.op[last](net.params[last], h), h[last])
        gap = {last: last_back(back((nothing, error))[0][last])[0]}
        for name in reversed(above):
            q, reached = inverse(net, act, name, state.feedback), h[above[name]]
            difference = q(reached) - q(reached - scaled(gap[above[name]], step))
            gap[name] = scaled(difference, 1 / step)
        (signals,) = back((nothing | gap, error))

        state = learned(key, state, params, x, net, above)
        return pullback(model, params, x, scaled(signals, 1 / len(x))), state, Info(losses, outputs)

    def learned(key, state, params, x, net, above) -> Inverses:
        """The inverses after one step on the reconstruction of noisy activity."""
        if not above:
            return state
        eps = scaled(draw(key, {name: net.h[name] for name in above}), noise)
        noisy = {name: net.h[name] + e for name, e in eps.items()}
        a = net.a | {name: net.op[name](net.params[name], h) for name, h in noisy.items()}
        reached, _ = between(model, params, x, a)

        def error(feedback):
            q = {name: inverse(net, act, name, feedback)(reached[up]) for name, up in above.items()}
            return sum(jnp.square(q[name] - noisy[name]).sum() for name in q) / len(x)

        updates, opt = optimizer.update(jax.grad(error)(state.feedback), state.optimizer, state.feedback)
        feedback: Any = optax.apply_updates(state.feedback, updates)
        return Inverses(feedback, opt)

    return Rule(init, grads)


class Pass(NamedTuple):
    """What a clean pass meets at every node."""

    op: dict[str, Op]
    params: dict[str, Params]
    h: dict[str, Array]  # presynaptic activity
    a: dict[str, Array]  # pre-activation


def clean(model: Model, params: Params, x: Array) -> Pass:
    """A clean pass."""
    net = Pass({}, {}, {}, {})

    def node(name, op, own, h):
        net.op[name], net.params[name], net.h[name] = op, own, h
        return op(own, h)

    model.apply(params, x, recording(net.a, node))
    return net


def between(model: Model, params: Params, x: Array, a: dict[str, Array]) -> tuple[dict[str, Array], Array]:
    """({node: presynaptic activity}, outputs) from given pre-activations: what the model does between its nodes.

    As nodes are cut out, a derivative of this goes from a node to the next and no further.
    """
    h: dict[str, Array] = {}

    def node(name, op, own, activity):
        h[name] = activity
        return a[name]

    outputs = model.apply(params, x, node)
    return h, outputs


def inverse(net: Pass, act: Any, name: str, feedback: Feedback):
    """The inverse of a stage: from the next node's presynaptic activity to this one's."""
    (V, c), op, a, zeros = feedback[name], net.op[name], net.a[name], jnp.zeros_like(net.h[name])

    def q(reached: Array) -> Array:
        back: Any = transposed(op, V, zeros, reached.reshape(a.shape).astype(a.dtype))
        return act(back + c)

    return q


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def transposed(op: Op, V: Params, zeros: Array, a: Array) -> Array:
    """op(V, .)^T a, for an operator that is affine in its input, shaped as `zeros`.

    Its derivative with respect to V is the operator's own weight gradient, with activity and signal exchanged. JAX
    would find it as the derivative of a derivative, for which convolution has no fast kernel (see convolution.py).
    """
    return jax.vjp(lambda h: op(V, h), zeros)[1](a)[0]


def _forward(op, V, zeros, a):
    return transposed(op, V, zeros, a), (V, zeros, a)


def _backward(op, residual, r):
    V, zeros, a = residual
    to_a, weight_gradient = jax.vjp(lambda V: jax.jvp(lambda h: op(V, h), (zeros,), (r,))[1], V)  # without the bias
    return weight_gradient(a)[0], zeros, to_a


transposed.defvjp(_forward, _backward)


def inverted(model: Model, params: Params, x: Array, net: Pass) -> dict[str, str]:
    """{node: the next one} for the stages that need an inverse: all but the first and the last. Raises UserError."""
    wires = wiring(model, params, x)
    names = list(wires.order)
    fed = [*wires.inputs.items(), ("the outputs", wires.outputs)]
    for (name, sources), below in zip(fed, [INPUT, *names], strict=True):
        if sources != {below}:
            fed_by = ", ".join(sorted(sources)) or "nothing"
            raise UserError("dtp needs a chain of nodes, each fed by the one before it alone; "
                            f"{name} should be fed by {below} and is by {fed_by}")  # fmt: skip
    above = dict(pairwise(names[1:]))
    for name, up in above.items():
        if net.a[name].size != net.h[up].size:
            units, reached = net.a[name][0].size, net.h[up][0].size
            raise UserError(f"dtp must invert what lies between nodes {name} and {up}, but there {units} units become "
                            f"{reached}; only the first node may be followed by pooling and the like")  # fmt: skip
    return above
