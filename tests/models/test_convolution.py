"""Our convolution is JAX's, in value and in every derivative, and is fast where training runs."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import nodepert as npt
from nodepert.diagnostics.conformance.common import compiled
from nodepert.models.convolution import convolve, same_p
from nodepert.studies.setup import prepare
from nodepert.training.program import Program, task_data

SHAPES = [((2, 8, 8, 3), (3, 3), 1), ((2, 8, 8, 3), (3, 3), 2), ((2, 7, 9, 3), (5, 5), 2), ((2, 5, 6, 3), (1, 1), 1),
          ((2, 7, 4, 3), (2, 4), 3), ((2, 3, 3, 3), (5, 3), 1), ((2, 6, 6, 3), (1, 1), 2)]  # fmt: skip


def jax_convolution(h, w, stride):
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(h, w, (stride, stride), "SAME", dimension_numbers=numbers)


def ours(h, w, stride):
    return same_p.bind(h, w, stride=stride)  # on every backend


def same(a, b):
    return all(np.allclose(p, q, rtol=1e-4, atol=1e-4) for p, q in zip(*map(jax.tree.leaves, (a, b)), strict=True))


def arguments(shape, kernel, seed=0):
    draw = np.random.default_rng(seed)  # jax.random would be compiled for every shape
    return tuple(jnp.asarray(draw.normal(size=s), jnp.float32) for s in (shape, (*kernel, shape[-1], 4)))


@pytest.mark.parametrize(("shape", "kernel", "stride"), SHAPES)
def test_values_and_derivatives_are_those_of_jax(shape, kernel, stride):
    primals, tangents = arguments(shape, kernel), arguments(shape, kernel, 1)

    def everything(f):
        out, tangent = jax.jvp(lambda h, w: f(h, w, stride), primals, tangents)
        _, vjp = jax.vjp(lambda h, w: f(h, w, stride), *primals)
        second = jax.grad(lambda h, w: jnp.square(jax.grad(lambda w: jnp.square(f(h, w, stride)).sum())(w)).sum())
        return out, tangent, vjp(jnp.sin(out)), second(*primals)

    assert same(*compiled(lambda: [everything(f) for f in (ours, jax_convolution)])())


@pytest.mark.parametrize("axes", [(0, None), (1, None), (None, 0), (0, 0)])
def test_vmap_is_that_of_jax(axes):
    h, w = arguments((3, 3, 6, 6, 3), (3, 3))
    h, w = (h if axes[0] is not None else h[0]), (jnp.stack([w, 2 * w, w]) if axes[1] is not None else w)

    def value_and_gradient(f):
        return jax.value_and_grad(lambda h, w: jnp.sin(f(h, w, 2)).sum(), (0, 1))

    def both(h, w):
        return [jax.vmap(value_and_gradient(f), axes)(h, w) for f in (ours, jax_convolution)]

    assert same(*compiled(both)(h, w))


def test_the_public_function_computes_the_same_on_this_backend():
    assert same(convolve(*arguments((2, 8, 8, 3), (3, 3)), 2), jax_convolution(*arguments((2, 8, 8, 3), (3, 3)), 2))


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="about the CPU backend")
@pytest.mark.parametrize("rule", ["sgd", "np", "np(difference=jvp)"])
def test_every_convolution_of_a_step_has_the_layout_that_is_fast_on_cpu(rule):
    run = npt.Run(dataset="digits(train=20, test=10)", network="conv", rule=rule, batchsize=5)
    built = prepare([run], npt.load_dataset(run.dataset))[0]
    task, data = Program(built.model, built.loss, batchsize=5, epochs=1), jax.device_put(task_data(built.data))
    numbers = jax.tree.map(jnp.asarray, built.hypers[0])
    state = jax.eval_shape(task.init, numbers, data)
    text = jax.jit(task.step).lower(state, numbers, data, jnp.arange(5)).compile().as_text()
    labels = re.findall(r" convolution\(.*?dim_labels=([\w>-]+)", text)
    assert len(labels) >= 6
    assert set(labels) == {"b01f_01io->b01f"}
