"""A check of a rule without bias finds one in a thousand times, and one of a biased rule does not call it unbiased."""

from functools import cache

import numpy as np
import pytest

from nodepert.diagnostics import bias, moments, verdict

NOISE = {  # skewed, with heavy tails, or both, as estimates of one to three units have; mean 0
    "one unit": lambda n: n[0] ** 2 - 1,
    "two nodes": lambda n: (n[0] + 2 * n[1]) * n[0] - 1,
    "product of three": lambda n: n[0] * n[1] * n[2],
    "fourth power": lambda n: n[0] ** 4 - 3,
    "lognormal": lambda n: np.exp(n[0]) - np.exp(0.5),
    "ratio": lambda n: n[0] / np.sqrt((n[1] ** 2 + n[2] ** 2) / 2 + 0.1),
    "normal": lambda n: n[0],
}


@pytest.mark.parametrize("draws", [100, 200])
def test_the_mean_of_skewed_noise_with_heavy_tails_is_not_taken_for_a_bias(draws):
    """4,000 means at one alarm in a thousand: 4 are expected, and 12 are four standard deviations more."""
    normal = np.random.default_rng(draws).standard_normal((3, 4000, draws))
    alarms = {name: int((bias.mean_test(noise(normal), 0.0) < 1e-3).sum()) for name, noise in NOISE.items()}
    assert max(alarms.values()) <= 12, alarms


def test_a_mean_that_is_off_is_found_with_few_draws_and_a_constant_is_compared_exactly():
    rng = np.random.default_rng(0)
    values = rng.standard_normal((200, 1000)) ** 2
    assert (bias.mean_test(values, 1.3) < 1e-4).mean() > 0.9  # 6.7 standard errors
    assert (bias.mean_test(values, 0.7) < 1e-4).mean() > 0.9
    assert bias.mean_test(np.full(10, 2.0), 2.0) == 1 and bias.mean_test(np.full(10, 2.0), 2.1) == 0


def estimated(rng, draws, units, examples, shared=False, inputs=2, factor=1.0):
    """Moments of two nodes of node perturbation, or (`shared`) of weight perturbation, of a linear loss."""
    delta, z = rng.standard_normal((2, examples, units)), rng.standard_normal((2, examples, inputs))
    exact = np.einsum("nbu,nbi->nui", delta, z).reshape(2, -1) / examples
    if shared:
        xi = rng.standard_normal((2, draws, units * inputs))
        found = np.einsum("nkp,np->k", xi, exact)[:, None] * xi
    else:
        xi = rng.standard_normal((2, draws, examples, units))
        change = np.einsum("nkbu,nbu->kb", xi, delta)
        found = np.einsum("kb,nkbu,nbi->nkui", change, xi, z).reshape(2, draws, -1) / examples
    nodes = {}
    for i in range(2):
        norm = np.linalg.norm(exact[i])
        g, h = exact[i] / norm, factor * found[i] / norm
        r = np.outer(delta[i].mean(0), z[i].mean(0)).ravel() / norm - g
        d = h.reshape(moments.GROUPS, -1, len(g)).mean(1) - g
        change = np.square(np.diff(h, axis=0, prepend=h[:1])).sum(1)
        nodes[str(i)] = moments.Moments(h @ g, np.square(h).sum(1), h @ r, change, d @ d.T, r @ g, r @ r, norm)
    return nodes


@pytest.fixture
def few_signs(monkeypatch):
    """Fewer random signs, for speed; the levels of the tests here are above 1 / 2^14."""
    few = bias.signs.__wrapped__(moments.GROUPS)[: 2**14]
    monkeypatch.setattr(bias, "signs", lambda groups: few)
    monkeypatch.setattr(bias, "FLIPS", len(few))


@pytest.mark.usefixtures("few_signs")
@pytest.mark.parametrize(("draws", "checks"), [(100, 200), (200, 80), (1000, 15)])
def test_false_alarms_of_whole_checks_of_one_to_three_units(draws, checks):
    """One alarm in a thousand is promised; the limit is four standard deviations above."""
    rng, alarms = np.random.default_rng(draws), []
    forms = [(1, 1, False), (3, 1, False), (2, 4, False), (1, 1, True), (2, 4, True)]
    for form in forms:
        found = [verdict.judged(estimated(rng, draws, *form), 1e-4) for _ in range(checks)]
        alarms += [form for f in found if f[verdict.ALL]["verdict"] == "biased"]
    expected = checks * len(forms) * verdict.ALPHA
    assert len(alarms) <= expected + 4 * expected**0.5, alarms


# ------------------------------------------------------------------------------ unbiased is what has been shown


@cache
def spread(noise):
    """The standard deviation of a noise."""
    return noise(np.random.default_rng(0).standard_normal((3, 100_000))).std()


def simulated(rng, noise, draws, gain=1.0, scale=1.0, mixing=0.0, noise_across=None):
    """Moments of estimates of three weights, with noise of standard deviation `scale`, or `noise_across` across g.

    The bias of mixing, r, is the second axis.
    """
    g, r = np.eye(3)[:2]
    e = noise(rng.standard_normal((3, draws, 3))) / spread(noise)
    e *= np.array([scale, *2 * [scale if noise_across is None else noise_across]])
    e[:, 1:] *= rng.choice([-1, 1], (draws, 1))
    h = gain * g + mixing * r + e
    d = h.reshape(moments.GROUPS, -1, 3).mean(1) - g
    change = np.square(np.diff(h, axis=0, prepend=h[:1])).sum(1)
    return moments.Moments(h @ g, np.square(h).sum(1), h @ r, change, d @ d.T, r @ g, r @ r, 1.0)


