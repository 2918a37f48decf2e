"""Random search for what is silently wrong: model x rule x loss x data x JAX's configuration, drawn at random.

    python tests/random_search.py --draws 500 --seed 0

Every draw must be right within error, or end in one clear line. "Right" is measured without NodePert's own diagnostics:
the exact gradient is the mean of gradients of single examples, and the mean of a rule's draws is compared with it; the
first row of a table of training, with losses of single examples. A draw with something wrong in it (targets that fit no
output, a loss or a network that mixes examples) must be refused.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import logging
import random
import traceback
import warnings
from typing import Any, NamedTuple

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import nodepert as npt
from nodepert.core import preactivations
from nodepert.diagnostics.declared import bias_of_spec
from nodepert.registry.spec import parse

BATCH, SHAPE, CLASSES = 5, (6,), 3
ESTIMATES, PER_PASS = 320, 64
LIMIT = 6.0  # of the z-score of the gain: no draw of thousands without bias is above it
ERRORS = (npt.UserError, ValueError)


class Part(NamedTuple):
    """One ingredient of a draw; `wrong` ones must be refused, in `rough` ones finite differences drown in rounding.

    What targets mean is a matter of the loss: `odd` ones are wrong for NodePert's own losses, others may take them.
    """

    name: str
    value: Any
    wrong: bool = False
    rough: bool = False
    odd: bool = False


class Draw(NamedTuple):
    network: Part
    rule: str
    loss: Part
    inputs: Part
    targets: Part
    configuration: Part

    def __str__(self):
        return ", ".join(part if isinstance(part, str) else part.name for part in self)

    @property
    def wrong(self):
        return any(part.wrong for part in self if isinstance(part, Part)) or (
            self.targets.odd and self.own_loss is None
        )

    @property
    def own_loss(self):
        return None if self.loss.name in ("mse", "linear-mse", "cross-entropy") else self.loss

    @property
    def rough(self):
        return any(part.rough for part in self if isinstance(part, Part))


# ------------------------------------------------------------------------------------------------ networks


class Linen(nn.Module):
    mixes: bool = False
    normal: bool = False

    @nn.compact
    def __call__(self, x):
        h = nn.Dense(5)(x)
        h = nn.LayerNorm()(h) if self.normal else h
        return nn.Dense(CLASSES)(nn.tanh(h - h.mean(0) if self.mixes else h))


class Nnx(nnx.Module):
    def __init__(self, rngs, mixes=False):
        self.first, self.second = nnx.Linear(6, 5, rngs=rngs), nnx.Linear(5, CLASSES, rngs=rngs)
        self.mixes = mixes

    def __call__(self, x):
        h = nnx.relu(self.first(x))
        return self.second(h / (1 + h.std(0)) if self.mixes else h)


def equinox():
    return npt.from_equinox(lambda key: eqx.nn.MLP(6, CLASSES, 5, 1, key=key))


def own(mixes=""):
    """A network of the user's own, written with nodes."""

    def dense(p, h):
        return h @ p["w"] + p["b"]

    def init(key):
        keys = jax.random.split(key)
        sizes = {"a": (6, 5), "b": (5, CLASSES)}
        return {name: {"w": 0.4 * jax.random.normal(k, size), "b": jnp.zeros(size[1])}
                for k, (name, size) in zip(keys, sizes.items(), strict=True)}  # fmt: skip

    def apply(p, x, node=npt.plain):
        h = jnp.tanh(node("a", dense, p["a"], x))
        h = {"": h, "mean": h - h.mean(0), "sort": jnp.sort(h, axis=0), "roll": jnp.roll(h, 1, axis=0)}[mixes]
        return node("b", dense, p["b"], h)

    return npt.Model(init, apply)


def networks():
    for spec in ("fc(width=5)", "fc(width=4, depth=2)", "linfc(width=5)", "fc(depth=0)"):
        yield Part(spec, lambda spec=spec: npt.make_model(spec, SHAPE, CLASSES))
    for dtype in ("bfloat16", "float16"):
        spec = f"precision(fc(width=5), dtype={dtype})"
        yield Part(spec, lambda spec=spec: npt.make_model(spec, SHAPE, CLASSES), rough=True)
    yield Part("linen", lambda: npt.from_flax(Linen(), SHAPE))
    yield Part("linen, layer norm", lambda: npt.from_flax(Linen(normal=True), SHAPE))
    yield Part("linen that mixes", lambda: npt.from_flax(Linen(mixes=True), SHAPE), wrong=True)
    yield Part("nnx", lambda: npt.from_flax(lambda rngs: Nnx(rngs), SHAPE))
    yield Part("nnx that mixes", lambda: npt.from_flax(lambda rngs: Nnx(rngs, mixes=True)), wrong=True)
    yield Part("equinox", equinox)
    yield Part("own", own)
    for how in ("mean", "sort", "roll"):
        yield Part(f"own that mixes by {how}", lambda how=how: own(how), wrong=True)
    yield Part("no nodes", lambda: npt.Model(own().init, lambda p, x, node=npt.plain: x @ p["a"]["w"]), wrong=True)


