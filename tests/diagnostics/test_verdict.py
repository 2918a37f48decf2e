"""A check of a rule without bias finds one in a thousand times, whatever the noise and however few the draws."""

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


@pytest.mark.parametrize(("draws", "checks"), [(100, 200), (200, 80), (1000, 15)])
def test_false_alarms_of_whole_checks_of_one_to_three_units(draws, checks, monkeypatch):
    """One alarm in a thousand is promised; the limit is four standard deviations above."""
    few = bias.signs.__wrapped__(moments.GROUPS)[: 2**14]
    monkeypatch.setattr(bias, "signs", lambda groups: few)
    monkeypatch.setattr(bias, "FLIPS", len(few))
    rng, alarms = np.random.default_rng(draws), []
    forms = [(1, 1, False), (3, 1, False), (2, 4, False), (1, 1, True), (2, 4, True)]
    for form in forms:
        found = [verdict.judged(estimated(rng, draws, *form), 1e-4) for _ in range(checks)]
        alarms += [form for f in found if f[verdict.ALL]["verdict"] == "biased"]
    expected = checks * len(forms) * verdict.ALPHA
    assert len(alarms) <= expected + 4 * expected**0.5, alarms


def test_a_wrong_factor_is_found_by_as_many_draws_as_decide():
    rng = np.random.default_rng(0)
    for factor in (0.6, 1.4):
        found = [verdict.judged(estimated(rng, 4000, 2, 4, factor=factor), 1e-4) for _ in range(5)]
        assert all(f[verdict.ALL]["gain_error"] < verdict.DECIDES for f in found)
        assert all(f[verdict.ALL]["verdict"] == "biased" for f in found)


@pytest.mark.parametrize(("error", "draws"), [(0.05, 1200), (0.1, 4800), (0.0, 100), (0.123456, 7400), (40.0, 770e6)])
def test_the_number_of_draws_that_decides(error, draws):
    assert verdict.draws_to_decide(1000, error) == draws
