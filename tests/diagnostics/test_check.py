"""`check` reports what is known: variances in closed form, exact and biased rules, mutants, no false alarms."""

import csv
import io
import json
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from nodepert import diagnostics, registry
from nodepert.cli import app as cli
from nodepert.cli.check import table
from nodepert.core import Info, Model, Rule, adding, node_shapes, per_example, pullback, stateless
from nodepert.diagnostics import bias, check, moments, sigma, verdict
from nodepert.diagnostics.conformance.common import compiled
from nodepert.diagnostics.declared import bias_of_spec
from nodepert.diagnostics.result import Check
from nodepert.errors import UserError
from nodepert.experiments.drawing import COLOURS
from nodepert.models.fc import fc, linfc
from nodepert.registry.spec import Spec
from nodepert.report.check_figure import check_figure
from nodepert.rules.noise import draw
from nodepert.training.losses import mse

pytestmark = pytest.mark.usefixtures("quickly_compiled")

MODEL = fc((5,), 3, width=7, depth=2)
LINEAR = linfc((6,), 4, depth=0)
WIDE = fc((64,), 10, width=100)


@compiled
def arrays():
    """Everything that is drawn for several tests, in one program."""
    shapes = {1: (4, 5), 3: (5, 6), 4: (5, 4), 8: (40, 64)}
    drawn = {seed: jax.random.normal(jax.random.key(seed), shape) for seed, shape in shapes.items()}
    return drawn, MODEL.init(jax.random.key(2))


DRAWN, PARAMS = arrays()  # no example of this batch is without a response
X, Y = BATCH = DRAWN[1], jnp.array([0, 2, 1, 1])
LINEAR_BATCH, IMAGES = (DRAWN[3], DRAWN[4]), (DRAWN[8], jnp.arange(40) % 10)


def found(rule, model=MODEL, loss=mse, batch=BATCH, params=PARAMS, study=False, **options):
    return check(model, rule, loss, batch, params=params, study=study, **options)


# --------------------------------------------------------------------------------- numbers known in closed form

N, D = 4, 4 * 6 + 4  # units and parameters


def half_square(outputs, targets):
    return jnp.square(outputs - targets).sum(-1) / 2


def linear_moments(params):
    """sum_b ||delta_b||^2 ||z_b||^2 / B^2 over ||g||^2, and so on: what the variance of one linear layer is made of."""
    x, y = LINEAR_BATCH
    delta = LINEAR.apply(params, x) - y
    g = jax.grad(lambda p: half_square(LINEAR.apply(p, x), y).mean())(params)["out"]
    squares = jnp.square(delta).sum(1) * (jnp.square(x).sum(1) + 1)  # 1: the bias
    return float(squares.sum() / len(x) ** 2 / (jnp.square(g["w"]).sum() + jnp.square(g["b"]).sum()))


@pytest.mark.parametrize(
    ("rule", "own", "shared"),  # variance / ||g||^2 = own * sum_b ||g_b||^2 / (B ||g||)^2 + shared, by O4 and O6
    [
        ("np(difference=jvp)", N + 1, 0),
        ("np(noise=rademacher)", N - 1, 0),
        ("inp", N - 1, 0),
        ("wp(difference=jvp)", 0, D + 1),
    ],
)
def test_variance_of_one_linear_layer(rule, own, shared):
    params = LINEAR.init(jax.random.key(5))
    result = found(rule, LINEAR, half_square, LINEAR_BATCH, params, draws=10_000)
    row, total = result.rows
    expected = own * linear_moments(params) + shared
    assert row["variance"] == pytest.approx(expected, rel=0.08)  # 10,000 draws: within 4% or so; N + 1 is not N
    assert row["norm_ratio"] == pytest.approx((row["variance"] + 1) ** 0.5, rel=0.03)
    assert total["variance"] == pytest.approx(row["variance"], rel=1e-5) and total["parameters"] == D
    assert result.verdict == "unbiased"


@pytest.mark.parametrize("rule", ["np", "anp"])
def test_as_many_draws_as_predicted_have_cosine_one_half(rule):
    half = found(rule, draws=4000).rows[-1]["draws_to_half"]
    assert 2 < half < 100
    mean = found(f"{rule}(samples={half:.0f})", draws=2000).rows[-1]
    assert mean["cosine"] == pytest.approx(0.5, abs=0.05)


