"""A finite difference that rounding drowns is a warning, one line at the start of training."""

import logging
from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest
from small import RUN, own  # noqa: F401

import nodepert as npt
from nodepert.studies.setup import prepare
from nodepert.training import rounding

WHY = "takes finite differences of the loss with sigma=0.001, but products have the precision of"


def warnings(caplog, *runs):
    caplog.clear()
    prepare(runs)
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_in_float32_on_a_cpu_there_is_none(caplog):
    assert warnings(caplog, RUN, replace(RUN, rule="sgd"), replace(RUN, rule="wp(sigma=1e-4)")) == []


@pytest.mark.parametrize(
    "name, low", [("tensorfloat32", "TF32"), ("bfloat16", "bfloat16"), ("BF16_BF16_F32", "bfloat16")]
)
def test_a_low_precision_of_products_is_reported_once_with_what_to_do(name, low, caplog):
    with jax.default_matmul_precision(name):
        (text,) = warnings(caplog, RUN, replace(RUN, rule="np(sigma=0.003)"), replace(RUN, rule="inp"))
        assert text.startswith(f"np {WHY} {low}") and "\n" not in text
        assert 'jax.default_matmul_precision("highest"), difference=jvp or a larger sigma' in text
        assert warnings(caplog, replace(RUN, rule="np(difference=jvp)"), replace(RUN, rule="np(sigma=0.05)")) == []


def test_training_reports_it(caplog):
    with jax.default_matmul_precision("tensorfloat32"):
        npt.train(RUN)
    assert [r.getMessage().startswith(f"np {WHY} TF32") for r in caplog.records if r.name == "nodepert"] == [True]


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
