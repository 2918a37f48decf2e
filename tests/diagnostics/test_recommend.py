"""`recommend`: variances in closed form, the best draws of each node, and the form that is recommended."""

import itertools
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nodepert as npt
from nodepert.diagnostics import comparison
from nodepert.diagnostics.advice import Recommendation
from nodepert.diagnostics.allocation import allocated, mapped
from nodepert.diagnostics.comparison import Comparison
from nodepert.diagnostics.conformance.common import compiled
from nodepert.diagnostics.forms import combinations, plain_form, recommend
from nodepert.diagnostics.reference import error_signals, reference
from nodepert.diagnostics.variance import of_gradient, of_signals, spread
from nodepert.errors import UserError
from nodepert.models.fc import fc
from nodepert.registry import check
from nodepert.rules.directional import orthogonal
from nodepert.rules.guided import Guided
from nodepert.rules.guides.guide import Guide
from nodepert.rules.noise import NOISE, draw, key_of
from nodepert.training.losses import cross_entropy, mse

pytestmark = pytest.mark.usefixtures("quickly_compiled")

MODEL = fc((5,), 3, width=12, depth=2)
SHALLOW = fc((5,), 3, width=12, depth=1)
PARAMS = MODEL.init(jax.random.key(2))
X, Y = DATA = jax.random.normal(jax.random.key(1), (60, 5)), jnp.arange(60) % 3
ONE = X[:1], Y[:1]


@pytest.fixture(scope="module")
def found(quickly_compiled):
    """A whole recommendation, with the progress that was reported."""
    heard = []
    result = recommend(SHALLOW, "np(samples=2)", cross_entropy, DATA, guides=["feedback"], batchsize=20, steps=100,
                       draws=400, progress=lambda *done: heard.append(done))  # fmt: skip
    return result, heard


# ------------------------------------------------------------------------------------------ closed forms


@pytest.mark.parametrize("noise", ["gaussian", "rademacher", "sphere", "orthogonal"])
def test_the_variance_of_a_signal_is_that_of_draws(noise):
    shapes = {"a": jax.ShapeDtypeStruct((1, 7), "float32"), "b": jax.ShapeDtypeStruct((1, 2, 3), "float32")}
    r = {"a": np.arange(1.0, 8.0)[None], "b": np.linspace(-3.0, 3.0, 6).reshape(1, 2, 3)}
    r["a"][0, 2] = 0  # of an inactive unit, which is not perturbed either

    @jax.jit
    def signals(key):
        independent = {k: draw(jax.random.fold_in(key, k), shapes, noise) for k in range(2)} if noise in NOISE else {}
        rows = independent.get if independent else orthogonal(key, shapes, 2)
        xi = [{n: jnp.where(r[n] != 0, v, 0) for n, v in rows(k).items()} for k in range(2)]
        slopes = [sum((r[n] * x[n]).sum() for n in r) for x in xi]
        return {n: sum(s * x[n] for s, x in zip(slopes, xi, strict=True)) / 2 for n in r}

    with jax.debug_key_reuse(False):
        drawn = jax.lax.map(signals, jax.random.split(jax.random.key(0), 20_000))
    expected = of_signals({n: jnp.asarray(v**2, jnp.float32) for n, v in r.items()}, noise, 2)
    for n in r:
        squares = np.square(np.asarray(drawn[n], np.float64) - r[n])
        error = squares.std(0) / len(squares) ** 0.5
        perturbed = r[n] != 0
        assert np.all(np.abs(squares.mean(0) - expected[n])[perturbed] < 4 * error[perturbed] + 1e-6)


def closed_form(n_of, batch=ONE):
    """{node: (||z||^2 + 1), n, ||delta||^2} of one example; 1: the bias."""
    delta = compiled(lambda: error_signals(MODEL, mse, PARAMS, batch))()
    z, found = batch[0], {}
    for name, d in delta.items():
        found[name] = float(jnp.square(z).sum() + 1), n_of(name, d), float(jnp.square(d).sum())
        z = jax.nn.relu(z @ PARAMS[name]["w"] + PARAMS[name]["b"])
    return found