def test_no_number_of_draws_is_enough_where_the_mean_points_elsewhere():
    away = found("fa(seed=3)").rows
    assert [math.isinf(row["draws_to_half"]) for row in away] == [row["cosine"] < 0.5 for row in away]
    assert any(row["cosine"] < 0.5 for row in away) and away[-2]["draws_to_half"] == 1  # the output node is exact


# --------------------------------------------------------------------------------------- verdicts on rules

NOT_UNBIASED = [name for name in registry.names("rule")
                if bias_of_spec(Spec(name)) in ("exact", "biased") and name != "local"]  # fmt: skip


@pytest.mark.parametrize("name", [*NOT_UNBIASED, "np"])  # that the others are unbiased: test_conformance.py
def test_a_rule_is_what_it_is_declared_to_be(name):
    result = found(name, draws=2000 if name in ("anp", "np") else 100, seed=1)
    assert result.verdict == result.declared and result.agrees, str(result)
    assert "WARNING" not in str(result)


@pytest.mark.parametrize(
    ("spec", "declared"),
    [
        ("decorrelate(anp)", "biased"),
        ("np; out=exact", "unbiased"),
        ("np(estimate=projected)", "biased"),
        ("decorrelate(np(estimate=projected))", "biased"),
        ("np(estimate=rescaled)", "unbiased"),
        ("sgd; out=exact", "exact"),
        ("np; fc*=dfa; out=exact", "biased"),
        ("decorrelate('np; out=exact')", "unbiased"),
        ("np(credit=own)", "biased"),
        ("decorrelate(np(credit=future))", "unbiased"),
        ("np(credit=future(gamma=1))", "unbiased"),
        ("np(credit=future(gamma=0.5))", "biased"),
    ],
)
def test_a_combinator_declares_the_weakest_claim_of_what_it_wraps(spec, declared):
    assert bias_of_spec(registry.check("rule", spec)) == declared


def test_decorrelate_is_held_against_the_gradient_of_the_network_it_trains():
    adapted = registry.make("rule", "decorrelate(np)", MODEL, mse).model(BATCH[0])
    params = adapted.init(jax.random.key(2))
    mixed = {n: r + 0.3 * jax.random.normal(jax.random.key(7), r.shape) for n, r in params["decorrelation"].items()}
    params = {"weights": PARAMS, "decorrelation": mixed}
    exact, noisy = (found(f"decorrelate({rule})", params=params, draws=4000) for rule in ("sgd", "np"))
    assert (exact.verdict, noisy.verdict) == ("exact", "unbiased")
    assert [row["node"] for row in noisy.rows] == ["fc0", "fc1", "out", "all nodes"]
    assert noisy.rows[-1]["parameters"] == sum(p.size for p in jax.tree.leaves(PARAMS))  # and nothing of R


def test_a_rule_with_a_running_expectation_is_unbiased_once_it_has_met_the_examples():
    rule = "np(baseline=running, sigma=0.01)"
    result = found(rule)
    assert result.verdict == "unbiased"
    assert found(rule, warmup=0, draws=2000).rows[-1]["variance"] > 5 * result.rows[-1]["variance"]


def test_a_bias_that_was_not_declared_is_a_warning_and_no_failure(monkeypatch, capsys):
    result = found("np(sigma=3.0)")
    assert (result.verdict, result.declared, result.agrees) == ("biased", "unbiased", False)
    warning = "WARNING: np(sigma=3.0) is declared unbiased, but here it is biased."
    assert warning in str(result).splitlines()
    monkeypatch.setattr(diagnostics, "check", lambda *_, **__: result)
    cli.main(["check", *TINY, "--rule", "np(sigma=3.0)"])
    assert warning in capsys.readouterr().out.splitlines()


def test_better_than_declared_is_no_warning():
    result = found("fa", LINEAR, half_square, LINEAR_BATCH, LINEAR.init(jax.random.key(5)), draws=100)
    assert (result.verdict, result.declared, result.agrees) == ("exact", "biased", True)


