"""Whose change of loss? One draw and one loss difference for a whole batch do not estimate the gradient.

    python docs/scripts/estimators.py

One linear layer (64-10, cross-entropy) and 100 digits. Left: cosine of the mean of many draws with the true gradient,
against their number, for (a) node perturbation, where each example's noise is credited with that example's change of
loss, and (b) one draw of the noise and one change of the mean loss for the whole batch, which estimates mean(delta)
mean(z)^T in place of mean(delta z^T). Right: what either comes to in the end, weight by weight. Writes
docs/figures/estimators.png.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import nodepert as npt
from nodepert.core import adding, node_shapes, per_example, pullback
from nodepert.experiments.drawing import COLOURS, curve, save_figure, tidy
from nodepert.rules.noise import draw
from nodepert.training.program import standardised

FIGURE = Path(__file__).parents[1] / "figures" / "estimators.png"
SIGMA, EXAMPLES, DRAWS, REPEATS = 1e-3, 100, 3000, 5
COUNTS = [1, 3, 10, 30, 100, 300, 1000, DRAWS]  # of draws, whose mean is looked at


def one_for_all(model, loss, params, batch):
    """Gradients of a key, by one draw of the noise and one change of the mean loss: the mistake."""
    x, y = batch
    clean = per_example(loss, model.apply(params, x), y).mean()
    shapes = node_shapes(model, params, x[:1])  # of one example: its noise is everyone's

    def grads(key):
        xi = draw(key, shapes)
        noisy = per_example(loss, model.apply(params, x, adding({n: SIGMA * e for n, e in xi.items()})), y).mean()
        gain = (noisy - clean) / SIGMA / len(x)
        return pullback(model, params, x, {n: jnp.repeat(gain * e, len(x), 0) for n, e in xi.items()})

    return grads


def estimates():
    """(true gradient, what (b) estimates, {estimator: means of the first draws, (REPEATS, COUNTS, weights)})."""
    data, loss = npt.load_dataset("digits"), npt.make_loss("cross-entropy")
    model = npt.make_model("linfc(depth=0)", data.train_x.shape[1:], data.classes)
    x = standardised({"mean": data.mean, "std": data.std}, jnp.asarray(data.train_x[:EXAMPLES]))
    batch, params = (x, jnp.asarray(data.train_y[:EXAMPLES])), model.init(jax.random.key(0))
    rule = npt.make_rule(f"np(sigma={SIGMA})", model, loss)

    def weights(grads):
        return grads["out"]["w"].ravel()

    def own(key):
        return rule.grads(key, (), params, batch)[0]

    def means(grads, key):
        """Of the first 1, 3, 10, ... draws."""
        draws = jax.lax.map(lambda k: weights(grads(k)), jax.random.split(key, DRAWS), batch_size=50)
        return jnp.stack([draws[:n].mean(0) for n in COUNTS])

    exact = npt.backprop(model, loss).grads(jax.random.key(2), (), params, batch)[0]
    delta = jax.grad(lambda a: per_example(loss, a, batch[1]).sum())(model.apply(params, x))
    crossed = jnp.outer(x.reshape(EXAMPLES, -1).mean(0), delta.mean(0)).ravel()
    keys = jax.random.split(jax.random.key(1), REPEATS)
    forms = {"own": own, "one": one_for_all(model, loss, params, batch)}
    found = {name: np.stack([jax.jit(lambda k, f=f: means(f, k))(k) for k in keys]) for name, f in forms.items()}
    return np.asarray(weights(exact)), np.asarray(crossed), found


def cosine(a, b):
    return (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


def picture(exact, crossed, found):
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"font.size": 9.5}):
        figure = Figure(figsize=(6.5, 3.1), layout="constrained")
        left, right = figure.subplots(1, 2)
        labels = {"own": "(a) each example's own change", "one": "(b) one change for the batch"}
        for i, (name, label) in enumerate(labels.items()):
            cosines = cosine(found[name], exact)
            curve(left, COUNTS, cosines.mean(0), cosines.std(0), i, label)
            right.plot(exact, found[name][:, -1].mean(0), "os"[i], color=COLOURS[i], markersize=2.5, zorder=3 - i)
        limit = cosine(crossed, exact)
        left.axhline(1, color="grey", linewidth=1, zorder=0)
        left.axhline(limit, color="grey", linewidth=1, linestyle="--", zorder=0)
        left.text(COUNTS[-1], limit - 0.12, r"mean($\delta$) mean($z$)$^T$", ha="right", va="top", color=COLOURS[1])
        tidy(left, xlabel="draws", ylabel="cosine with the gradient", xscale="log", ylim=(0, 1.06))
        low, high = exact.min(), exact.max()
        right.plot([low, high], [low, high], color="grey", linewidth=1, zorder=0)
        tidy(right, xlabel="true gradient, weight by weight", ylabel="mean estimate")
        figure.legend(*left.get_legend_handles_labels(), frameon=False, loc="outside upper center", ncols=2)
        save_figure(figure, FIGURE)


if __name__ == "__main__":
    exact, crossed, found = estimates()
    for name, means in found.items():
        to_gradient, to_crossed = (cosine(means[:, -1], g).mean() for g in (exact, crossed))
        print(f"{name}: {DRAWS:,} draws, cosine {to_gradient:.3f} with the gradient, {to_crossed:.3f} with (b)'s limit")
    picture(exact, crossed, found)
