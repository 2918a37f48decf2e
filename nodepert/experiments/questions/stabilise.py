"""Does keeping the size of the weights keep node perturbation from crashing?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from nodepert.errors import UserError
from nodepert.experiments.drawing import COLOURS, Picture, curve, decades, legend, style, tidy
from nodepert.experiments.experiment import Experiment, Finding, Load, Part, Row
from nodepert.experiments.shared.linear_student import squared_error
from nodepert.experiments.shared.tasks import gathered
from nodepert.models.fc import fc
from nodepert.registry import full, make
from nodepert.registry.ranges import at_least
from nodepert.training.metrics import mean_error

SCALES: dict[str, dict[str, Any]] = {
    "smoke": {"inputs": 6, "hidden": 20, "outputs": 3, "lrs": (2e-3, 1e-2), "steps": 5000, "seeds": 2},
    "small": {},
    "paper": {"hidden": 800, "lrs": (6e-5, 8e-5, 1e-4, 1.25e-4, 1.5e-4, 2e-4, 2.5e-4, 3e-4), "steps": 1_000_000,
              "seeds": 10},
}  # fmt: skip
CRASH = 1.1  # times the initial error
LEARNED = 0.8  # times the initial error: less, and something has been learned
LOOKS = 200  # how often the error is measured
TESTED = 500  # examples that it is measured on


def stabilise(
    load: Load, *, rule: str = "np(difference=jvp)", optimizers: tuple[str, ...] = ("sgd", "normalise(sgd)"),
    lrs: tuple[float, ...] = (5e-4, 7e-4, 9e-4, 1.1e-3, 1.4e-3, 1.8e-3, 2.4e-3), inputs: int = 21, hidden: int = 100,
    outputs: int = 7, noise: float = 0.32, steps: int = 80_000, seeds: int = 4,
) -> Experiment:  # fmt: skip
    """A ReLU network with one hidden layer learns, one example per update, what another such network with noise of
    standard deviation s on its outputs says of x ~ N(0, I):

        W <- W - eta g,    L = ||y - target||^2 / 2,    then, with normalise(sgd):    w_i <- s_l w_i / rms(w_i)

    with w_i the incoming weights of unit i, and s_l the root mean square of layer l's weights at the start. A run
    crashes when its error, the mean loss against the teacher without noise, exceeds 1.1 times what it was at the start
    (Hiratani et al. 2022). Left: when runs reach their least error, and when they crash. Right: how small the least
    error is, and the last.

    Args:
        rule: A rule without state.
        optimizers: What is compared, as in normalise(sgd).
        lrs: eta, learning rates.
        inputs: Units of the input.
        hidden: Units of the hidden layer, of teacher and of student.
        outputs: Units of the output.
        noise: s, the standard deviation of the targets' noise.
        steps: Updates.
        seeds: Runs per learning rate, each with its own teacher, examples and noise.
    """
    sizes = {"inputs": inputs, "hidden": hidden, "outputs": outputs, "steps": steps, "seeds": seeds}
    for name, value in sizes.items():
        at_least(name, value, 1)
    if not lrs or not all(0 < lr < math.inf for lr in lrs):
        raise UserError(f"lrs must be positive and finite, at least one; got {', '.join(map(str, lrs)) or 'none'}")
    if not 0 <= noise < math.inf:
        raise UserError(f"noise must be finite and not negative; got {noise}")
    rates, at = sorted(set(lrs)), np.unique(np.linspace(0, steps, min(LOOKS, steps) + 1).astype(np.int32))
    network = fc((inputs,), outputs, width=hidden, depth=1)
    estimate = make("rule", rule, network, squared_error)
    specs = {str(spec): spec for spec in (full("optimizer", optimizer) for optimizer in optimizers)}
    names = dict(zip(specs, optimizers, strict=True))
    for spec in specs.values():
        make("optimizer", spec, rates[0], steps)

    @partial(jax.jit, static_argnums=0)
    @partial(jax.vmap, in_axes=(None, 0, 0))
    def learn(optimizer: str, lr: Any, seed: Any) -> Any:
        """The error at the times `at`, from the same start for one seed whatever the optimizer and the rate."""
        teaching, testing, examples, perturbations, weights = jax.random.split(jax.random.key(seed), 5)
        change = make("optimizer", specs[optimizer], lr, steps)
        teacher, x_test = network.init(teaching), jax.random.normal(testing, (TESTED, inputs))

        def step(t, state):
            params, opt = state
            x_key, target_key = jax.random.split(jax.random.fold_in(examples, t))
            x = jax.random.normal(x_key, (1, inputs))
            target = network.apply(teacher, x) + noise * jax.random.normal(target_key, (1, outputs))
            grads, _, _ = estimate.grads(jax.random.fold_in(perturbations, t), (), params, (x, target))
            updates, opt = change.update(grads, opt, params)
            return optax.apply_updates(params, updates), opt

        def until(state, span):
            state = jax.lax.fori_loop(span[0], span[1], step, state)
            return state, squared_error(network.apply(state[0], x_test), network.apply(teacher, x_test)).mean()

        params = network.init(weights)
        spans = jnp.stack([jnp.append(0, at[:-1]), jnp.asarray(at)], 1)
        return jax.lax.scan(until, (params, change.init(params)), spans)[1]

    def rows(part: Part) -> Iterator[Row]:
        spec = str(full("optimizer", part["optimizer"]))
        runs = [(lr, seed) for lr in rates for seed in range(seeds)]
        errors = np.asarray(learn(spec, *(jnp.asarray(c) for c in zip(*runs, strict=True))), np.float64)
        for (lr, seed), error in zip(runs, errors, strict=True):
            crash = crashed(error)
            kept = error[:crash]
            yield {"lr": float(lr), "seed": seed, "initial": float(error[0]), "least": float(kept.min()),
                   "least_at": int(at[kept.argmin()]), "crash": math.nan if crash is None else float(at[crash]),
                   "last": float(error[-1]) if math.isfinite(error[-1]) else math.nan}  # fmt: skip

    def draw(figure: Any, rows: Sequence[Row]) -> None:
        left, right = figure.subplots(1, 2, sharex=True)
        for i, optimizer in enumerate(names.values()):
            own = [r for r in rows if r["optimizer"] == optimizer]
            colour = {"color": COLOURS[i % len(COLOURS)]}
            for r in own:
                beside = 10 ** (0.02 * (r["seed"] - (seeds - 1) / 2))  # runs of one rate
                fell = math.isfinite(r["crash"])
                left.plot([r["lr"] * beside], [max(r["crash"], at[1]) if fell else steps * 2 ** (0.5 + i)],
                          linestyle="none", markersize=4, **style(i) | ({} if fell else {"mfc": "none"}))  # fmt: skip
            for name, line in (("least", "-"), ("last", ":")):
                reached = gathered([r | {name: r[name] / r["initial"]} for r in own], ["lr"], name)
                alive = {lr: mean_error(v) for lr, v in reached.items() if len(v) == seeds}
                curve(right, list(alive), [m for m, _ in alive.values()], [e for _, e in alive.values()], i,
                      f"{optimizer}, {name} error", linestyle=line)  # fmt: skip
            least = {lr: mean_error(v)[0] for lr, v in gathered(own, ["lr"], "least_at").items()}
            left.plot(list(least), [max(v, at[1]) for v in least.values()], linestyle="-", **colour)
        left.axhline(1.15 * steps, color="grey", linewidth=0.8)
        tidy(left, xscale="log", yscale="log", xlabel="learning rate",
             ylabel="update of the crash (points),\nof the least error (lines)")  # fmt: skip
        powers = range(math.ceil(math.log10(at[1])), math.floor(math.log10(steps)) + 1)
        left.set_yticks([*(10**d for d in powers), steps * 2 ** (len(names) / 2)],
                        [*(f"{10**d:,}" for d in powers), "no crash"])  # fmt: skip
        left.set_yticks([], minor=True)
        right.axhline(CRASH, color="grey", linewidth=0.8, linestyle=":")
        tidy(right, xscale="log", yscale="log", xlabel="learning rate", ylabel="error / initial error")
        right.set_yticks(decades(*right.get_ylim()))
        right.set_yticks([], minor=True)
        right.yaxis.set_major_formatter("{x:g}")
        right.set_xticks([], minor=True)
        shown = sorted({rates[0], rates[len(rates) // 2], rates[-1]})
        right.set_xticks(shown, [f"{lr:g}" for lr in shown])
        legend(figure, right, columns=2)

    def findings(rows: Sequence[Row]) -> list[Finding]:
        def lost(optimizer: str, lr: float) -> list[float]:
            return gathered([r for r in rows if r["optimizer"] == optimizer], ["lr"], "crash")[lr]

        said, plain = [], optimizers[0]
        fatal = [lr for lr in rates if len(lost(plain, lr)) == seeds]
        if not fatal:
            return [Finding(f"{plain}: there is no learning rate at which every run crashes", False)]
        first, end = (mean_error(lost(plain, lr))[0] for lr in (fatal[0], fatal[-1]))
        said.append(Finding(f"{plain}: every run crashes at learning rates {fatal[0]:g} to {fatal[-1]:g}, after "
                            f"{first:,.0f} updates at the lowest and {end:,.0f} at the highest",
                            end < first or len(fatal) == 1))  # fmt: skip
        for optimizer in optimizers[1:]:
            count = sum(len(lost(optimizer, lr)) for lr in fatal)
            final = [r["last"] / r["initial"] for r in rows if (r["optimizer"], r["lr"]) == (optimizer, fatal[0])
                     and math.isfinite(r["last"])]  # fmt: skip
            said.append(Finding(f"{optimizer}: {count} of {len(fatal) * seeds} runs crash at these learning rates; the "
                                f"error at {fatal[0]:g} is {mean_error(final)[0]:.2g} of the initial one in the end",
                                count == 0 and mean_error(final)[0] < LEARNED))  # fmt: skip
        return said

    picture = Picture("lr", "least", ("optimizer",), log="xy")
    return Experiment([{"optimizer": name} for name in names.values()], rows, draw, findings, picture, size=(7.0, 4.0))


def crashed(errors: np.ndarray) -> int | None:
    """Where the error first exceeds 1.1 times its first value, or is no number; None where it never does."""
    beyond = ~(errors <= CRASH * errors[0])
    return int(beyond.argmax()) if beyond.any() else None