def predicted(rule, state=()):
    """(units, residual, variance of the gradient): the last is exact for one example of a dense network."""

    @compiled
    def found(state):
        part = spread(MODEL, mse, check("rule", rule), state, PARAMS, ONE)
        variance = of_gradient(MODEL, PARAMS, ONE[0], part.deviation, jax.random.key(0), 1)
        return part.units, part.residual, sum(variance.values())

    return tuple(map(float, found(state)))


def units(name, delta):
    return delta.size


def active_units(name, delta):
    return int((delta != 0).sum())


@pytest.mark.parametrize(
    ("rule", "count", "sign", "nodes"),
    [
        ("np(samples=4)", units, 1, ("fc0", "fc1", "out")),
        ("np(samples=4, noise=rademacher, active=True, head=evaluated)", active_units, -1, ("fc0", "fc1")),
    ],
)
def test_a_network_in_closed_form(rule, count, sign, nodes):
    """||z_l||^2 (n_l D + sign ||delta_l||^2), with D of all perturbed nodes (O5, less the squared mean)."""
    every = closed_form(count)
    moved = [every[name] for name in nodes]
    square = sum(d for _, _, d in moved)
    expected = sum(z * (n * square + sign * d) for z, n, d in moved) / 4
    share = square / sum(d for _, _, d in every.values())
    assert predicted(rule) == pytest.approx((sum(n for _, n, _ in moved), share, expected), rel=1e-4)


def test_a_guide_leaves_its_residual(own):
    delta = error_signals(MODEL, mse, PARAMS, ONE)
    half = Guide(lambda key, clean: (), lambda state, clean: {n: d / 2 for n, d in delta.items()},
                 lambda state, clean, predicted, residual: state)  # fmt: skip
    npt.register("guide", "half", lambda model: half)
    state = Guided((), {name: jnp.ones(2) for name in PARAMS})
    n, share, variance = predicted("np(active=True, head=evaluated)")
    found = predicted("np(active=True, head=evaluated, guide=half)", state)
    assert found == pytest.approx((n, share / 4, variance / 4), rel=1e-4)


# ------------------------------------------------------------------------------------- draws of each node


@pytest.mark.parametrize("variance", [(9.0, 1.0, 1.0), (1.0, 1.0, 1.0), (100.0, 1.0, 0.0), (5.0, 4.0, 2.5)])
@pytest.mark.parametrize("draws", [3, 4, 8, 11])
def test_draws_of_each_node_are_the_best_whole_numbers(variance, draws):
    found = allocated({str(i): v for i, v in enumerate(variance)}, draws)
    best = min(sum(v / k for v, k in zip(variance, ks, strict=True))
               for ks in itertools.product(range(1, draws + 1), repeat=3) if sum(ks) == draws)  # fmt: skip
    assert sum(found.values()) == draws and min(found.values()) >= 1
    assert sum(v / k for v, k in zip(variance, found.values(), strict=True)) == pytest.approx(best)


def compared(batch=ONE, samples=16, size=50):
    exact, _, _ = reference(MODEL, mse, PARAMS, batch)
    return Comparison(MODEL, mse, PARAMS, batch, batch, exact, samples, 0, size, key_of(0))


def test_the_variance_of_each_node_perturbed_alone_is_that_of_one_layer():
    """(n + 1) ||delta||^2 ||z||^2, where all at once would have n times that of all nodes (O5)."""
    study = compared()
    rows = study.allocation("draws per node", check("rule", "np(difference=jvp)"), [])
    expected = {name: z * (n + 1) * d / study.norm**2 for name, (z, n, d) in closed_form(units).items()}
    assert [row["node"] for row in rows] == list(expected)
    for row in rows:
        assert abs(row["variance"] - expected[row["node"]]) < 4 * row["variance_error"]
        assert row["variance_error"] < 0.1 * row["variance"]
    draws = {row["node"]: row["draws"] for row in rows}
    best = allocated(expected, 16)
    assert sum(draws.values()) == 16 and all(abs(draws[n] - k) <= 1 for n, k in best.items())
    share = {n: v**0.5 / sum(v**0.5 for v in expected.values()) for n, v in expected.items()}
    assert all(abs(k - 16 * share[n]) < 1.5 for n, k in best.items())
    alone = sum(expected[n] / k for n, k in best.items()) * study.norm**2
    assert predicted(mapped(check("rule", "np"), best, []))[2] == pytest.approx(alone, rel=1e-4)
    assert alone < predicted("np(samples=16)")[2]