def test_too_few_draws_are_undecided_and_as_many_as_it_asks_for_decide():
    result = found("np", draws=100)
    nodes = result.rows[:-1]
    assert (result.verdict, result.agrees, result.declared) == ("undecided", None, "unbiased")
    draws = max(row["draws_to_decide"] for row in nodes)
    assert all(row["verdict"] == "undecided" and row["gain_error"] > 0.05 for row in result.rows)
    assert re.search(f"^Undecided at fc0, fc1, out, all nodes: .* take about {draws:,.0f} draws.$", str(result), re.M)
    more = found("np", draws=int(draws))
    assert [row["verdict"] for row in more.rows] == ["unbiased"] * 4 and more.agrees
    assert "ndecided" not in str(more) and json.loads(json.dumps(result.to_dict()))["agrees"] is None
    assert found("fa", draws=100).rows[-1]["draws_to_decide"] == 100  # no noise


def test_a_node_that_is_undecided_is_named_where_all_nodes_together_are_not():
    small = jax.tree.map(lambda p: p, PARAMS) | {"out": {"w": 1e-3 * PARAMS["out"]["w"], "b": PARAMS["out"]["b"]}}
    result = found("np", params=small, draws=3000)
    verdicts = {row["node"]: row["verdict"] for row in result.rows}
    assert verdicts == {"fc0": "undecided", "fc1": "undecided", "out": "unbiased", "all nodes": "unbiased"}
    assert result.agrees and "Undecided at fc0, fc1: " in str(result)


def test_a_clear_bias_is_no_question_of_more_draws():
    opposite = found(mutant(lambda d, xi: -d * xi), draws=1000)
    assert opposite.verdict == "biased" and opposite.agrees is None


def test_the_table_and_the_figure_of_an_undecided_node(tmp_path):
    result = found("np", draws=100)
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(table(result))
    assert console.export_text().count("undecided") == 4
    path = check_figure(result.rows, tmp_path / "x.png")
    with Image.open(path) as picture:
        colours = {f"#{r:02X}{g:02X}{b:02X}" for _, (r, g, b) in picture.convert("RGB").getcolors(1 << 24)}
    assert COLOURS[3] in colours


def test_at_the_kink_of_relu_a_remark_says_so():
    result = found("np", batch=(X.at[0].set(0), Y), draws=4000)  # without biases every node is exactly 0 then
    assert result.verdict == "biased" and "exactly 0 (at fc0, fc1, out)" in str(result)


# ------------------------------------------------------------------------------------- mutants, false alarms


def mutant(signals_of, one_draw=False, model=MODEL, sigma=1e-3):
    """Node perturbation with signals_of(change of the losses (B, 1), noise); with one noise draw for the batch."""

    def grads(key, state, params, batch):
        x, y = batch
        outputs = model.apply(params, x)
        clean = per_example(mse, outputs, y)
        shapes = node_shapes(model, params, x)
        drawn = {n: jax.ShapeDtypeStruct((1, *s.shape[1:]), s.dtype) for n, s in shapes.items()} if one_draw else shapes
        xi = {n: jnp.broadcast_to(noise, shapes[n].shape) for n, noise in draw(key, drawn).items()}
        noisy = per_example(mse, model.apply(params, x, adding(jax.tree.map(lambda n: sigma * n, xi))), y)
        signals = {n: signals_of((noisy - clean)[:, None] / sigma, noise) / len(x) for n, noise in xi.items()}
        return pullback(model, params, x, signals), state, Info(clean, outputs)

    return Rule(stateless, grads)


def test_the_mutants_are_biased_and_their_corrected_form_is_not():
    def verdict(*form):
        return found(mutant(*form), draws=10_000)

    right = verdict(lambda d, xi: d * xi)
    assert right.verdict == "unbiased" and abs(right.rows[-1]["mixing"]) < 4 * right.rows[-1]["mixing_error"]
    assert (right.declared, right.agrees, right.steps) == (None, None, [])
    shared = verdict(lambda d, xi: d.mean() * xi, True)
    assert shared.verdict == "biased" and "It mixes examples" in str(shared)
    assert shared.rows[-1]["mixing"] == pytest.approx(1, abs=3 * shared.rows[-1]["mixing_error"])
    scaled = verdict(lambda d, xi: 1.1 * d * xi)
    assert scaled.verdict == "biased" and "It mixes examples" not in str(scaled)
    assert scaled.rows[-1]["gain"] == pytest.approx(1.1, abs=0.04)
    flipped = verdict(lambda d, xi: -d * xi)
    assert flipped.verdict == "biased" and flipped.rows[-1]["bias"] == pytest.approx(2, abs=0.1)
    assert math.isinf(flipped.rows[-1]["draws_to_half"])


