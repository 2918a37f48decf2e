"""Finite differences compute products in float32; where rounding drowns them even so, one line says it."""

import logging
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import RUN, own  # noqa: F401

import nodepert as npt
from nodepert import registry
from nodepert.diagnostics.sigma import perturbing, recommendation, step_study
from nodepert.rules import rounding
from nodepert.studies.setup import prepare

WHY = "takes finite differences of the loss with sigma=0.001, but products have the precision of"

FINITE = ("np(sigma=0.001)", "np(sigma=0.001, difference=central)", "np(sigma=0.001, replay=True)", "inp(sigma=0.001)",
          "np(sigma=0.001, baseline=running)", "np(sigma=0.001, active=True, head=evaluated, guide=feedback)",
          "np(sigma=0.001, samples=2, estimate=projected)", "anp(sigma=0.001)", "wp(sigma=0.001)",
          "opzo(sigma=0.001)", "guess(sigma=0.001)")  # fmt: skip

pytestmark = pytest.mark.usefixtures("quickly_compiled")


def warnings(caplog, *runs):
    caplog.clear()
    prepare(runs)
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_in_float32_on_a_cpu_there_is_none(caplog):
    assert warnings(caplog, RUN, replace(RUN, rule="sgd"), replace(RUN, rule="wp(sigma=1e-4)")) == []


def asked():
    """The precision of the products that are being traced, by JAX's setting."""
    return getattr(jax.config, rounding.SETTING)


def tf32(a):
    return jax.lax.reduce_precision(a, 8, 10) if a.ndim > 1 else a


def emulated(model, low=lambda: asked() == "tensorfloat32"):
    """The network on a device with TF32 by default, `low` in place of the hardware: operands rounded to 10 bits."""

    def op(inner):
        def rounded(p, h):
            return inner(*jax.tree.map(tf32, (p, h))) if low() else inner(p, h)

        return rounded

    def apply(params, x, node=npt.plain):
        return model.apply(params, x, lambda name, inner, p, h: node(name, op(inner), p, h))

    return model._replace(apply=apply)


@pytest.fixture
def by_default():
    """The default of a recent GPU."""
    with jax.default_matmul_precision("tensorfloat32"):
        yield


MODEL, LOSS = npt.make_model("fc(width=50)", (64,), 3), npt.make_loss("cross-entropy")
PARAMS = MODEL.init(jax.random.key(0))
BATCH = jax.random.normal(jax.random.key(1), (32, 64)), jnp.arange(32) % 3


def own_row(spec, model):
    rows = step_study(jax.random.key(2), perturbing(registry.check("rule", spec)), model, LOSS, PARAMS, BATCH)
    return rows, next(row for row in rows if row["own"])


@pytest.mark.usefixtures("by_default")
@pytest.mark.parametrize("spec", ["np", "wp(sigma=3e-4)", "np(difference=central)"])
def test_a_finite_difference_in_float32_survives_where_tf32_drowns_it(spec):
    rows, row = own_row(spec, emulated(MODEL))
    assert row["error"] < 0.002 and row["error_by_default"] > 10 * row["error"]
    text = recommendation(rows, registry.full("rule", spec), "float32")
    assert f"In TF32, the default here, it would be {row['error_by_default']:.2g}" in text


def test_where_the_default_is_float32_there_is_nothing_to_say():
    rows, row = own_row("np", MODEL)
    assert row["error"] == row["error_by_default"] < 0.002
    assert "default" not in recommendation(rows, registry.full("rule", "np"), "float32")


@pytest.mark.usefixtures("by_default")
@pytest.mark.parametrize("spec", FINITE)
def test_every_pass_of_a_finite_difference_is_in_float32(spec):
    """What TF32 leaves is the rounding of the pullback, 5e-4; with sigma=1e-4, a difference in it would be noise."""
    spec = spec.replace("0.001", "0.0001")
    ours, exact = (np.concatenate([g.ravel() for g in jax.tree.leaves(first_step(spec, model))])
                   for model in (emulated(MODEL), MODEL))  # fmt: skip
    assert np.linalg.norm(ours - exact) < 0.01 * np.linalg.norm(exact)


def first_step(spec, model):
    rule = npt.make_rule(spec, model, LOSS)
    state = rule.init(jax.random.key(4), PARAMS, BATCH[0])
    return jax.jit(rule.grads)(jax.random.key(3), state, PARAMS, BATCH)[0]


