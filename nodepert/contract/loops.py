"""Nodes inside a loop over time steps, or inside `jax.checkpoint`.

A handler of nodes is a plain function, and may write what it sees into a dictionary. Inside `jax.lax.scan` that would
be a value of one step, which means nothing outside. `scan` opens a *frame*: what handlers keep at a step (`keep`)
leaves the loop as its outputs, stacked, (B, T, ...), and what they bring, such as noise (B, T, ...), is given to them
step by step (`at_step`). So a handler sees one pre-activation (B, T, ...) of each node, and the loop is compiled once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

try:
    from jax.extend.core import get_opaque_trace_state
except ImportError:  # jax 0.7
    from jax.core import get_opaque_trace_state as _opaque_trace_state

    get_opaque_trace_state = partial(_opaque_trace_state, "nodepert")

Array: TypeAlias = jax.Array
_time_first, _time_second = (partial(jnp.moveaxis, source=a, destination=b) for a, b in ((1, 0), (0, 1)))
_current: ContextVar[Frame | None] = ContextVar("frame", default=None)
_horizon: ContextVar[int] = ContextVar("horizon", default=0)


class Frame:
    """What handlers bring into one loop, and keep of its steps."""

    def __init__(self, length: int | None = None):
        self.length = length  # steps; None for a checkpoint
        self.parent, self.outer = _current.get(), get_opaque_trace_state()
        self.inner: Any = None  # the trace of a step
        self.brought: dict[int, Array] = {}  # id -> array (B, T, ...)
        self.slices: dict[int, Array] = {}  # id -> its part at this step
        self.step: Any = None  # its number; None where there are no steps
        self.owners: dict[int, tuple[dict[str, Any], Any]] = {}  # id -> a handler's dictionary, and its trace
        self.kept: dict[str, dict[tuple[int, str], Any]] = {}

    @contextmanager
    def entered(self, slices: dict[int, Array], step: Any) -> Iterator[None]:
        """Within one step: handlers find its slices, and keep anew."""
        self.inner, self.slices, self.step = get_opaque_trace_state(), slices, step
        self.kept = {"stacked": {}, "summed": {}}
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)

    def at_step(self, array: Array) -> Array:
        """array[:, t], of an array from outside of all loops."""
        if id(array) in self.slices:
            return self.slices[id(array)]
        self.brought[id(array)] = array
        array = self.around(array)
        return array if self.step is None else jax.lax.dynamic_index_in_dim(array, self.step, 1, keepdims=False)

    def around(self, array: Array) -> Array:
        """The array at the step of the loops around this one."""
        return self.parent.at_step(array) if self.parent else array

    def lengths(self) -> tuple[int, ...]:
        """The steps of the loops around, from the outermost."""
        around = self.parent.lengths() if self.parent else ()
        return around if self.length is None else (*around, self.length)

    def number(self) -> Any:
        """The number of the step, counted through the loops around."""
        around = self.parent.number() if self.parent else None
        if self.length is None or around is None:
            return self.step if around is None else around
        return around * self.length + self.step

    def reaches(self, trace: Any, here: Any) -> bool:
        """Whether nothing but loops of `scan` lies between a trace and this place."""
        if here != self.inner:
            return False
        return self.outer == trace or (self.parent is not None and self.parent.reaches(trace, self.outer))

    def hand_over(self, how: str, kept: dict[tuple[int, str], Any]) -> None:
        """After the loop: put what was kept into the dictionaries of its handlers."""
        for owner, name in (key for key in self.kept[how] if key in kept):  # in the order of the calls
            record, trace = self.owners[owner]
            keep(record, name, kept[owner, name], trace, summed=how == "summed")


def keep(record: dict[str, Any], name: str, value: Any, trace: Any, *, summed: bool = False) -> None:
    """Write what a handler sees at a node into its dictionary; `scan` stacks it, (B, T, ...), or sums it over steps.

    Raises ValueError for a second node of this name, and under a transformation between the handler, whose trace is
    given, and the node: a value written there would be stale, and gradients silently wrong.
    """
    here, frame, key = get_opaque_trace_state(), _current.get(), name
    into: dict[Any, Any] = record
    if frame and frame.reaches(trace, here):
        frame.owners[id(record)] = record, trace
        into, key = frame.kept["summed" if summed else "stacked"], (id(record), name)
    elif here != trace:
        raise ValueError(
            f"node '{name}' is called under jit, scan, vmap, grad or checkpoint inside the model; call nodes directly "
            "in `apply` (in a Python loop over layers), loop over time steps by npt.scan, and transform the whole model"
        )
    if key in into:
        raise ValueError(f"two nodes are named '{name}'; give every node of a model its own name")
    into[key] = value


def reached(trace: Any) -> bool:
    """Whether this place is in the given trace, or only loops of `scan` lie between."""
    here, frame = get_opaque_trace_state(), _current.get()
    return here == trace or bool(frame and frame.reaches(trace, here))


def at_step(array: Array) -> Array:
    """array[:, t] of an array (B, T, ...) inside a step of `scan`; elsewhere the array itself."""
    frame = _current.get()
    return frame.at_step(array) if frame else array


def now() -> Any:
    """The number of the step, inside a step of `scan`; elsewhere None."""
    frame = _current.get()
    return frame.number() if frame else None


def stacked_shape(a: Array) -> jax.ShapeDtypeStruct:
    """The shape of a node's value over all steps of the loop that calls it: (B, ...) -> (B, T, ...)."""
    frame = _current.get()
    return jax.ShapeDtypeStruct((a.shape[0], *(frame.lengths() if frame else ()), *a.shape[1:]), a.dtype)


