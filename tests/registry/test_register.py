"""`register`: names of the user's own, and invalid ones."""

import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import optax
import pytest
from small import RUN, half

import nodepert as npt
from nodepert import registry
from nodepert.registry import catalogue
from nodepert.registry.spec import Spec


def test_a_registered_factory_can_be_named_in_specs_and_trains_in_replicas(own):
    npt.register("rule", "half", half)
    assert "half" in registry.names("rule") and registry.about("rule", "half") == "Backpropagation, scaled."
    run = replace(RUN, optimizer="sgd", lr=0.1)
    one, other = npt.train([replace(run, rule="half"), replace(run, rule="half(factor=1)")])
    exact = npt.train(replace(run, rule="sgd"))
    halved = npt.train(replace(run, rule="sgd", lr=0.05))
    assert other.test_acc == exact.test_acc and one.rows[-1]["test_loss"] != other.rows[-1]["test_loss"]
    assert one.rows[-1]["test_loss"] == pytest.approx(halved.rows[-1]["test_loss"], rel=1e-5)
    npt.register("rule", "half", lambda model, loss: npt.backprop(model, loss))  # again: replaced
    with pytest.raises(npt.UserError, match="rule 'half' has no argument 'factor'"):
        npt.train(replace(RUN, rule="half(factor=1)"))


def test_a_registered_rule_declares_its_cost(own, monkeypatch):
    npt.register("rule", "half", half)
    assert registry.passes("half") is None and "Cost" not in registry.facts("rule", "half")
    npt.register("rule", "half", half, passes=lambda factor: 3 if factor < 1 else 4)
    assert (registry.passes("half"), registry.passes("half(factor=2)")) == (3, 4)
    assert registry.facts("rule", "half")["Cost"] == "3 forward passes per step"
    monkeypatch.setattr(half, "passes", 5, raising=False)  # an attribute, as in a package
    npt.register("rule", "half", half)
    assert registry.passes("half") == 5


def captured():
    data = npt.load_dataset("digits(train=60,test=20)")
    model, loss = npt.make_model("fc(width=4)", (8, 8, 1), 10), npt.make_loss("mse")
    return {
        "dataset": lambda data_dir, d=data: d,
        "network": lambda shape, classes, m=model: m,
        "rule": lambda model, loss, make=npt.backprop: make(model, loss),
        "loss": lambda outputs, targets, *, f=loss: f(outputs, targets),
        "optimizer": lambda lr, steps, *, makers=(optax.sgd, optax.adam): makers[0](lr),
    }


def test_a_captured_default_is_the_factorys_own(own):
    factories = captured()
    for kind, factory in factories.items():
        npt.register(kind, "mine", factory)
        assert registry.usage(kind, "mine") == ""
    run = npt.Run(**dict.fromkeys(factories, "mine"), batchsize=20, epochs=1)
    assert {run.config[kind] for kind in factories} == {"mine"}
    assert npt.train(run).status == "finished"
    with pytest.raises(npt.UserError, match="dataset 'mine' has no argument 'd'"):
        npt.Run(dataset="mine(d=3)")


def test_a_captured_number_is_an_argument_and_a_positional_spec_is_wrapped(own):
    def wraps(model, loss, inner: Spec, note: str = "none", *, extra=None):
        return registry.make("rule", inner, model, loss)

    npt.register("dataset", "part", lambda data_dir, n=60: npt.load_dataset(f"digits(train={n})"))
    npt.register("rule", "wraps", wraps)
    run = npt.Run(dataset="part(n=50)", network="fc(width=4)", rule="wraps(sgd, note=x)", batchsize=20, epochs=1)
    assert run.config["dataset"] == "part(n=50)" and npt.Run(dataset="part").config["dataset"] == "part(n=60)"
    assert run.config["rule"] == "wraps(sgd, note=x, extra=None)" and npt.train(run).status == "finished"
    with pytest.raises(npt.UserError, match="rule 'wraps' wraps another rule, as in wraps"):
        npt.Run(rule="wraps")


@pytest.mark.parametrize("factory", [lambda model, loss, strength: None, lambda model, loss, *, strength: None])
def test_an_argument_without_default_must_be_given(factory, own):
    npt.register("rule", "mine", factory)
    assert npt.Run(rule="mine(strength=2)").config["rule"] == "mine(strength=2)"
    with pytest.raises(npt.UserError, match=r"rule 'mine' needs the argument 'strength', as in mine\(strength="):
        npt.Run(rule="mine")


BAD = {
    "kind": (("rules", "half", half), "no kind 'rules'; there are: rule, guide, credit, network"),
    "name": (("rule", "my rule", half), "'my rule' cannot be used in a spec"),
    "spec": (("rule", "half(factor=1)", half), "cannot be used in a spec"),
    "taken": (("rule", "np", half), "'np' is taken by a rule of NodePert"),
    "what it makes": (("rule", "mine", npt.Rule(None, None)), "a rule is a factory (model, loss) -> Rule"),
    "a class": (("network", "net", npt.Model), "got the class Model"),
    "alias": (("rule", "bp", half), "'bp' is taken"),
    "no factory": (("rule", "half", 3), "; got 3"),
    "few arguments": (("network", "net", lambda input_shape: None), "takes 2 positional arguments"),
}


@pytest.mark.parametrize("what", BAD)
def test_an_invalid_registration_is_an_error_with_the_reason(what, own):
    arguments, part = BAD[what]
    with pytest.raises(npt.UserError, match=re.escape(part)):
        npt.register(*arguments)
    assert registry.names("rule") == list(catalogue.BUILT_IN["rule"])


def test_a_network_for_one_input_shape_trains_and_its_errors_are_one_line(own):
    eqx = pytest.importorskip("equinox", reason="no equinox here")
    npt.register("network", "mlp", lambda shape, classes: npt.from_equinox(Flat(eqx, classes)))
    run = npt.Run(dataset="digits(train=200,test=50)", network="mlp", epochs=1)
    assert npt.train(run).status == "finished"

    def broken(params, x, node=npt.plain):
        raise TypeError("of this network\nand more")

    npt.register("network", "broken", lambda shape, classes: npt.Model(lambda key: {}, broken))
    with pytest.raises(npt.UserError, match=r"inputs of shape \(8, 8, 1\)\): TypeError: of this network$"):
        npt.train(replace(run, network="broken"))


def Flat(eqx, classes):
    layer = eqx.nn.Linear(64, classes, key=jax.random.key(0))  # of digits, and of nothing else
    return eqx.nn.Sequential([eqx.nn.Lambda(jnp.ravel), layer])