def test_a_map_evaluates_the_outputs_and_can_be_read_back():
    form = mapped(check("rule", "np(active=True)"), {"fc0": 2, "fc1": 6}, ["out"])
    assert str(form) == "fc0=np(active=True, samples=2); fc1=np(active=True, samples=6); out=np(head=evaluated)"
    assert check("rule", str(form)) == form


# ------------------------------------------------------------------------------------------ all of it


def test_measured_and_predicted_gains_agree(found):
    result, heard = found
    assert [row["form"] for row in result.rows] == [
        "plain", "active", "head", "active, head", "orthogonal", "orthogonal, active, head",
        "orthogonal, active, head, feedback", "draws per node",
    ]  # fmt: skip
    for row in result.rows[1:]:
        assert abs(row["gain"] - row["predicted_gain"]) < 3 * row["gain_error"], row
        assert row["gain_error"] < 0.05 * row["gain"]
    assert result.draws == 400 and heard == [(i, 8) for i in range(1, 9)]
    assert [(row["node"], row["draws"]) for row in result.nodes] == [("fc0", 1), ("out", 1)]


def test_the_finding_has_the_numbers_of_the_network(found):
    result, _ = found
    rows = {row["form"]: row for row in result.rows}
    assert result.best is rows["orthogonal, active, head, feedback"]
    text = str(result).split("\n")
    share = rows["active"]["units"] / rows["plain"]["units"]
    assert text[0].startswith(f"{100 * share:.0f}% of the perturbed units are active: active=True saves")
    assert "guide=feedback leaves" in text[0] and "after 100 steps" in text[0]
    assert text[1].startswith(f"Recommended: {result.rule}, {result.best['gain']:.0f}x fewer draws than np(samples=2)")
    assert text[2].startswith("Without a guide: np(samples=2, ")
    saved = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert saved["rule"] == result.rule and saved["text"] == str(result) and len(saved["nodes"]) == 2
    assert npt.make_rule(result.rule, SHALLOW, mse)


def row(form, variance, error=0.0, **more):
    base = {"form": form, "rule": f"np({form})", "guide": "", "units": 10.0, "residual": 1.0, "variance": variance,
            "variance_error": error, "gain": 1 / variance, "gain_error": 0.0, "predicted_gain": 1.0}  # fmt: skip
    return base | more


def test_the_simplest_of_equal_forms_is_recommended():
    rows = [row("plain", 1.0, 0.05), row("active", 0.95, 0.05), row("head", 0.92, 0.05)]
    assert str(Recommendation("np", 20, 0, rows, [])) == "Recommended: np. No form has less variance on this network."
    better = [*rows, row("draws per node", 0.5, 0.01)]
    nodes = [{"form": "draws per node", "node": n, "draws": k} for n, k in (("fc0", 3), ("out", 1))]
    assert "Draws per node (fc0 3, out 1) save 2x." in str(Recommendation("np", 20, 0, better, nodes))


def test_a_form_that_is_exact_says_so():
    readout = fc((5,), 3, depth=0)
    params = readout.init(jax.random.key(0))
    exact, _, _ = reference(readout, mse, params, DATA)
    study = Comparison(readout, mse, params, DATA, DATA, exact, 1, 0, 1, key_of(0))
    forms = list(combinations(plain_form("np"), []).items())[:3]
    result = Recommendation("np", 20, 0, *study.table(dict(forms), lambda done, of: None))
    rows = {row["form"]: row for row in result.rows}
    assert rows["head"]["variance"] == rows["head"]["predicted_variance"] == 0 and math.isinf(rows["head"]["gain"])
    assert "Recommended: np(head=evaluated), which is exact, draw by draw." in str(result)
    assert json.loads(json.dumps(result.to_dict(), allow_nan=False))["rows"][2]["gain"] is None


