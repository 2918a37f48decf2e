"""500 random draws of network, rule, loss, data and JAX's configuration: right within error, or one clear line."""

import pytest
import random_search

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own", "quickly_compiled")]


@pytest.mark.parametrize("seed", range(20))
def test_a_random_draw_is_right_or_refused_in_one_line(seed):
    assert random_search.search(25, seed) == []


def test_the_search_finds_a_biased_rule():
    """A rule declared unbiased that is not; its oracle does not use NodePert's own diagnostics."""
    good = next(part for part in random_search.networks() if part.name == "own")
    draw = random_search.Draw(
        good,
        "np(samples=2)",
        next(random_search.losses()),
        next(random_search.inputs(random_search.random.Random(0))),
        next(random_search.targets(random_search.random.Random(0))),
        next(random_search.configurations()),
    )
    assert random_search.outcome(draw, "rule") == ("right", "")
    inner = random_search.npt.make_rule
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(random_search.npt, "make_rule", lambda *a: scaled(inner(*a)))
        what, why = random_search.outcome(draw, "rule")
    assert what == "wrong" and "gain" in why


def scaled(rule):
    def grads(*inputs):
        found, state, info = rule.grads(*inputs)
        return random_search.jax.tree.map(lambda g: 1.5 * g, found), state, info

    return rule._replace(grads=grads)
