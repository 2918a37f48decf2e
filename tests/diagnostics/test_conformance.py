"""The conformance tests: what is registered passes them, and every mutant fails with a message of its own.

That a rule's mean is what it declares, the gradient for most, is tested here for all rules and forms, and nowhere else.
"""

import re
from collections import OrderedDict
from functools import partial
from itertools import cycle, product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import SMALL_NETWORKS

from nodepert import registry
from nodepert.core import (
    Info,
    Model,
    Rule,
    adding,
    backprop,
    expand,
    node_shapes,
    per_example,
    plain,
    pullback,
    stateless,
)
from nodepert.diagnostics.conformance import mean
from nodepert.diagnostics.conformance.cases import (
    case,
    declared_bias,
    declared_derivative,
    small_networks,
    subject_of,
)
from nodepert.diagnostics.conformance.mean import check_mean, estimates
from nodepert.errors import UserError
from nodepert.models.layers import dense, xavier
from nodepert.models.wiring import wiring
from nodepert.registry.spec import BY_NODE, Spec
from nodepert.rules.direct import direct_feedback_alignment
from nodepert.rules.feedback import feedback_alignment
from nodepert.rules.node import node_perturbation
from nodepert.rules.noise import draw
from nodepert.testing import check_model, check_rule

pytestmark = pytest.mark.usefixtures("quickly_compiled")
WRAPPING = {
    "decorrelate": "decorrelate(np)",
    "local": "local(np)",
    BY_NODE: "np; out=exact",
}  # a combinator is checked with another rule
DRAWS = {"reinforce": 4000}  # noisy rules need more
OTHER_CODE = {  # forms that are other code than the default ones
    "np(difference=jvp)": {"derivative": True},
    "np(baseline=running)": {},
    "dfa(error=softmax)": {"derivative": False},
    "opzo(difference=single)": {},
}
OTHER_CODE_SLOW = {
    "decorrelate('dfa; out=np')": {},
    "wp(rank=2)": {"draws": 4000},
    "np(sharing=batch, noise=rademacher)": {},
    "np(presynaptic=noisy)": {},
    "np(samples=2, estimate=projected)": {},
    "wp(sharing=example)": {},
    "np(noise=sphere, samples=3, difference=central)": {},
    "np(baseline=running, presynaptic=clean)": {},
    "inp(difference=jvp)": {"derivative": True},
    "anp(difference=central, samples=2)": {},
    "wp(rank=1, sharing=example)": {"draws": 4000},
}


@pytest.mark.parametrize("spec", [WRAPPING.get(name, name) for name in registry.names("rule")])
def test_every_registered_rule_satisfies_the_contract_and_what_it_declares(spec):
    check_rule(spec, draws=DRAWS.get(spec, 2000))


@pytest.mark.parametrize("spec", [*OTHER_CODE, *(pytest.param(f, marks=pytest.mark.slow) for f in OTHER_CODE_SLOW)])
def test_other_forms_of_the_rules_satisfy_them(spec):
    check_rule(spec, **(OTHER_CODE | OTHER_CODE_SLOW)[spec])


NOISES, DIFFERENCES = ("gaussian", "rademacher", "sphere"), ("forward", "central", "jvp")
FORMS = [  # every option of the unbiased rules, together with others of its kind
    *(f"np(noise={n}, difference={d}, sharing={s})"
      for (n, d), s in zip(product(NOISES, DIFFERENCES), cycle(("example", "batch")))),
    "np(presynaptic=noisy, difference=central, sharing=batch, samples=2)",
    "np(baseline=running, noise=rademacher, samples=2)",
    "np(baseline=running, presynaptic=clean)",
    "np(samples=3)",
    "np(replay=True, samples=2)",
    "np(noise=orthogonal, samples=4)",
    "np(noise=sparse, share=0.5)",
    "np(samples=2, estimate=rescaled)",
    "np(active=True)",
    "np(head=evaluated, difference=central)",
    "np(active=True, head=evaluated, guide=feedback, difference=jvp)",
    "np(active=True, head=evaluated, guide=chain, noise=orthogonal, samples=2)",
    "np(head=evaluated, guide=last, noise=sphere, sharing=batch)",
    "np(head=evaluated, guide=dfa, noise=rademacher)",
    *(f"inp(noise={n}, difference={d})" for n, d in zip(NOISES, DIFFERENCES, strict=True)),
    "inp(samples=2)",
    *(f"wp(difference={d}, sharing={s}, rank={r})"
      for (s, r), d in zip(product(("batch", "example"), (0, 1)), cycle(DIFFERENCES))),
    "wp(noise=rademacher, rank=3)",
    "wp(noise=sphere)",
    "wp(active=True)",
    "wp(active=True, rank=2, sharing=example, noise=orthogonal)",
    "wp(rank=3, noise=orthogonal)",
    "wp(samples=3)",
]  # fmt: skip
ALL_FORMS = [
    "np(noise=sphere, samples=3, difference=central)",
    "wp(samples=3, rank=2)",
    *(f"{r}(noise={n}, difference={d}, sharing={s})"
      for r, n, d, s in product(("np", "wp"), NOISES, DIFFERENCES, ("example", "batch"))),
    *(f"inp(noise={n}, difference={d})" for n, d in product(NOISES, DIFFERENCES)),
    *(f"wp(difference={d}, sharing={s}, rank=1)" for d, s in product(DIFFERENCES, ("batch", "example"))),
    *(f"wp(noise={n}, rank=3)" for n in NOISES[1:]),
]  # fmt: skip