def rounded(draws):
    """As `check` rounds up."""
    return moments.GROUPS * -(-int(draws) // moments.GROUPS)


@pytest.mark.usefixtures("few_signs")
@pytest.mark.parametrize("nodes", [1, 12])
@pytest.mark.parametrize("noise", ["normal", "one unit", "lognormal"])
def test_a_gain_off_by_a_fifth_is_not_called_unbiased_after_as_many_draws_as_decide(noise, nodes):
    rng = np.random.default_rng(nodes)

    def decided(gain):
        """The verdict on the first node, of this gain, after as many draws as are asked for; the others are right."""
        gains, draws, verdicts = [gain, *[1.0] * (nodes - 1)], 400, ["undecided"]
        while verdicts[-1] == "undecided" and len(verdicts) < 5:
            of = {str(i): simulated(rng, NOISE[noise], rounded(draws), g) for i, g in enumerate(gains)}
            found = verdict.judged(of, 1e-4)
            verdicts.append(found["0"]["verdict"])
            draws = max(row["draws_to_decide"] for row in found.values())
        return verdicts[-1]

    wrong = [decided(gain) for gain in (0.8, 1.2) * 5]
    assert "unbiased" not in wrong and wrong.count("biased") >= 9, wrong
    right = [decided(1.0) for _ in range(5)]
    assert right.count("unbiased") == 5, right


@pytest.mark.usefixtures("few_signs")
@pytest.mark.parametrize("factor", [0.8, 1.2])
def test_a_wrong_factor_of_node_perturbation_is_found_by_as_many_draws_as_decide(factor):
    for seed in range(4):  # a linear loss each
        first = verdict.judged(estimated(np.random.default_rng(seed), 400, 2, 4), 1e-4)
        draws = rounded(max(row["draws_to_decide"] for row in first.values()))
        found = verdict.judged(estimated(np.random.default_rng(seed), draws, 2, 4, factor=factor), 1e-4)
        assert "unbiased" not in {row["verdict"] for row in found.values()}
        assert found[verdict.ALL]["verdict"] == "biased"


@pytest.mark.usefixtures("few_signs")
def test_a_bias_across_the_gradient_of_many_weights_is_undecided_until_it_is_excluded():
    """20,000 weights, 400 draws: the gain is known to 4%, and half of the gradient's norm hides in the noise."""
    rng, draws = np.random.default_rng(0), 400

    def row(scale, bias=0.0):
        few = simulated(rng, NOISE["normal"], draws, scale=scale)
        others = (moments.GROUPS / draws) ** 0.5 * scale * rng.standard_normal((moments.GROUPS, 20_000))
        others[:, 0] += bias
        return verdict.judged({"a": few._replace(gram=few.gram + others @ others.T)}, 1e-4)["a"]

    wide = [row(0.7, bias) for bias in (0.0, 0.3, 0.5)]
    assert [w["verdict"] for w in wide] == ["undecided"] * 3 and all(w["bias_high"] > verdict.IN_ALL for w in wide)
    assert all(w["gain_error"] < 0.05 for w in wide)
    decided = 0.7 * (draws / wide[0]["draws_to_decide"]) ** 0.5  # as that many draws would have
    assert all(row(decided)["verdict"] == "unbiased" for _ in range(2))
    assert all(row(decided, 0.6)["verdict"] != "unbiased" for _ in range(2))


@pytest.mark.usefixtures("few_signs")
def test_a_bias_of_mixing_that_could_hide_is_undecided():
    """The noise lies across the gradient, along r: all of the gain is known, and nothing of mixing."""
    rng, normal = np.random.default_rng(0), NOISE["normal"]

    def row(draws, mixing=0.0):
        m = simulated(rng, normal, draws, scale=0.1, noise_across=2.0, mixing=mixing)
        return verdict.judged({"a": m}, 1e-4)["a"]

    few = row(400)
    assert few["verdict"] == "undecided" and few["gain_error"] < 0.01 and few["bias_high"] < verdict.IN_ALL
    enough = rounded(few["draws_to_decide"])
    assert row(enough)["verdict"] == "unbiased"
    assert all(row(enough, mixing=side)["verdict"] == "biased" for side in (-0.2, 0.2))


def test_the_number_of_draws_that_decides():
    def draws(scale, error=0.0, level=1e-4):
        return verdict.draws_to_decide([scale * values], error, level)

    values = np.random.default_rng(0).standard_normal(1000)
    assert draws(0.0) == moments.FEWEST  # no noise
    assert draws(1e5) > 1e12 and draws(1.0, level=1e-6) > draws(1.0)
    assert 3 < draws(2.0) / draws(1.0) < 5  # as the variance
    assert draws(0.0, error=0.25) == 1.2 * 1000 * 4 * 0.25 / 0.5**2
    assert draws(1.0) > 1.2 * (3.9 + bias.LUCK) ** 2 / 0.2**2  # 3.9 standard errors at 1e-4


def test_what_is_undecided_asks_for_more_draws_than_it_had():
    """A gain of 0.9 that so many draws cannot tell from 0.8, though a gain of 1 would be decided by fewer."""
    rows = [verdict.judged({"a": simulated(np.random.default_rng(i), NOISE["normal"], 1200, 0.9)}, 1e-4)["a"]
            for i in range(5)]  # fmt: skip
    undecided = [row for row in rows if row["verdict"] == "undecided"]
    assert undecided and all(row["draws_to_decide"] >= 2400 for row in undecided)