# ------------------------------------------------------------------------------------------------ losses


def one_hot(targets, outputs):
    return jax.nn.one_hot(targets, outputs.shape[-1]) if jnp.issubdtype(targets.dtype, jnp.integer) else targets


def huber(outputs, targets):
    gap = jnp.abs(outputs - one_hot(targets, outputs))
    return jnp.where(gap < 1, 0.5 * gap**2, gap - 0.5).sum(-1)


def smoothed(outputs, targets):
    return -((0.9 * one_hot(targets, outputs) + 0.1 / CLASSES) * jax.nn.log_softmax(outputs)).sum(-1)


def losses():
    for spec in ("mse", "linear-mse", "cross-entropy"):
        yield Part(spec, npt.make_loss(spec))
    yield Part("huber", huber)
    yield Part("label smoothing", smoothed)
    yield Part("mean over the batch", lambda o, y: jnp.square(o - one_hot(y, o)).mean(), wrong=True)
    yield Part("outputs less their mean", lambda o, y: jnp.square(o - o.mean(0) - one_hot(y, o)).sum(-1), wrong=True)
    yield Part("all with all", lambda o, y: jnp.square(o[:, :1] - y.reshape(len(o), -1)[:, 0]).mean(-1), wrong=True)
    yield Part("losses of others", lambda o, y: jnp.square(o - one_hot(y, o)).sum(-1)[::-1], wrong=True)
    yield Part("ranks", lambda o, y: o.argsort(0).mean(-1), wrong=True)
    yield Part("complex", lambda o, y: jnp.square(o - one_hot(y, o)).sum(-1) * 1j, wrong=True)


# -------------------------------------------------------------------------------------------------- data


def inputs(rng):
    x = np.random.default_rng(rng.randrange(10**6)).normal(size=(BATCH, *SHAPE))
    yield Part("inputs of float32", x.astype("float32"))
    yield Part("inputs of float64", x)
    yield Part("large inputs", (30 * x).astype("float32"))
    yield Part("integer inputs", np.rint(3 * x).astype("float32"))
    yield Part("inputs of zeros", np.where(np.arange(BATCH)[:, None] == 0, 0, x).astype("float32"))


def targets(rng):
    y = np.arange(BATCH) % CLASSES
    values = np.random.default_rng(rng.randrange(10**6)).normal(size=(BATCH, CLASSES)).astype("float32")
    for dtype in ("int32", "int64", "uint8", "int8"):
        yield Part(f"labels of {dtype}", y.astype(dtype))
    yield Part("values", values)
    yield Part("one-hot values", np.eye(CLASSES, dtype="float32")[y])
    yield Part("values (B,)", values[:, 0], odd=True)
    yield Part("values (B, 1)", values[:, :1], odd=True)
    yield Part("labels (B, 1)", y[:, None], odd=True)
    yield Part("labels (B, n)", np.eye(CLASSES, dtype="int32")[y], odd=True)
    yield Part("values (B, n + 1)", np.concatenate([values, values[:, :1]], 1), odd=True)
    yield Part("negative labels", y - 1, odd=True)
    yield Part("labels from 1", y + 1, odd=True)
    yield Part("labels of 10**9", y * 10**9, odd=True)
    yield Part("boolean labels", y > 0, odd=True)
    yield Part("fewer targets", y[:-1], wrong=True)
    yield Part("targets of nan", np.where(values > 1, np.nan, values), wrong=bool((values > 1).any()))


def configurations():
    for _ in range(6):
        yield Part("defaults", contextlib.nullcontext)
    yield Part("x64", lambda: jax.enable_x64(True))
    yield Part("rbg", lambda: jax.default_prng_impl("rbg"))
    yield Part("strict dtypes", lambda: jax.numpy_dtype_promotion("strict"))
    yield Part("ranks raise", lambda: jax.numpy_rank_promotion("raise"))
    yield Part("highest precision", lambda: jax.default_matmul_precision("highest"))
    yield Part("bfloat16 products", lambda: jax.default_matmul_precision("bfloat16"), rough=True)
    yield Part("debug nans", lambda: jax.debug_nans(True))
    yield Part("tracer leaks", jax.checking_leaks)
    yield Part("legacy noise", lambda: jax.threefry_partitionable(False))
    yield Part("key reuse", lambda: jax.debug_key_reuse(True))