@pytest.mark.usefixtures("by_default")
@pytest.mark.parametrize("spec", ["np", "inp", "np(replay=True)", "sgd", "np(difference=jvp)"])
def test_the_other_products_keep_the_default(spec):
    precisions = precisions_of(spec)
    assert jax.lax.Precision.HIGH in precisions
    assert (jax.lax.Precision.HIGHEST in precisions) == (spec not in ("sgd", "np(difference=jvp)"))


def precisions_of(spec):
    rule = npt.make_rule(spec, MODEL, LOSS)
    jaxpr = jax.make_jaxpr(lambda: rule.grads(jax.random.key(3), (), PARAMS, BATCH))().jaxpr
    return {e.params["precision"][0] for e in rounding.equations(jaxpr) if e.primitive.name == "dot_general"}


@pytest.mark.parametrize("setting", [None, "highest", "float32", "F32_F32_F32", "TF32_TF32_F32_X3"])
def test_a_precise_default_is_left_as_it_is(setting):
    with jax.default_matmul_precision(setting):
        assert rounding.default_format() is None
        assert rounding.in_float32(asked)() == setting


@pytest.mark.usefixtures("by_default")
def test_training_in_tf32_is_not_reported(caplog):
    assert warnings(caplog, RUN, replace(RUN, rule="np(sigma=0.003)"), replace(RUN, rule="inp")) == []


@pytest.mark.parametrize("spec", FINITE)
def test_a_rule_that_rounding_drowns_warns_once_at_its_first_step(spec, caplog):
    rule = npt.make_rule(spec, emulated(MODEL, low=lambda: True), LOSS)
    state = rule.init(jax.random.key(4), PARAMS, BATCH[0])
    for _ in range(2):
        jax.eval_shape(rule.grads, jax.random.key(3), state, PARAMS, BATCH)
        (text,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert text.startswith(f"this rule {WHY} TF32") and text.endswith("use difference=jvp or a larger sigma")


@pytest.mark.parametrize("spec", ["np(sigma=0.05)", "np(difference=jvp)", "sgd"])
def test_a_rule_that_survives_does_not_warn(spec, caplog):
    rule = npt.make_rule(spec, emulated(MODEL, low=lambda: True), LOSS)
    jax.eval_shape(rule.grads, jax.random.key(3), (), PARAMS, BATCH)
    assert not caplog.records


def test_training_reports_it_once(caplog):
    run = replace(RUN, network=f"precision({RUN.network})")
    npt.train(run)
    assert [r.getMessage().startswith(f"np {WHY} bfloat16") for r in caplog.records if r.name == "nodepert"] == [True]


def test_networks_whose_products_are_in_low_precision(caplog):
    (text,) = warnings(caplog, replace(RUN, network=f"precision({RUN.network})", rule="decorrelate(np)"))
    assert text.startswith(f"np {WHY} bfloat16") and text.endswith("use difference=jvp or a larger sigma")


@pytest.mark.usefixtures("own")
def test_parameters_in_float16_and_a_scan_inside_the_network(caplog):
    def half(input_shape, classes):
        size = input_shape[0] * input_shape[1]

        def init(key):
            return {"w": jax.random.normal(key, (size, classes), jnp.float16) / size}

        def looped(p, h):
            return jax.lax.scan(lambda c, _: (c + h.astype(p.dtype) @ p, None), jnp.zeros((len(h), classes), p.dtype),
                                None, 2)[0].astype(jnp.float32)  # fmt: skip

        return npt.Model(init, lambda p, x, node=npt.plain: node("w", looped, p["w"], x.reshape(len(x), -1)))

    npt.register("network", "half", half)
    (text,) = warnings(caplog, replace(RUN, network="half", rule="anp"))
    assert text.startswith(f"anp {WHY} float16")


@pytest.mark.parametrize("backend, low", [("gpu", "TF32"), ("tpu", "bfloat16"), ("cpu", None)])
def test_the_default_of_a_device(backend, low, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert rounding.format_of(None) == rounding.format_of((jax.lax.Precision.HIGH,) * 2) == low
    assert rounding.format_of(jax.lax.Precision.HIGHEST) is None
    assert rounding.format_of(jax.lax.DotAlgorithmPreset.TF32_TF32_F32) == "TF32"
    assert rounding.format_of(jax.lax.DotAlgorithmPreset.BF16_BF16_F32_X9) is None