def test_the_flaw_of_the_original_code_is_found_on_digits():
    """1,000 draws: the bias itself (13 to 38% by node) is far below the noise; its direction gives it away."""
    from nodepert.data import load_dataset

    data = load_dataset("mnist5k(train=100)")
    batch = (data.train_x - data.mean) / data.std, data.train_y
    model = fc((28, 28, 1), 10, width=200)
    result = found(mutant(lambda d, xi: d.mean() * xi, True, model), model, batch=batch, params=None, draws=1000)
    assert result.verdict == "biased" and "It mixes examples" in str(result)


def simulated(rng, parameters, scale, draws, bias=0.0):
    """Moments of Gaussian estimates of a random gradient; `scale`: standard deviations, (parameters,)."""
    g, r = rng.standard_normal((2, parameters))
    g /= np.linalg.norm(g)
    h = g + bias + scale * rng.standard_normal((draws, parameters))
    d = h.reshape(moments.GROUPS, -1, parameters).mean(1) - g
    change = np.square(np.diff(h, axis=0, prepend=h[:1])).sum(1)
    return moments.Moments(h @ g, np.square(h).sum(1), h @ r, change, d @ d.T, r @ g, r @ r, 1.0)


@pytest.mark.parametrize(("parameters", "decay"), [(1, 0.0), (3, 0.0), (20, 0.3)])  # decay over principal axes
def test_false_alarms_are_rare_and_biases_are_found(parameters, decay):
    """200 checks of four nodes each, at one alarm in a thousand: 3 of them would be chance in one case of 1,000."""
    rng = np.random.default_rng(int(10 * decay) + parameters)
    scale = 3 * np.exp(-decay * np.arange(parameters))

    def verdicts(checks, bias):
        nodes = ({str(i): simulated(rng, parameters, scale, 200, bias) for i in range(4)} for _ in range(checks))
        return [verdict.judged(n, 1e-4)["all nodes"]["verdict"] for n in nodes]

    assert verdicts(200, 0.0).count("biased") < 3
    assert verdicts(10, 8 * scale / 200**0.5).count("biased") == 10  # eight standard errors on every axis


def test_probability_by_random_signs_is_uniform_without_bias(monkeypatch):
    monkeypatch.setattr(bias, "FLIPS", 2**12)
    few = bias.signs.__wrapped__(moments.GROUPS)
    monkeypatch.setattr(bias, "signs", lambda groups: few)
    rng = np.random.default_rng(0)
    for rank in (1, 3, 100):
        groups = rng.standard_normal((1000, moments.GROUPS, rank))
        p = np.array([bias.sign_test(m @ m.T) for m in groups])
        assert abs((p < 0.02).mean() - 0.02) < 4 * (0.02 / 1000) ** 0.5


# --------------------------------------------------------------------------------------------- sigma


def at(result, difference, sigma):
    return next(r for r in result.steps if (r["difference"], r["sigma"]) == (difference, sigma))


def test_finite_differences_in_float32_and_in_bfloat16():
    params = WIDE.init(jax.random.key(2))
    single = found("np", WIDE, "mse", IMAGES, params, True, draws=100)
    assert at(single, "forward", 1e-3)["correlation"] > 0.999 > at(single, "forward", 1)["correlation"]
    assert at(single, "central", 1e-3)["slope"] == pytest.approx(1, abs=0.01)
    assert "keep it" in single.recommendation and [r["sigma"] for r in single.steps if r["own"]] == [1e-3]
    coarse, x = jax.tree.map(lambda p: p.astype(jnp.bfloat16), params), IMAGES[0].astype(jnp.bfloat16)
    brief = found("np", WIDE, "mse", (x, IMAGES[1]), coarse, True, draws=100)
    assert at(brief, "forward", 1e-3)["correlation"] < 0.9
    assert "in bfloat16" in brief.recommendation and brief.recommendation.endswith("take difference=jvp.")


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ("np(sigma=1.0)", "take another .above 0.99 from"),
        ("inp(difference=central)", "difference=central measures slopes .* keep it"),
        ("wp(sigma=1e-4)", "keep it"),
        ("dfa; out=np(sigma=2e-3)", "sigma=0.002"),
        ("decorrelate(np(difference=jvp))", "no sigma to choose"),
    ],
)
def test_recommendation(rule, says):
    spec = sigma.perturbing(registry.check("rule", rule))
    rows = sigma.step_study(jax.random.key(0), spec, MODEL, mse, PARAMS, BATCH)
    assert re.search(says, sigma.recommendation(rows, spec, "float32"))
    assert [row["sigma"] for row in rows if row["own"]] in ([dict(spec.kwargs)["sigma"]], [])