def rule(rng):
    noise, difference = rng.choice(("gaussian", "rademacher", "sphere")), rng.choice(("forward", "central", "jvp"))
    samples, sigma = rng.choice((1, 1, 2, 3)), rng.choice(("1e-3", "1e-2"))
    common = f"sigma={sigma}, noise={noise}, difference={difference}, samples={samples}"
    shared = rng.choice(("example", "batch"))
    return rng.choice((
        f"np({common}, sharing={shared})", f"np({common}, sharing={shared})",
        f"np(presynaptic=noisy, samples={samples}, noise={noise})", f"np(baseline=running, samples={samples})",
        f"np({common}, replay=True)", f"inp({common})", f"anp(difference={difference})",
        f"wp({common}, sharing={shared})", f"wp({common}, rank={rng.choice((1, 2))})",
        "sgd", "exact", "fa", "dfa", "dfa(error=softmax)", "opzo", "usf", "kp", "dtp", "decorrelate(np)",
        "decorrelate(sgd)", "np; b=exact", "np; out=exact", f"fa; out=np(samples={samples})",
    ))  # fmt: skip


def drawn(rng):
    """A draw in which at most about one thing is wrong."""

    def one(parts, fine=0.85):
        parts = list(parts)
        good = [part for part in parts if not (part.wrong or part.odd)]
        return rng.choice(good if rng.random() < fine or len(good) == len(parts) else parts)

    draw = Draw(one(networks()), rule(rng), one(losses()), one(inputs(rng)), one(targets(rng), 0.7),
                one(configurations()))  # fmt: skip
    known = draw.configuration.name == "tracer leaks" and draw.network.name == "equinox"  # its stand-ins hold tracers
    return draw._replace(configuration=next(configurations())) if known else draw


# ------------------------------------------------------------------------------------------------ oracles


def exact_gradient(model, loss, params, x, y):
    """The mean of the gradients of single examples."""
    single = [jax.grad(lambda p, b=b: loss(model.apply(p, x[b : b + 1]).astype(jnp.result_type(float)),
                                           y[b : b + 1])[0])(params) for b in range(len(x))]  # fmt: skip
    return jax.tree.map(lambda *g: sum(np.asarray(a, np.float64) for a in g) / len(g), *single)


def flat(tree):
    return np.concatenate([np.asarray(leaf, np.float64).reshape(-1) for leaf in jax.tree.leaves(tree)])