@pytest.mark.usefixtures("strict_dtypes")
@pytest.mark.parametrize(
    "form", [*FORMS, *(pytest.param(f, marks=pytest.mark.slow) for f in ALL_FORMS if f not in FORMS)]
)
def test_the_mean_is_the_gradient_in_every_form_and_a_wrong_scale_is_found(form):
    """The limit of the gain's error, 0.035, puts a scale error of 25% six errors from 1."""
    with jax.debug_key_reuse("replay" not in form):  # which uses its keys twice
        on = case(subject_of(form), f"rule '{form}'", *small_networks()["fully connected"], seed=1)
        found = estimates(on, 4096 if form.startswith("wp") else 2048)
    check_mean(on.where, "unbiased", found)
    for factor in (1.25, -1):
        wrong = found._replace(draws={node: factor * draws for node, draws in found.draws.items()})
        with pytest.raises(AssertionError, match="is a factor or a sign wrong"):
            check_mean(on.where, "unbiased", wrong)


def test_a_rule_that_is_not_registered_is_checked_as_a_factory():
    check_rule(partial(direct_feedback_alignment, error="linear", seed=1), derivative=False)


@pytest.mark.parametrize("name", registry.names("network"))
def test_every_registered_network_satisfies_the_contract(name):
    check_model(SMALL_NETWORKS.get(name, name), (4, 4, 3))


# ----------------------------------------------------------------------------------- what is declared


def test_a_combinator_declares_what_it_wraps():
    def declared(spec):
        return declared_bias(subject_of(spec)), declared_derivative(subject_of(spec))

    assert declared("decorrelate(np)") == ("unbiased", False)
    assert declared("decorrelate(sgd)") == ("exact", True)
    assert declared("np; out=exact") == ("unbiased", True)
    assert declared("decorrelate('np; out=fa')") == ("biased", True)
    assert declared(partial(registry.resolve("rule", "decorrelate"), rule=Spec("anp"))) == ("biased", False)


def test_what_is_not_declared_is_asked_for():
    def silent(model, loss):
        return backprop(model, loss)

    def half_silent(model, loss):
        """Bias: exact."""
        return backprop(model, loss)

    def demanding(model, loss, *, strength: float):
        return backprop(model, loss)

    with pytest.raises(AssertionError, match="rule 'silent': it does not declare its bias; begin a paragraph"):
        check_rule(silent)
    with pytest.raises(AssertionError, match="'half_silent': it does not declare whether it differentiates the loss"):
        check_rule(half_silent)
    with pytest.raises(AssertionError, match="'demanding': argument 'strength' has no default"):
        check_rule(demanding, bias="exact", derivative=True)
    with pytest.raises(ValueError, match="bias must be one of exact, unbiased, biased; got 'low'"):
        check_rule(silent, bias="low")


def test_key_reuse_is_checked_during_check_rule_only():
    with jax.debug_key_reuse(False):
        check_rule("sgd")
        assert not jax.config.jax_debug_key_reuse


# ----------------------------------------------------------------------------------- mutants of a rule


def altered(alter, state=lambda size: ()):
    """A factory of node perturbation, whose (grads, state, Info) are altered; `state(batch size)` is the first."""

    def mutant(model, loss, *, sigma: float = 1e-3):
        rule = node_perturbation(model, loss, sigma=sigma, noise="rademacher")

        def grads(key, state, params, batch):
            found, _, info = rule.grads(key, (), params, batch)
            return alter(found, state, info)

        return Rule(lambda key, params, x: state(len(x)), grads)

    return mutant