def test_a_rule_without_sigma_gets_no_recommendation():
    result = found("fa", study=True, draws=100)
    assert (result.steps, result.recommendation) == ([], "")


# --------------------------------------------------------------------------------- what has no numbers, errors


def test_a_node_without_gradient_has_no_numbers():
    dead = jax.tree.map(jnp.array, PARAMS) | {"fc1": {"w": PARAMS["fc1"]["w"], "b": jnp.full(7, -100.0)}}
    result = found("np", params=dead, draws=2000)
    first, second, out, total = result.rows
    assert first["verdict"] == second["verdict"] == "no gradient" and math.isnan(first["gain"])
    assert out["verdict"] == total["verdict"] == "unbiased"
    text = json.dumps(result.to_dict(), allow_nan=False)
    assert json.loads(text)["rows"][0]["cosine"] is None
    nothing = found("np", loss=lambda o, y: (o.argmax(-1) != y).astype(jnp.float32), draws=100)
    assert (nothing.verdict, nothing.agrees) == ("no gradient", None) and "zero at every node" in str(nothing)


def test_a_mean_of_zero_is_a_bias_of_the_whole_gradient():
    still = Rule(stateless, lambda k, s, p, b: (jax.tree.map(jnp.zeros_like, p), s, None))
    total = found(still, draws=100).rows[-1]
    assert (total["cosine"], total["gain"], total["variance"]) == (0, 0, 0) and math.isinf(total["draws_to_half"])
    assert total["bias"] == pytest.approx(1) and total["verdict"] == "biased"


@jax.custom_jvp
def no_derivative(outputs):
    return outputs


@no_derivative.defjvp
def _(primals, tangents):
    raise RuntimeError("not this one")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"rule": "nosuch"}, "unknown rule 'nosuch'"),
        ({"rule": "np(sigma=-1)"}, "sigma must be positive"),
        ({"rule": "np; nosuch=exact"}, "no node is named 'nosuch'"),
        ({"loss": "nosuch"}, "unknown loss"),
        (
            {"rule": "sgd", "loss": lambda o, y: mse(no_derivative(o), y)},
            "true gradient, but this loss .*RuntimeError: not this one",
        ),
        ({"draws": 99}, "draws must be a whole number of at least 100; got 99"),
        ({"draws": 1e3}, "draws must be a whole number"),
        ({"warmup": -1}, "warmup must be"),
        ({"seed": 2**31}, "seed must be"),
        ({"batch": BATCH[0]}, "pair"),
        ({"batch": (X, Y[:2])}, r"got shapes \(2,\) and \(4, 5\)"),
        ({"batch": (X[:0], Y[:0])}, "at least one"),
        ({"batch": (X * jnp.nan, Y)}, "gradient is not finite at node 'fc0'"),
        ({"rule": "decorrelate(np)"}, "no decorrelation matrices"),
    ],
)
def test_bad_input_is_a_user_error(arguments, says):
    with pytest.raises(UserError, match=says):
        found(**{"rule": "np", "draws": 100} | arguments)


def test_a_broken_contract_is_reported_as_it_is():
    with pytest.raises(ValueError, match=r"one number per example") as error:
        found("np", loss=lambda o, y: mse(o, y).mean(), draws=100)
    assert not isinstance(error.value, UserError)
    twice = Model(MODEL.init, lambda p, x, node: node("a", lambda p, h: h @ p, p, node("a", lambda p, h: h, p, x)))
    with pytest.raises(ValueError, match="two nodes are named 'a'"):
        found("np", model=twice, params=jnp.ones((5, 3)), draws=100)


def test_draws_are_whole_groups_progress_is_reported_and_a_seed_gives_the_same_rows():
    def run(seed, progress):
        params = LINEAR.init(jax.random.key(5))
        return found("np", LINEAR, half_square, LINEAR_BATCH, params, draws=101, seed=seed, progress=progress)

    heard = []
    first = run(3, lambda drawn, of: heard.append((drawn, of)))
    assert first.draws == 120 and heard == [(6 * i, 120) for i in range(1, 21)]
    assert first.rows == run(3, max).rows != run(4, max).rows


