"""exchange=slopes: what devices send does not grow with the network. What they find: test_replicas.py, on several."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, PartitionSpec

import nodepert as npt
from nodepert.rules.exchange import measures, measuring, over_devices
from nodepert.training.losses import mse
from nodepert.training.mesh import shard_map

DEVICES = 4
X, Y = jnp.asarray(np.random.default_rng(0).normal(size=(10, 5)), jnp.float32), jnp.arange(10) % 3


def step(spec, width):
    """A rule's step, and its arguments."""
    network = f"heads(fc(width={width}))" if spec.startswith("local") else f"fc(width={width})"
    model = npt.make_model(network, (5,), 3)
    rule, params = npt.make_rule(spec, model, mse), model.init(jax.random.key(0))
    return rule.grads, (jax.random.key(1), rule.init(jax.random.key(2), params, X), params, (X, Y))


def sent(spec, width):
    """Shapes of what each device sends in a step, and how often: inside a loop over draws, once a turn."""
    grads, arguments = step(spec, width)
    mesh = AbstractMesh((DEVICES,), ("devices",))
    apart = shard_map(grads, mesh=mesh, in_specs=PartitionSpec(), out_specs=PartitionSpec())
    with measuring(over_devices("devices", DEVICES)), jax.debug_key_reuse(False):  # jax 0.7 is wrong there
        return list(collectives(jax.make_jaxpr(apart)(*arguments).jaxpr, 1))


def collectives(jaxpr, times):
    for eqn in jaxpr.eqns:
        if "all_gather" in eqn.primitive.name or "psum" in eqn.primitive.name:
            assert eqn.primitive.name.startswith("all_gather")
            yield times * int(np.prod(eqn.invars[0].aval.shape))
        turns = times * eqn.params["length"] if eqn.primitive.name == "scan" else times
        for value in eqn.params.values():
            for inner in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from collectives(inner, turns)


@pytest.mark.parametrize(
    ("spec", "draws"),
    [
        ("np(samples=3)", 3),
        ("np(difference=central)", 2),
        ("np(samples=4, noise=orthogonal, active=True, head=evaluated, guide=chain)", 4),
        ("wp(rank=2, samples=3)", 3 + 3),
        ("inp", 3),
        ("guess", 1),
        ("local(np(credit=own))", 0),
    ],
)
def test_a_device_sends_the_losses_of_its_examples_whatever_the_width(spec, draws):
    found = [sum(sent(spec, width)) for width in (8, 64)]
    assert found[0] == found[1] > 0
    assert not draws or found[0] == draws * 3  # 10 examples on 4 devices; wp sends 3 outputs as well


@pytest.mark.parametrize("spec", ["sgd", "dfa", "anp"])
def test_a_rule_that_measures_no_losses_says_so(spec, monkeypatch):
    grads, arguments = step(spec, 8)
    assert not measures(grads, *arguments) and measures(*flat(step("np", 8)))
    run = npt.Run(dataset="digits(train=50, test=10)", network="fc(width=8)", rule=spec, epochs=1, batchsize=10)
    with pytest.raises(npt.UserError, match=f"exchange=slopes needs a rule that measures slopes.* got {spec}"):
        npt.train(run, exchange="slopes")


def flat(pair):
    return pair[0], *pair[1]


def test_a_sweep_of_runs_is_refused_and_another_word():
    runs = [npt.Run(dataset="digits", epochs=0, seed=seed) for seed in range(2)]
    with pytest.raises(npt.UserError, match="exchange=slopes needs a single run; got 2"):
        npt.train(runs, exchange="slopes")
    with pytest.raises(npt.UserError, match="exchange must be gradients or slopes; got 'losses'"):
        npt.train(runs[0], exchange="losses")


def test_outside_of_several_devices_nothing_changes():
    grads, arguments = step("np(samples=2, difference=jvp)", 8)
    here = jax.jit(grads)(*arguments)[0]
    mesh, whole = jax.make_mesh((1,), ("devices",)), PartitionSpec()
    with measuring(over_devices("devices", 1)):
        there = jax.jit(shard_map(grads, mesh=mesh, in_specs=whole, out_specs=whole))(*arguments)[0]
    assert all(np.allclose(a, b, rtol=1e-5) for a, b in zip(*map(jax.tree.leaves, (here, there)), strict=True))