def by_hand(drawn=draw, losses=per_example, credit=lambda change, sigma, xi: change / sigma * xi):
    """A factory of node perturbation, written out, of which one part may err."""

    def mutant(model, loss, *, sigma: float = 1e-3):
        def grads(key, state, params, batch):
            x, y = batch
            outputs = model.apply(params, x)
            xi = drawn(key, node_shapes(model, params, x))
            noisy = model.apply(params, x, adding(times(xi, sigma)))
            clean, change = losses(loss, outputs, y), losses(loss, noisy, y) - losses(loss, outputs, y)
            signals = {name: credit(expand(change, v), sigma, v).astype(v.dtype) for name, v in xi.items()}
            return pullback(model, params, x, times(signals, 1 / len(x))), state, Info(clean, outputs)

        return Rule(stateless, grads)

    return mutant


def times(tree, factor):
    return jax.tree.map(lambda v: (factor * v).astype(v.dtype), tree)


def one_draw_for_all(key, shapes):
    one = draw(key, {n: jax.ShapeDtypeStruct((1, *s.shape[1:]), s.dtype) for n, s in shapes.items()})
    return {n: jnp.broadcast_to(v, shapes[n].shape) for n, v in one.items()}


def one_key_for_all(key, shapes):
    return {n: jax.random.normal(key, s.shape, s.dtype) for n, s in shapes.items()}


def on_the_host(key, shapes):
    scale = jax.pure_callback(np.float32, jax.ShapeDtypeStruct((), "float32"), 1 + 0 * jax.random.uniform(key))
    return times(draw(key, shapes), scale)


@jax.custom_batching.custom_vmap
def twice_if_vmapped(v):
    return v


@twice_if_vmapped.def_vmap
def _(size, batched, v):
    return 2 * v, batched[0]


def learn_when_better(change, sigma, xi):
    return change / sigma * xi if change.mean() < 0 else 0 * xi


def only_small(change, sigma, xi):
    return change / sigma * xi if sigma < 1 else xi


def standardised(change, sigma, xi):
    return (change - change.mean()) / change.std() * xi


def secretive(model, loss):
    """Takes the derivative where it can be had."""

    def grads(key, state, params, batch):
        try:
            return backprop(model, loss).grads(key, state, params, batch)
        except ValueError:
            return node_perturbation(model, loss).grads(key, state, params, batch)

    return Rule(stateless, grads)


def cast(grads, dtype):
    return jax.tree.map(lambda g: g.astype(dtype), grads)


def host_noise(grads):
    return times(grads, 1 + np.random.default_rng().normal())