# ----------------------------------------------------------------------------------------- the command line

TINY = ["--dataset", "digits(train=200, test=50)", "--network", "fc(width=8, depth=1)", "--draws", "200"]


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_the_command_writes_rows_all_results_and_a_figure(tmp_path, capsys):
    cli.main(["check", *TINY, "--rule", "np; out=exact", "dfa", "--loss", "cross-entropy", "--out", "results"])
    out, err = capsys.readouterr()
    folder = tmp_path / "results" / "check"
    stems = ["np_out=exact", "dfa"]
    assert sorted(p.name for p in folder.iterdir()) == sorted(f"{s}.{e}" for s in stems for e in ("csv", "json", "png"))
    for stem, expected in zip(stems, ("unbiased", "biased"), strict=True):
        rows, everything = read(folder / f"{stem}.csv"), json.loads((folder / f"{stem}.json").read_text())
        assert [row["node"] for row in rows] == ["fc0", "out", "all nodes"] and rows[-1]["verdict"] == expected
        for row, same in zip(rows, everything["rows"], strict=True):
            numbers = {k: float(v) for k, v in row.items() if k not in ("node", "verdict")}
            finite = {k: v if math.isfinite(v) else None for k, v in numbers.items()}
            assert finite | {k: row[k] for k in ("node", "verdict")} == same
        assert (everything["loss"], everything["draws"], everything["verdict"]) == ("cross-entropy", 200, expected)
        assert everything["passes_per_step"] == {"dfa": 2}.get(stem)
        assert everything["text"].split("\n")[0] in " ".join(out.split())
        with Image.open(folder / f"{stem}.png") as picture:
            colours = {f"#{r:02X}{g:02X}{b:02X}" for _, (r, g, b) in picture.convert("RGB").getcolors(1 << 24)}
        assert {COLOURS[0], COLOURS[2]} <= colours
        assert (COLOURS[4] in colours) == bool(everything["steps"]) == ("np" in stem)
    assert all(c.isprintable() or c == "\n" for c in out) and err == "" and "WARNING" not in out
    assert out.count("cost: ") == 1 and "cost: 2 forward passes per step\n" in out


def test_the_table_fits_80_columns(capsys):
    long = {"bias_high": 12.3, "variance": 1.63e6, "draws_to_half": 543025}
    row = dict.fromkeys(verdict.COLUMNS, 0.000123) | long | {"verdict": "unbiased"}
    rows = [{"node": "conv12.up"} | row, {"node": "all nodes"} | row]
    Console(width=80).print(table(Check("wp", 1000, rows, "unbiased", [], "")))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80 and len(lines) == 2 + len(rows)
    shown = "all nodes 0.00012 0.00012 0.000 ± 0.000 < 1230% 1.6e+06 543,025 unbiased"
    assert " ".join(lines[-1].split()) == shown


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["--rule", "nosuch"], "unknown rule 'nosuch'"),
        (["--rule", "np; nosuch=exact"], "no node is named 'nosuch'"),
        (["--rule", "np", "np"], "two of these rules are the same"),
        (["--rule", "sgd", "np(sigma=0)"], "sigma must be positive"),
        (["--rule"], "check needs a rule"),
        (["--network", "nosuch"], "unknown network"),
        (["--dataset", "nosuch"], "unknown dataset"),
        (["--loss", "nosuch"], "unknown loss"),
        (["--draws", "5"], "draws must be a whole number of at least 100"),
        (["--draws", "many"], "--draws"),
        (["--batchsize", "201"], "batchsize must be in 1..200"),
        (["--batchsize", "0"], "batchsize must be"),
        (["--seed", "-1"], "seed must be"),
        (["--name", "a/b"], "the name 'a/b'"),
        (["--out", "file"], "cannot write file/check"),
        (["--nosuch"], "--nosuch"),
    ],
)
def test_bad_commands_are_one_line_and_status_2(command, says, tmp_path, capfd):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(SystemExit) as stop:
        cli.main(["check", *TINY, *command])
    out, err = capfd.readouterr()
    assert stop.value.code == 2 and out == ""
    assert err.startswith("nodepert: error: ") and says in err and err.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