def estimates(draw, model, made, params, batch):
    """Gradients of one rule at fixed parameters, (draws, parameters), and the losses of its clean pass."""
    state = made.init(jax.random.key(1), params, batch[0][:1])
    for i in range(4 if jax.tree.leaves(state) else 0):
        _, state, _ = made.grads(jax.random.fold_in(jax.random.key(2), i), state, params, batch)

    def one(key):
        grads, _, info = made.grads(key, state, params, batch)
        return jnp.concatenate([g.astype(float).reshape(-1) for g in jax.tree.leaves(grads)]), info.loss

    keys = jax.random.split(jax.random.key(3), (ESTIMATES // PER_PASS, PER_PASS))
    parts = list(map(jax.jit(jax.vmap(one)), keys))
    return tuple(np.concatenate([np.asarray(part[i], np.float64) for part in parts]) for i in range(2))


def judged(draw, model, params, batch):
    """What is wrong with a rule's estimates; nothing where they are as declared."""
    loss = draw.loss.value
    made = npt.make_rule(draw.rule, model, loss)
    if made.model:
        model = made.model(batch[0][:1])
        params = model.init(jax.random.key(0))
    found, losses = estimates(draw, model, made, params, batch)
    if not np.isfinite(found).all():
        return "estimates are not finite"
    bias, rough = bias_of_spec(parse(draw.rule)), draw.rough
    single = np.array([loss(model.apply(params, batch[0][b : b + 1]).astype(jnp.result_type(float)),
                            batch[1][b : b + 1])[0] for b in range(BATCH)], np.float64)  # fmt: skip
    if "noisy" not in draw.rule and "baseline=running" not in draw.rule and not rough and bias != "biased":
        off = np.abs(losses.mean(0) - single).max()
        if off > 1e-3 * (1 + np.abs(single).max()):
            return f"losses of the clean pass are off by {off:.2g}"
    g = flat(exact_gradient(model, loss, params, *batch))
    if bias == "biased" or rough or made.model or not g.any():  # what a rule adds to a network has no gradient
        return ""
    if any((a == 0).any() for a in preactivations(model, params, batch[0]).values()):
        return ""  # at the kink of relu, where a finite difference has half a slope
    along = found @ g / (g @ g)
    gain, error = along.mean(), along.std(ddof=1) / len(along) ** 0.5
    slack = 0.02 if bias == "unbiased" else 1e-3  # of finite sigma, and of rounding
    if abs(gain - 1) > LIMIT * error + slack:
        return f"gain {gain:.3f} +- {error:.3f} of a rule declared {bias}"
    return ""


def checked(draw, model, batch):
    """What is wrong with the verdict of `check`."""
    result = npt.check(model, draw.rule, draw.loss.value, batch, draws=300, study=False)
    if draw.rough or result.declared == "biased" or "exactly 0" in result.note:  # the kink of relu
        return ""
    return f"check finds {result.verdict}, but {result.declared} is declared" if result.verdict == "biased" else ""


def trained(draw, batch):
    """What is wrong with a table of training on these examples; the network and the loss are registered."""
    x, y = batch
    loss, built = draw.loss.value, draw.network.value
    npt.register("network", "drawn", lambda shape, classes: built(), loss="drawn-loss")
    npt.register("loss", "drawn-loss", lambda outputs, targets: loss(outputs, targets))
    data = npt.make_dataset(x, y, x, y, name="drawn", classes=CLASSES)
    npt.register("dataset", "drawn", lambda data_dir: data)
    run = npt.Run(dataset="drawn", network="drawn", rule=draw.rule, batchsize=BATCH, epochs=1, lr=1e-3)
    result = npt.train(run)
    model = built()
    weights = jax.random.split(jax.random.key(0, impl="threefry2x32"), 4)[0]
    made = npt.make_rule(draw.rule, model, loss)
    inputs = jnp.asarray(data.standardised(x))
    model = made.model(inputs[:1]) if made.model else model
    params = model.init(weights)
    single = [float(loss(model.apply(params, inputs[b : b + 1]).astype(jnp.float32), jnp.asarray(y[b : b + 1]))[0])
              for b in range(BATCH)]  # fmt: skip
    found = result.rows[0]["train_loss"]
    if np.isfinite(found) and abs(found - np.mean(single)) > (0.05 if draw.rough else 1e-3) * (1 + abs(found)):
        return f"the first loss of training is {found:.6g}, but {np.mean(single):.6g} example by example"
    return ""


WAYS = ("rule", "check", "train")


def outcome(draw, way):
    """("right" | "refused" | "wrong", why) of one draw, used in one way."""
    says = ""
    try:
        with jax.debug_key_reuse(False), draw.configuration.value():
            y = draw.targets.value
            if way == "train":
                says = trained(draw, (draw.inputs.value, y))
            else:
                model = draw.network.value()
                batch = jnp.asarray(draw.inputs.value), jnp.asarray(y)
                params = model.init(jax.random.key(0))
                says = checked(draw, model, batch) if way == "check" else judged(draw, model, params, batch)
    except FloatingPointError as error:
        return ("refused" if draw.configuration.name == "debug nans" else "wrong"), str(error)
    except ERRORS as error:
        text = str(error)
        one_line = "\n" not in text.strip() and 10 < len(text) < 600
        return ("refused", text) if one_line else ("wrong", f"not one clear line: {text[:300]!r}")
    except Exception as error:
        if draw.own_loss and (draw.targets.odd or draw.targets.wrong):
            return "refused", f"by the loss itself: {error}"
        last = traceback.extract_tb(error.__traceback__)[-1]
        return "wrong", f"{type(error).__name__}: {str(error)[:200]} ({last.filename}:{last.lineno})"
    if draw.targets.odd and draw.own_loss and not draw.wrong:
        return "right", "the loss takes these targets"
    if draw.wrong and way == "rule" and not refusable(draw):
        return "right", "labels under jit cannot be seen"
    if draw.wrong and not says:
        return "wrong", "something is wrong with it, and nothing is said"
    return ("wrong", says) if says else ("right", "")


def refusable(draw):
    """Whether what is wrong shows in shapes or functions, which are known under jit; the values of labels are not."""
    return (
        draw.network.wrong
        or draw.loss.wrong
        or draw.targets.name not in ("negative labels", "labels from 1", "labels of 10**9", "targets of nan")
    )


def search(draws, seed, say=print):
    """The draws that came out wrong, as text; `say` is called with each, and with a summary."""
    logging.getLogger("nodepert").setLevel(logging.ERROR)
    rng, counts, wrong = random.Random(seed), collections.Counter(), []
    for i in range(draws):
        draw, way = drawn(rng), rng.choice(WAYS)
        if way == "train" and "labels" not in draw.targets.name:  # data sets have labels
            draw = draw._replace(targets=next(iter(targets(rng))))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            what, why = outcome(draw, way)
        counts[what] += 1
        if what == "wrong":
            wrong.append(f"{i} by {way}: {draw}: {why}")
            say(wrong[-1])
        elif what == "refused" and not draw.wrong:
            say(f"{i} by {way}: refused, though nothing is wrong with it: {draw}: {why}")
    say(", ".join(f"{count} {what}" for what, count in counts.items()))
    return wrong


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    raise SystemExit(bool(search(options.draws, options.seed, lambda line: print(line, flush=True))))