MUTANTS = {  # what is wrong: (factory, a part of the message)
    "scale": (
        altered(lambda g, s, i: (times(g, 1.15), s, i)),
        r"its mean is 1\.\d+ \+- 0\.0\d+ times the gradient",
    ),
    "sign": (altered(lambda g, s, i: (times(g, -1), s, i)), r"its mean is -[01]\.\d+ .* is a factor or a sign wrong"),
    "one node": (altered(lambda g, s, i: (g | {"fc1": times(g["fc1"], 1.4)}, s, i)), "at node 'fc1': its mean is 1"),
    "no sigma": (by_hand(credit=lambda c, sigma, xi: c * xi), r"its mean is 0\.001"),
    "shared noise": (by_hand(one_draw_for_all, credit=lambda c, s, xi: c.mean() / s * xi), "its mean is"),
    "too noisy": (by_hand(credit=lambda c, s, xi: (c / s + 1) * xi), r"too noisy for 2,048 draws .*; give draws=\d+"),
    "lacks a node": (altered(lambda g, s, i: ({"out": g["out"]}, s, i)), r"gradients lack \['fc0'\]\['b'\], .*'fc1'"),
    "has more": (altered(lambda g, s, i: (g | {"r": jnp.ones(2)}, s, i)), r"gradients must not have \['r'\]"),
    "container": (altered(lambda g, s, i: (OrderedDict(g), s, i)), "gradients must be PyTreeDef.*, but are PyTreeDef"),
    "shape": (altered(lambda g, s, i: (jax.tree.map(jnp.ravel, g), s, i)), r"have shape \(35,\), not \(5, 7\)"),
    "dtype": (altered(lambda g, s, i: (cast(g, "float16"), s, i)), r"at \['fc0'\]\['b'\] are float16, not float32"),
    "in bfloat16": (altered(lambda g, s, i: (cast(g, "float32"), s, i)), "of bfloat16: gradients .* are float32, not"),
    "loss": (altered(lambda g, s, i: (g, s, i._replace(loss=i.loss.mean()))), r"Info.loss must have shape \(4,\)"),
    "outputs": (
        altered(lambda g, s, i: (g, s, i._replace(outputs=i.outputs.T))),
        r"outputs must have shape \(4, \.",
    ),
    "state grows": (altered(lambda g, s, i: (g, (*s, 1.0), i)), r"state after a step .* must not have \[0\]"),
    "state's dtype": (altered(lambda g, s, i: (g, s + 0.5, i), jnp.int32), "state after .* are float32, not int32"),
    "state's size": (altered(lambda g, s, i: (g, s, i), jnp.zeros), r"one example .* have shape \(1,\), not \(4,\)"),
    "weak state": (
        altered(lambda g, s, i: (g, s + jnp.float32(1), i), float),
        "compiled again; let init return arrays",
    ),
    "host noise": (altered(lambda g, s, i: (host_noise(g), s, i)), "one key gives two results; draw all noise"),
    "one key": (by_hand(one_key_for_all), "a random key is used twice; split it, or fold_in"),
    "branch": (by_hand(credit=learn_when_better), "it cannot be traced for a batch of 4: TracerBool"),
    "if sigma": (by_hand(credit=only_small), r"float arguments cannot be traced \(use jnp on them.*TracerBool"),
    "batch of one": (by_hand(credit=standardised), "batch of one: the gradient at .* is not finite"),
    "no vmap": (by_hand(on_the_host), "it cannot run under lax.scan, .* and vmap over keys: "),
    "wrong vmap": (
        altered(lambda g, s, i: (jax.tree.map(twice_if_vmapped, g), s, i)),
        "vmapped over keys and of",
    ),
    "scalar loss": (by_hand(losses=lambda loss, o, y: jnp.broadcast_to(loss(o, y), len(y))), "scalar loss is accepted"),
    "no ValueError": (
        by_hand(losses=lambda loss, o, y: loss(o, y)[:, None][:, 0]),
        "a scalar loss must be a ValueError: ",
    ),
    "derivative": (backprop, "it is declared not to differentiate the loss, and does"),
    "secretive": (secretive, "it is declared not to differentiate the loss, and does"),
}