@contextmanager
def truncated(steps: int) -> Iterator[None]:
    """Within it, derivatives through `scan` end at every so many steps; 0: nowhere."""
    token = _horizon.set(steps)
    try:
        yield
    finally:
        _horizon.reset(token)


def scan(
    step: Callable[..., Any], node: Callable[..., Array], carry: Any, xs: Any = None, length: int | None = None
) -> tuple[Any, Any]:
    """Loop over time steps, with nodes inside: a recurrent network.

        carry_t, y_t = step(node, carry_{t-1}, x_t),    t = 1, ..., T

    `jax.lax.scan` with time as the second axis. Rules see the T calls of a node as one, of pre-activation (B, T, ...):
    noise and error signals have a time axis, and the local gradient is sum_t s_t z_t^T, with presynaptic activity
    z_t. Backpropagation through it is backpropagation through time. The time to compile does not grow with T.

    Args:
        step: (node, carry, x_t) -> (carry, y_t); calls nodes as a model does.
        node: The node handler that the model received.
        carry: What the first step receives, as zeros (B, n); its shapes and types do not change.
        xs: Inputs, a pytree of arrays (B, T, ...), or None.
        length: T, where there are no inputs.

    Returns:
        (carry after the last step, outputs (B, T, ...)).

    Raises:
        ValueError: Neither inputs nor a length, two nodes of one name, or a node under another transformation.

    Examples:
        >>> import jax, jax.numpy as jnp, nodepert as npt
        >>> from nodepert.models.layers import dense, xavier
        >>> def init(key):
        ...     return {"in": xavier(key, (3, 8)), "out": xavier(key, (8, 2))}
        >>> def apply(params, x, node=npt.plain):  # x: (B, T, 3)
        ...     def leaky(node, h, x_t):
        ...         h = 0.9 * h + jnp.tanh(node("in", dense, params["in"], x_t))
        ...         return h, node("out", dense, params["out"], h)
        ...     return npt.scan(leaky, node, jnp.zeros((len(x), 8)), x)[1]
        >>> apply(init(jax.random.key(0)), jnp.ones((4, 10, 3))).shape
        (4, 10, 2)
    """
    leaves = jax.tree.leaves(xs)
    if not leaves and length is None:
        raise ValueError("scan needs inputs, arrays (B, T, ...), or length=T")
    steps = leaves[0].shape[1] if leaves else length
    frame, horizon = Frame(steps), _horizon.get()

    def one(carry: Any, x: Any, slices: dict[int, Array], number: Any) -> tuple[Any, Any, dict[str, Any]]:
        with frame.entered(slices, number):
            carry, y = step(node, carry, x)
            return carry, y, frame.kept

    first = jax.tree.map(lambda a: a[:, 0], xs)
    found = jax.eval_shape(lambda carry, x: one(carry, x, {}, 0), carry, first)[2]  # what handlers bring and keep
    arrays = {key: frame.around(array) for key, array in frame.brought.items()}

    def body(state: Any, inputs: Any) -> tuple[Any, Any]:
        carry, sums = state
        if horizon:
            carry = jax.tree.map(lambda c: jnp.where(inputs[2] % horizon != 0, c, jax.lax.stop_gradient(c)), carry)
        carry, y, kept = one(carry, *inputs)
        return (carry, jax.tree.map(jnp.add, sums, kept["summed"])), (y, kept["stacked"])

    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), found["summed"])
    inputs = *jax.tree.map(_time_first, (xs, arrays)), jnp.arange(steps)
    (carry, sums), (ys, stacked) = jax.lax.scan(body, (carry, zeros), inputs, length=steps)
    frame.hand_over("summed", sums)
    frame.hand_over("stacked", jax.tree.map(_time_second, stacked))
    return carry, jax.tree.map(_time_second, ys)


def checkpoint(f: Callable[..., Any], node: Callable[..., Array], *args: Any) -> Any:
    """f(node, *args), computed again in the backward pass instead of stored: `jax.checkpoint` with nodes inside.

    Args:
        f: (node, *args) -> pytree of arrays; calls nodes as a model does.
        node: The node handler that the model received.
        args: Pytrees of arrays, as parameters and activity.

    Returns:
        What f returns.

    Raises:
        ValueError: Two nodes have one name, or a node is called under another transformation.

    Examples:
        >>> import jax, jax.numpy as jnp, nodepert as npt
        >>> from nodepert.models.layers import dense, xavier
        >>> def block(node, params, h):
        ...     return jnp.tanh(node("block", dense, params, h))
        >>> params = xavier(jax.random.key(0), (3, 3))
        >>> npt.checkpoint(block, npt.plain, params, jnp.ones((4, 3))).shape
        (4, 3)
    """
    frame = Frame()

    @jax.checkpoint
    def once(*args):
        with frame.entered({}, None):
            return f(node, *args), frame.kept

    value, kept = once(*args)
    for how, of in kept.items():
        frame.hand_over(how, of)
    return value
