"""`check_rule`: does a learning rule satisfy its contract, and what its docstring declares?"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import nodepert.training.hyper  # noqa: F401  (there a Spec becomes a pytree, whose floats are leaves)
from nodepert.core import Array, Key, Params, Rule
from nodepert.diagnostics.conformance.cases import (
    BATCH,
    Case,
    case,
    declared_bias,
    declared_derivative,
    refusal,
    small_networks,
    subject_of,
)
from nodepert.diagnostics.conformance.common import alike, compiled, must, require, same, same_bits
from nodepert.diagnostics.conformance.mean import PER_PASS, SINGLES, Estimates, check_mean, estimates, finite
from nodepert.diagnostics.declared import BIASES
from nodepert.models.heads import headed
from nodepert.registry.generator import pinned
from nodepert.training.losses import mse

Step = Callable[[Key, Any], tuple[Params, Any, Any]]  # (key, state) -> (grads, state, Info)
ONE_KEY = "one key gives two results; draw all noise from the key that grads is given"


@pinned()
def check_rule(
    rule: str | Callable[..., Rule],
    *,
    bias: str | None = None,
    derivative: bool | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> None:
    """Check that a rule satisfies the contract and what it declares, on three small networks.

    Gradients, state and Info have the right structure, shapes and dtypes, for any batch size and in bfloat16; one key
    gives the same bits twice; a step compiles once, and runs under jit, scan and vmap; no key is consumed twice, as far
    as JAX's own check sees; float arguments may be traced; a scalar loss is refused; a loss that must not be
    differentiated is not.

    An exact rule gives the gradient. An unbiased rule gives it as the mean of its draws, once its state has met the
    examples: a wrong factor (1.15 in all), a wrong sign, and noise shared by examples whose losses are averaged are
    detected (see mean.py). A biased rule has a mean that is not zero, at every node. A network that the rule refuses by
    a UserError for not being a chain is left out; one that it refuses for having no heads is given heads.

    Args:
        rule: A factory, (model, loss, *, ...) -> Rule, or a spec.
        bias: "exact", "unbiased" or "biased"; None: what the docstring declares. Give it for a form of the rule that
            differs from the default one.
        derivative: Whether the rule differentiates the loss; None: what the docstring declares.
        draws: Number of draws for the mean of an unbiased rule, rounded up to a multiple of 512.
        seed: Seed of weights, examples and noise.

    Raises:
        AssertionError: A violation, in one sentence: where it is, what it is, what to do.
        ValueError: If `bias` is another word.

    Examples:
        >>> from nodepert.testing import check_rule
        >>> check_rule("np(samples=2)")
    """
    subject = subject_of(rule)
    bias = bias or declared_bias(subject)
    if bias not in BIASES:
        raise ValueError(f"bias must be one of {', '.join(BIASES)}; got {bias!r}")
    derivative = declared_derivative(subject) if derivative is None else derivative
    draws = -(-draws // PER_PASS) * PER_PASS if bias == "unbiased" else SINGLES
    with jax.debug_key_reuse(True):
        for kind, (model, shape) in small_networks().items():
            where = f"rule '{subject.name}' on a small {kind} network"
            on = case(subject, where, model, shape, seed)
            if "heads" in (refused := refusal(on)):
                on = case(subject, f"{where} with heads", headed(model, shape, classes=3), shape, seed)
            if kind == "residual" and "chain" in refused:
                continue
            check_shapes(on.where, on, on.numbers, on.params, on.batch[0], (BATCH, BATCH - 1, 1))
            single = check_steps(on, derivative) if kind == "fully connected" else None
            found = estimates(on, draws, scan=bool(single))
            if single:
                check_transformed(on, *single, found)
            check_mean(on.where, bias, found)


def check_shapes(where: str, on: Case, numbers: Any, params: Params, x: Array, sizes: tuple[int, ...]) -> None:
    """By tracing alone: structures, shapes and dtypes, and that a scalar loss is refused."""
    y = on.batch[1]

    def traced(size, loss, key):
        rule = on.build(numbers, loss)
        state = rule.init(key, params, x)
        return rule.init(key, params, x[:1]), state, *rule.grads(key, state, params, (x[:size], y[:size]))

    for size in sizes:
        with must(where, f"it cannot be traced for a batch of {size}"):
            single, state, grads, new, info = jax.eval_shape(partial(traced, size, mse), on.key(0))
        alike(where, "state from an init with one example (as in training)", single, state)
        alike(where, "gradients", grads, params)
        alike(where, f"state after a step with a batch of {size}", new, state)
        of = f"for {size} examples, not"
        require(info.loss.shape == (size,), where, f"Info.loss must have shape {(size,)} {of} {info.loss.shape}")
        outputs = info.outputs.shape
        require(outputs[:1] == (size,), where, f"Info.outputs must have shape ({size}, ...) {of} {outputs}")

    refused = False
    with must(where, "a scalar loss must be a ValueError"):
        try:
            jax.eval_shape(partial(traced, BATCH, lambda outputs, y: mse(outputs, y).mean()), on.key(0))
        except ValueError:
            refused = True
    require(refused, where, "a scalar loss is accepted; call losses by core.per_example, which refuses it")


def check_steps(on: Case, derivative: bool) -> tuple[Step, Any]:
    """Steps repeat bit by bit, compile once, and take traced numbers, one example and bfloat16: (step, state)."""
    where, numbers, traces = on.where, jax.tree.map(jnp.asarray, on.numbers), []

    @compiled
    def traced(numbers, key, state, batch):
        traces.append(len(batch[0]))
        return on.build(numbers, mse).grads(key, state, on.params, batch)

    def step(key, state, batch=on.batch):
        return traced(numbers, key, state, batch)

    with must(where, "init fails"):
        state = compiled(on.rule.init)(on.key(0), on.params, on.batch[0])
    require(repeats(on, state), where, ONE_KEY)
    with must(where, "its float arguments cannot be traced (use jnp on them, not math, and jnp.where, not if)"):
        singles = threaded(step, on, 3, state)
    strong = "let init return arrays of the dtypes that grads returns, as jnp.float32(0) in place of 0.0"
    require(len(traces) == 1, where, f"a later step is compiled again; {strong}")
    with must(where, "it fails when called once more, or for a batch of one"):
        require(same_bits(singles, threaded(step, on, 3, state)), where, ONE_KEY)
        finite(f"{where}, batch of one", step(on.key(1), state, jax.tree.map(lambda a: a[:1], on.batch))[0])

    params, x = jax.tree.map(lambda a: a.astype(jnp.bfloat16), (on.params, on.batch[0]))
    check_shapes(f"{where}, params of bfloat16", on, numbers, params, x, (BATCH,))
    if not derivative:
        require(not differentiates(on, state), where, "it is declared not to differentiate the loss, and does")
    return step, state


def check_transformed(on: Case, step: Step, state: Any, found: Estimates) -> None:
    """Gradients under scan and vmap are those of single steps."""
    singly = threaded(step, on, 3, state)
    same(on.where, "gradients under lax.scan and of single steps", found.first, singly)
    singly = threaded(lambda key, _: step(key, found.settled), on, 4, found.settled)
    same(on.where, "gradients vmapped over keys and of single steps", found.few, singly)


def repeats(on: Case, state: Any) -> bool:
    """Whether a step is the same computation whenever it is traced; if not, whether its results are the same."""

    def trace():
        fresh = lambda *arguments: on.rule.grads(*arguments)  # JAX caches the trace of a function  # noqa: E731
        closed = jax.make_jaxpr(fresh)(on.key(1), state, on.params, on.batch)
        return re.sub("0x[0-9a-f]+", "", str(closed)), closed.consts

    (text, values), (other, others) = trace(), trace()
    if text == other and all(a is b or same_bits(a, b) for a, b in zip(values, others, strict=True)):
        return True
    return same_bits(*(on.rule.grads(on.key(1), state, on.params, on.batch)[0] for _ in range(2)))


def differentiates(on: Case, state: Any) -> bool:
    """Whether a step asks for a derivative of the loss, by tracing alone; it may catch the error that it gets."""
    asked: list[bool] = []

    @jax.custom_jvp
    def watched(outputs):
        return outputs

    @watched.defjvp
    def _(primals, tangents):
        asked.append(True)
        raise ValueError("the loss was differentiated")

    rule = on.build(on.numbers, lambda outputs, targets: mse(watched(outputs), targets))
    with contextlib.suppress(ValueError):
        jax.eval_shape(rule.grads, on.key(1), state, on.params, on.batch)
    return bool(asked)


def threaded(step: Step, on: Case, use: int, state: Any) -> Any:
    """The gradients of the first steps, one after another, stacked."""
    steps = []
    for i in range(SINGLES):
        grads, state, _ = step(jax.random.fold_in(on.key(use), i), state)
        steps.append(grads)
    return jax.tree.map(lambda *g: np.stack(g), *steps)
