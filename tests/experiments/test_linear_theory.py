"""linear-theory: simulation within its error of the closed form, second order included; and what must fail."""

import math

import numpy as np
import pytest

import nodepert as npt
from nodepert.experiments import build
from nodepert.experiments.questions.linear_theory import constants


def test_at_smoke_the_findings_hold_and_a_theory_that_is_a_little_off_does_not(smoke):
    experiment, (rows, findings, *_) = build("linear-theory", "smoke"), smoke("linear-theory")
    assert len(findings) == 4 and [f.says for f in findings if not f.holds] == []
    off = [row | {"theory": row["theory"] * 1.3} for row in rows]
    assert [f.holds for f in experiment.findings(off)] == [False, True, False, True]
    lowered = [row | {"simulated": 0.5} for row in rows]  # by every step: then there is no limit
    assert not any(f.holds for f in experiment.findings(lowered))
    limit = 2 / ((2 + 2) * (6 + 2))
    assert {r["lr"] for r in rows if r["rule"] == "np" and r["panel"] == "curve"} == {limit / 2}
    at = [r for r in rows if r["rule"] == "np" and r["panel"] == "one step" and math.isclose(r["lr"], limit)]
    assert len(at) == 1 and at[0]["theory"] == pytest.approx(1, abs=1e-4)


@pytest.mark.slow
def test_with_a_large_perturbation_its_second_order_is_in_the_theory():
    rules, n, m = ("np", "np(noise=rademacher)", "wp", "wp(noise=rademacher)"), 4, 3
    rows = list(npt.experiments.linear_theory(scale="smoke", rules=rules, inputs=n, outputs=m, sigma=1.0, steps=20,
                                              replicas=200))  # fmt: skip
    for rule in rules:
        own = [r for r in rows if r["rule"] == rule and r["panel"] == "one step"]
        less = [r["lr"] ** 2 * constants(rule, n, m)[1] / 4 / m for r in own]
        z, without = ([(r["simulated"] - r["theory"] + change) / r["error"] for r, change in zip(own, c, strict=True)]
                      for c in ([0.0] * len(own), less))  # fmt: skip
        assert np.sqrt(np.mean(np.square(z))) < 2 and np.sqrt(np.mean(np.square(without))) > 4, rule


@pytest.mark.parametrize("wrong", [{"noise": -1.0}, {"noise": math.inf}, {"sigma": -1.0}, {"rules": ("fa",)}])
def test_what_cannot_be_is_refused(wrong):
    with pytest.raises(npt.UserError):
        build("linear-theory", "smoke", **wrong)