def message_of(check, *args, **kwargs):
    """The message of the AssertionError that a check must raise: one line that names its subject."""
    with pytest.raises(AssertionError) as caught:
        check(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message and message.startswith(("rule '", "network '", "this network: "))
    return message


@pytest.mark.parametrize("what", MUTANTS)
def test_a_rule_that_breaks_the_contract_or_what_it_declares_fails_with_a_message(what):
    mutant, sentence = MUTANTS[what]
    assert re.search(sentence, message_of(check_rule, mutant, bias="unbiased", derivative=False))


def test_the_corrected_form_of_the_mutants_passes():
    check_rule(by_hand(), bias="unbiased", derivative=False)


@pytest.mark.parametrize("factory", [node_perturbation, feedback_alignment])
def test_what_is_not_exact_is_not_taken_for_it(factory):
    assert re.search(
        r"at node '\w+': it is off the gradient by \d.*, though", message_of(check_rule, factory, bias="exact")
    )


def test_a_biased_rule_must_learn_at_every_node():
    stuck = altered(lambda g, s, i: (g | {"fc1": times(g["fc1"], 0)}, s, i))
    message = message_of(check_rule, stuck, bias="biased", derivative=False)
    assert "at node 'fc1': its mean is zero: nothing is learned there" in message


def test_only_a_network_that_is_not_a_chain_may_be_refused():
    def refusing(reason, network):
        def rule(model, loss):
            def init(key, params, x):
                if network in ("any", "residual" if preactivations_meet(model, params, x) else "chain"):
                    raise UserError(reason)
                return ()

            return backprop(model, loss)._replace(init=init)

        return partial(check_rule, rule, bias="exact", derivative=True)

    refusing("this rule needs a chain of nodes", "residual")()
    assert "residual network: it cannot be traced for a batch of 4: UserError: no" in message_of(
        refusing("no", "residual")
    )
    assert "fully connected network: it cannot be traced" in message_of(
        refusing("this rule needs a chain of nodes", "any")
    )


def preactivations_meet(model, params, x):
    return any(len(sources) > 1 for sources in wiring(model, params, x).inputs.values())


# ----------------------------------------------------------------------------------- mutants of a network


def network(apply, more=()):
    """The parameters of two dense nodes, "a" and "b", and more; and this apply(params, x, node)."""

    def init(key):
        keys = jax.random.split(key)
        return {"a": xavier(keys[0], (5, 4)), "b": xavier(keys[1], (4, 3)), **dict(more)}

    return Model(init, lambda params, x, node=plain: apply(params, x, node))


def layers(between=lambda h, p: h, a=dense, b=dense, names=("a", "b"), more=()):
    """Node "a", tanh, something in between, node "b"."""

    def apply(p, x, node):
        return node(names[1], b, p["b"], between(jnp.tanh(node(names[0], a, p["a"], x)), p))

    return network(apply, more)


def through(apply, more=()):
    """Node "a", tanh, and then apply(activity, params, node)."""
    return network(lambda p, x, node: apply(jnp.tanh(node("a", dense, p["a"], x)), p, node), more)


def passed_through(h):
    """Mixes examples, but in its derivative only."""
    return h + h.mean(0) - jax.lax.stop_gradient(h.mean(0))


TWO, C = layers(), {"c": jnp.ones(4)}
NETWORKS = {  # what is wrong: (network, a part of the message)
    "init": (TWO._replace(init=lambda key: host_noise(TWO.init(key))), "init gives other parameters for the same key"),
    "integer": (layers(more={"steps": jnp.int32(0)}), r"parameter \['steps'\] is not floating"),
    "outputs": (network(lambda p, x, node: TWO.apply(p, x, node).mean(0)), r"the outputs have shape \(3,\); their fir"),
    "unused": (layers(more=C), r"parameter \['c'\] is given to no node; drop it"),
    "closure": (through(lambda h, p, node: node("b", lambda q, h: dense(q, h * p["c"]), p["b"], h), C), "to no node"),
    "bypass": (layers(lambda h, p: h * p["c"], more=C), r"parameter \['c'\] is used outside of nodes"),
    "names": (layers(names=("a", "a")), "two nodes are named 'a'"),
    "no node": (network(lambda p, x, node: dense(p["b"], dense(p["a"], x))), "this model has no nodes"),
    "axis": (
        layers(lambda h, p: h.T, a=lambda q, h: dense(q, h).T),
        r"node 'a' has shape \(4, 3\); its first axis",
    ),
    "vmap": (network(lambda p, x, node: jax.vmap(lambda x: TWO.apply(p, x[None], node)[0])(x)), "'a' is called under"),
    "branch": (layers(lambda h, p: h if h.sum() > 0 else -h), "it cannot be traced: TracerBool"),
    "random": (layers(lambda h, p: host_noise(h)), "one input gives two results; a network draws nothing at random"),
    "handler": (
        network(lambda p, x, node: TWO.apply(p, x if node is plain else 2 * x, node)),
        "with and without a",
    ),
    "batch norm": (layers(lambda h, p: h - h.mean(0)), "examples mix .* alone and in a batch differ at .* by"),
    "in its derivative": (
        layers(lambda h, p: passed_through(h)),
        "examples mix .* derivative by the input of another",
    ),
    "other activity": (
        through(lambda h, p, node: node("b", lambda q, _: dense(q, h), p["b"], h)),
        "pullback of exact",
    ),
    "no derivative": (layers(b=lambda q, h: h @ jnp.sign(q["w"]) + q["b"]), r"\['b'\]\['w'\] gets no credit"),
    "host": (
        layers(lambda h, p: jax.pure_callback(np.sin, jax.typeof(h), h)),
        "it cannot be run under jit, vmap",
    ),
}


@pytest.mark.parametrize("what", NETWORKS)
def test_a_network_that_breaks_the_contract_fails_with_a_message(what):
    mutant, sentence = NETWORKS[what]
    assert re.search(sentence, message_of(check_model, mutant, (5,)))


def test_the_corrected_forms_of_the_mutants_pass():
    check_model(TWO, (5,))
    check_model(through(lambda h, p, node: node("b", lambda q, h: dense(q, h * q["c"]), p["b"] | C, h)), (5,))


def test_a_node_at_which_the_draws_have_no_power_is_no_proof():
    """Its gradient is small, so that all nodes together do not show its noise."""
    rng = np.random.default_rng(0)
    exact = {"large": np.ones(4), "small": np.full(2, 0.01)}
    noise = {"large": 0.1 * rng.standard_normal((2000, 4)), "small": 0.1 * rng.standard_normal((2000, 2))}
    draws = {node: g + noise[node] for node, g in exact.items()}
    with pytest.raises(AssertionError, match=r"too noisy for 2,000 draws to tell its bias; give draws=\d{4}"):
        mean.check_unbiased("here", draws, exact)
    more = {node: g + 0.1 * rng.standard_normal((12_000, len(g))) for node, g in exact.items()}
    mean.check_unbiased("here", more, exact)
