"""rules: the same budget for every rule, a choice that does not see the test split, and what an update costs."""

import jax
import jax.numpy as jnp
import pytest

import nodepert as npt
from nodepert.errors import UserError
from nodepert.experiments import build
from nodepert.experiments.questions.rules import SETTINGS
from nodepert.experiments.shared.cost import Cost, multiplications
from nodepert.experiments.shared.tasks import make_hyper, make_task
from nodepert.registry import check


def test_the_rate_with_the_lowest_training_loss_is_run_again_with_other_seeds(smoke):
    rows = smoke("rules").rows
    for rule in ("sgd", "np"):
        search, final = ([r for r in rows if (r["rule"], r["phase"]) == (rule, p)] for p in ("search", "final"))
        best = min(search, key=lambda r: r["train_loss"])["lr"]
        assert {r["lr"] for r in final} == {best} and len(search) == len(final) == 2
        assert {r["seed"] for r in search}.isdisjoint({r["seed"] for r in final})
        assert all(r["test_acc"] > 30 and r["seconds"] > 0 and r["memory"] > 0 for r in rows)


def test_multiplications_are_counted():
    w, x, kernel, image = jnp.ones((5, 7)), jnp.ones((3, 5)), jnp.ones((3, 3, 2, 4)), jnp.ones((1, 6, 6, 2))
    assert multiplications(jax.make_jaxpr(jnp.dot)(x, w)) == 3 * 5 * 7

    def often(x):
        return jax.lax.scan(lambda c, _: (jax.jit(jnp.dot)(x, w), None), jnp.zeros((3, 7)), length=4)[0]

    assert multiplications(jax.make_jaxpr(often)(x)) == 4 * 3 * 5 * 7

    def one_of(x):
        return jax.lax.cond(x[0, 0] > 0, lambda: (x @ w).sum(), lambda: x.sum())

    assert multiplications(jax.make_jaxpr(one_of)(x)) == 3 * 5 * 7

    def convolved(image):
        return jax.lax.conv_general_dilated(image, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    assert multiplications(jax.make_jaxpr(convolved)(image)) == 36 * 4 * 18


def test_what_a_compiler_leaves_out_does_not_count():
    w, x = jnp.ones((5, 7)), jnp.ones((3, 5))

    def twice(x):
        _ = x @ (w + 1)  # of no effect
        return x @ w + jax.lax.stop_gradient(x) @ w

    assert multiplications(jax.make_jaxpr(twice)(x)) == 3 * 5 * 7


def test_forward_passes_are_those_of_the_rules_descriptions():
    """Of L equal layers, noise leaves the first layer's product as it is, and nothing is sent back through it: 1/L less
    of each. What DFA sends back is a product of its own, with the 10 outputs."""
    task = make_task(npt.load_dataset, "digits", "fc(width=64, depth=7)", batchsize=10)
    cost, first, out = Cost(task), 64 * 64, 64 * 10
    total = 7 * first + out
    passes = {rule: cost.passes(make_hyper(rule, 0.1))
              for rule in ("sgd", "np", "np(samples=4)", "np(samples=4, replay=True)", "fa", "dfa")}  # fmt: skip
    expected = {"sgd": 3 - first / total, "np": 3 - first / total, "np(samples=4)": 6 - 4 * first / total,
                "np(samples=4, replay=True)": 7, "fa": 3 - first / total, "dfa": 2 + 7 * out / total}  # fmt: skip
    assert passes == pytest.approx(expected)


@pytest.mark.parametrize("setting", SETTINGS)
def test_settings_name_what_there_is(setting):
    for rule in SETTINGS[setting]["rules"]:
        check("rule", rule)
    assert len(build("rules", "paper", setting=setting).parts) == len(SETTINGS[setting]["rules"])


@pytest.mark.parametrize("wrong", [{"rates": 1}, {"lowest": 1.0}, {"rules": ("npp",)}, {"network": "fcc"}])
def test_bad_options_are_refused(wrong):
    with pytest.raises(UserError):
        build("rules", "smoke", **wrong)
