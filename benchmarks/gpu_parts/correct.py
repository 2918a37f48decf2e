"""The core of the tests on the device: are the rules unbiased, the adapters sound, and replicas the runs alone?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import nodepert as npt
from gpu_parts import Row, tried
from nodepert.studies.setup import prepare
from nodepert.training.replicas import fit_all

GUIDED = "np(active=True, head=evaluated, guide=feedback)"
RULES = {"fc(width=20)": ("np", "inp", "wp", GUIDED), "conv": ("np", GUIDED)}
SHAPES = {"fc(width=20)": (8,), "conv": (8, 8, 3)}


def rows(toy: bool) -> Iterator[Row]:
    yield from tried("pullback", pullback)
    for network, shape in [*SHAPES.items()][: 1 if toy else None]:
        for rule in RULES[network][: 1 if toy else None]:
            model, what = npt.make_model(network, shape, 3), f"{network}: {rule}"
            yield from tried(what, lambda w=what, m=model, s=shape, r=rule: unbiased(w, m, s, r, toy))
    for name in ("flax", "equinox"):
        yield from tried(f"{name}: np", lambda n=name: unbiased(f"{n}: np", adapted(n), (8,), "np", toy))
    yield from tried("replicas", replicas)


def batch(shape: tuple[int, ...], examples: int = 10) -> Any:
    return jax.random.normal(jax.random.key(1), (examples, *shape)), jnp.arange(examples) % 3


def unbiased(what: str, model: Any, shape: tuple[int, ...], rule: str, toy: bool) -> Iterator[Row]:
    """`npt.check`, whose z-score is that of the estimate's length along the gradient, over all nodes."""
    found = npt.check(model, rule, "cross-entropy", batch(shape), draws=400 if toy else 4000, study=False)
    row = found.rows[-1]
    z = (row["gain"] - 1) / row["gain_error"] if row["gain_error"] else 0.0
    yield Row(what, z, "standard errors", found.verdict, ok=found.agrees is not False and abs(z) < 5)


def adapted(name: str) -> Any:
    """The same small network as a module of another library."""
    if name == "flax":
        from flax import nnx

        rngs = nnx.Rngs(0)
        return nnx.Sequential(nnx.Linear(8, 20, rngs=rngs), nnx.relu, nnx.Linear(20, 3, rngs=rngs))
    import equinox

    return equinox.nn.MLP(8, 3, 20, 1, key=jax.random.key(0))


def pullback() -> Iterator[Row]:
    """The exact signals give the exact gradient."""
    model, loss, (x, y) = npt.make_model("conv", (8, 8, 3), 3), npt.make_loss("cross-entropy"), batch((8, 8, 3))
    params = model.init(jax.random.key(0))
    with jax.default_matmul_precision("highest"):
        exact = npt.backprop(model, loss).grads(jax.random.key(2), (), params, (x, y))[0]
        zeros = {name: jnp.zeros(a.shape) for name, a in npt.core.node_shapes(model, params, x).items()}
        signals = jax.grad(lambda eps: loss(model.apply(params, x, npt.core.adding(eps)), y).mean())(zeros)
        error = distance(npt.pullback(model, params, x, signals), exact)
    yield Row("pullback of the exact signals", error, "of the gradient", ok=error < 1e-4)


def replicas() -> Iterator[Row]:
    """Replicas side by side, and each of them alone; backpropagation, as a finite difference multiplies rounding."""
    data = npt.load_dataset("teacher")
    runs = [npt.Run(dataset="teacher", network="fc(width=20)", rule="sgd", epochs=1, seed=seed) for seed in range(4)]
    _, _, model, loss, data, hypers = prepare(runs, data)[0]

    def trained(chosen: Any, lanes: int) -> list[Any]:
        last = list(fit_all(model, loss, data, chosen, batchsize=100, epochs=1, lanes=lanes))[-1]
        return [jax.device_get(last.state(i).params) for i in range(len(chosen))]

    with jax.default_matmul_precision("highest"):
        together, alone = trained(hypers, 4), [trained([hyper], 1)[0] for hyper in hypers]
    error = max(map(distance, together, alone))
    yield Row("4 replicas side by side, and alone", error, "of the weights", ok=error < 1e-3)


def distance(a: Any, b: Any) -> float:
    """|a - b| / |b| over all leaves."""
    a, b = (np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]) for tree in (a, b))
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))
