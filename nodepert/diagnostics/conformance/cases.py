"""The input of `check_rule`: a rule (a factory or a spec), what it declares, and small networks to run it on."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from nodepert import registry
from nodepert.core import Array, Key, Loss, Model, Params, Rule, plain
from nodepert.diagnostics.conformance.common import must, require
from nodepert.diagnostics.declared import bias_of
from nodepert.errors import UserError
from nodepert.models.layers import conv2d, dense, xavier
from nodepert.registry.catalogue import CONTEXT
from nodepert.registry.spec import Spec
from nodepert.rules.noise import key_of
from nodepert.training.losses import mse

BATCH = 4  # examples


class Subject(NamedTuple):
    """The rule that is checked."""

    name: str
    build: Callable[..., Rule]  # of (numbers, model, loss)
    numbers: Any  # its float arguments, a pytree
    facts: dict[str, str]
    around: list[Subject]  # the rules that a combinator wraps


class Case(NamedTuple):
    """The rule on one network, with a batch."""

    where: str
    build: Callable[[Any, Loss], Rule]  # of (numbers, loss)
    numbers: Any
    rule: Rule
    network: Model  # the one that the rule trains
    params: Params
    batch: tuple[Array, Array]
    seed: int

    def key(self, use: int) -> Key:
        """A new key object at every call: each is for one use."""
        return jax.random.fold_in(key_of(self.seed), use)


def subject_of(rule: str | Spec | Callable[..., Rule]) -> Subject:
    """The rule that a spec or a factory means. Raises AssertionError for an argument without default."""

    def by_spec(numbers, model, loss):
        return registry.make("rule", numbers, model, loss)

    def by_factory(numbers, model, loss):
        return cast(Callable[..., Rule], rule)(model, loss, **numbers)

    if isinstance(rule, str | Spec):
        numbers = registry.full("rule", rule)
        name, build, facts = str(rule), by_spec, registry.facts("rule", numbers.name)
        values = registry.inner("rule", numbers)
    else:
        factory = rule.func if isinstance(rule, partial) else rule
        name, build = getattr(factory, "__name__", str(factory)), by_factory
        facts = registry.said(inspect.getdoc(factory) or "")
        given = list(inspect.signature(rule, eval_str=True).parameters.values())[CONTEXT["rule"] :]
        for p in given:
            bound = f"argument '{p.name}' has no default; give it one, or bind it by functools.partial"
            require(p.default is not p.empty, f"rule '{name}'", bound)
        numbers = {p.name: float(p.default) for p in given if p.annotation is float}
        values = [p.default for p in given]
    return Subject(name, build, numbers, facts, [subject_of(v) for v in values if isinstance(v, Spec)])


def declared_bias(subject: Subject) -> str:
    """exact, unbiased or biased, by the docstring. Raises AssertionError where it does not say."""
    form = subject.numbers if isinstance(subject.numbers, Spec) else None
    bias = bias_of(subject.facts, map(declared_bias, subject.around), form)
    how = "begin a paragraph of its docstring with 'Bias: exact', 'Bias: unbiased' or 'Bias: biased', or give bias="
    require(bias, f"rule '{subject.name}'", f"it does not declare its bias; {how}")
    return str(bias)


def declared_derivative(subject: Subject) -> bool:
    """Whether "Derivative of the loss: ..." is anything but "not needed"; of a combinator, for a rule that it wraps."""
    text = subject.facts.get("Derivative of the loss", "")
    how = "write 'Derivative of the loss: needed.' or 'not needed.' into its docstring, or give derivative="
    require(text, f"rule '{subject.name}'", f"it does not declare whether it differentiates the loss; {how}")
    if subject.around and text.startswith(("as ", "needed where")):
        return any(map(declared_derivative, subject.around))
    return not text.startswith("not needed")


def case(subject: Subject, where: str, model: Model, shape: tuple[int, ...], seed: int) -> Case:
    """The rule on this network, with random parameters and a random batch. Raises AssertionError if it fails."""
    random = np.random.default_rng(seed)  # jax.random would have to be compiled
    x, y = random.normal(size=(BATCH, *shape)).astype(np.float32), random.integers(0, 3, BATCH).astype(np.int32)
    batch = jnp.asarray(x), jnp.asarray(y)

    def build(numbers, loss):
        return subject.build(numbers, model, loss)

    with must(where, "it cannot be built"):
        rule = build(subject.numbers, mse)
        network = rule.model(batch[0][:1]) if rule.model else model
        # Not at the initial params: there biases are zero, and what a rule adds to a network may be the identity.
        start = network.init(key_of(seed))
        params = jax.tree.map(lambda p: p + (0.1 * random.normal(size=p.shape)).astype(p.dtype), start)
    return Case(where, build, subject.numbers, rule, network, params, batch, seed)


def refusal(case: Case) -> str:
    """The message of the UserError by which the rule refuses this network; empty if it does not."""

    def step(key, params, x, y):
        return case.rule.grads(key, case.rule.init(key, params, x), params, (x, y))

    try:
        with jax.debug_key_reuse(False):
            jax.eval_shape(step, case.key(0), case.params, *case.batch)
    except UserError as error:
        return str(error)
    except Exception:  # no refusal: the checks report it
        return ""
    return ""


def small_networks() -> dict[str, tuple[Model, tuple[int, ...]]]:
    """{kind: (network, shape of its inputs)}; smooth, as finite differences across the kink of a ReLU are biased."""

    def chain(params, x, node=plain):
        h = jnp.tanh(node("fc0", dense, params["fc0"], x))
        h = jnp.tanh(node("fc1", dense, params["fc1"], h))
        return node("out", dense, params["out"], h)

    def convolutional(params, x, node=plain):
        h = jnp.tanh(node("conv0", conv2d(2), params["conv0"], x))
        return node("out", dense, params["out"], h.reshape(len(x), -1))

    def residual(params, x, node=plain):
        h = jnp.tanh(node("fc0", dense, params["fc0"], x))
        h = h + jnp.tanh(node("fc1", dense, params["fc1"], h))  # what reaches the output is a sum of two nodes
        return node("out", dense, params["out"], h)

    return {
        "fully connected": (network(chain, fc0=(5, 7), fc1=(7, 6), out=(6, 3)), (5,)),
        "convolutional": (network(convolutional, conv0=(3, 3, 2, 3), out=(12, 3)), (4, 4, 2)),
        "residual": (network(residual, fc0=(5, 6), fc1=(6, 6), out=(6, 3)), (5,)),
    }


def network(apply: Callable[..., Array], **shapes: tuple[int, ...]) -> Model:
    """A network with weights of these shapes, {node: shape}."""

    def init(key):
        keys = jax.random.split(key, len(shapes))
        return {name: xavier(k, shape) for k, (name, shape) in zip(keys, shapes.items(), strict=True)}

    return Model(init, apply)