@pytest.mark.slow
@pytest.mark.parametrize("network", ["conv", "flax"])
def test_convolutions_and_adapted_models(network):
    linen = pytest.importorskip("flax.linen")
    layers = [linen.Conv(4, (3, 3)), linen.relu, lambda h: linen.max_pool(h, (2, 2), (2, 2)),
              lambda h: h.reshape(len(h), -1), linen.Dense(12), linen.relu, linen.Dense(3)]  # fmt: skip
    model = npt.make_model("conv", (4, 4, 1), 3) if network == "conv" else linen.Sequential(layers)
    data = jax.random.normal(jax.random.key(3), (60, 4, 4, 1)), Y
    result = recommend(model, "np(samples=4)", cross_entropy, data, guides=["chain"], batchsize=20, steps=50, draws=100)
    for row in result.rows[1:]:
        assert row["gain"] == pytest.approx(row["predicted_gain"], rel=0.25), row
    assert result.best["gain"] > 1.5


def test_forms_without_orthogonal_draws_and_maps():
    forms = combinations(plain_form("np(samples=3, sigma=1e-2)"), ["chain(rate=1e-3)"])
    assert list(forms) == ["plain", "active", "head", "active, head", "active, head, chain(rate=1e-3)"]
    assert all("sigma=0.01, samples=3" in str(form) or "samples=3, sigma=0.01" in str(form) for form in forms.values())
    assert compared(samples=2).maps(forms).keys() == {"draws per node, active, head"}  # three nodes, two hidden
    assert not compared(samples=1).maps(forms)


# ------------------------------------------------------------------------------------------------ errors


@jax.custom_jvp
def no_derivative(outputs):
    return outputs


@no_derivative.defjvp
def _(primals, tangents):
    raise RuntimeError("not this one")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"rule": "wp"}, r"compares forms of np, as in np\(samples=8\); got 'wp'"),
        ({"rule": "np; out=exact"}, "compares forms of np"),
        ({"rule": "decorrelate(np)"}, "compares forms of np"),
        ({"rule": "np(active=True)"}, "leave out active=True"),
        ({"rule": "np(samples=2, noise=orthogonal)"}, "leave out noise=orthogonal"),
        ({"rule": "np(sharing=batch)"}, "leave out sharing=batch"),
        ({"guides": ["chains"]}, "unknown guide 'chains'"),
        ({"batchsize": 60}, "more than the 60 examples of a step, as guides learn on others; got 60"),
        ({"batchsize": 0}, "batchsize must be a whole number of at least 1"),
        ({"steps": -1}, "steps must be"),
        ({"draws": 0.5}, "draws must be"),
        ({"data": X}, "pair"),
        ({"loss": lambda o, y: mse(no_derivative(o), y)}, "true gradient, but this loss .*RuntimeError: not this one"),
        ({"loss": lambda o, y: 0 * mse(o, y)}, "there is no gradient to compare with: on this batch its norm is 0"),
        ({"data": (X * jnp.nan, Y)}, "its norm is nan"),
        ({"params": jax.tree.map(lambda p: 1e20 * p, PARAMS), "loss": "linear-mse"}, "its norm is "),
    ],
)
def test_bad_input_is_a_user_error(arguments, says):
    given = {"rule": "np", "loss": mse, "data": DATA, "params": PARAMS, "batchsize": 20, "guides": []} | arguments
    with pytest.raises(UserError, match=says):
        recommend(MODEL, given.pop("rule"), given.pop("loss"), given.pop("data"), **given)


def test_an_estimate_that_is_not_finite_is_named(monkeypatch):
    monkeypatch.setattr(comparison, "mean_and_error", lambda values: (math.nan, 0.0))
    with pytest.raises(UserError, match="the estimate of 'np' is not finite"):
        compared(size=1).measured(check("rule", "np"), key_of(1))
