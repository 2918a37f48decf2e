"""Memory of many replicas: it is found before it is hit, states are updated in place, the data are there once."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import RUN, distance

import nodepert as npt
from nodepert.studies import train as training
from nodepert.studies.setup import prepare
from nodepert.training import devices, group, mesh, replicas

pytestmark = pytest.mark.usefixtures("quickly_compiled")
RUNS = [replace(RUN, seed=seed, epochs=1) for seed in range(4)]


def group_of(runs, lanes=1):
    _, _, model, loss, data, hypers = prepare(runs)[0]
    on = mesh.mesh_of(len(runs), jax.devices()[:1])
    task = group.Program(model, loss, RUN.batchsize, 1, mesh.over_batch(on))
    return group.Group(task, data, hypers, on, lanes)


@pytest.mark.usefixtures("optimised")
def test_states_are_updated_in_place():
    """A program over more replicas needs more memory for their states, once, and for nothing else."""
    few, many = (group_of([replace(RUN, seed=seed) for seed in range(count)]) for count in (2, 34))
    analysis = [g._batches.memory_analysis() for g in (few, many)]
    states = jax.eval_shape(lambda: many._init(many.hyper, many.data))
    each = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(states)) / 34
    assert analysis[1].temp_size_in_bytes - analysis[0].temp_size_in_bytes < 4 * each
    assert analysis[1].alias_size_in_bytes >= 34 * each


@pytest.mark.parametrize("lanes", [1, 2, 3, 5])
def test_in_place_gives_every_replica_its_new_values(lanes):
    keys, x, y = jax.random.split(jax.random.key(0), 5), jnp.arange(5.0), jnp.arange(10.0).reshape(5, 2)

    def f(key, x, y):
        return jax.random.fold_in(key, 1), x + y.sum()

    new, total = jax.jit(lambda: mesh.in_place(f, (keys, x), (y,), lanes))()
    np.testing.assert_array_equal(total, x + y.sum(1))
    expected = jax.vmap(lambda key: jax.random.fold_in(key, 1))(keys)
    np.testing.assert_array_equal(jax.random.key_data(new), jax.random.key_data(expected))


def test_cpu_devices_share_one_private_copy_of_the_data():
    array = np.arange(2**20, dtype=np.uint8)
    copy = mesh.aligned(array)
    assert copy.ctypes.data % mesh.ALIGNMENT == 0 and not np.shares_memory(copy, array)
    np.testing.assert_array_equal(copy, array)
    small = np.arange(3)
    assert mesh.aligned(small) is small


def warned(caplog):
    return [r.getMessage() for r in caplog.records if "at a time" in r.getMessage()]


def trained(runs, memory, lanes=None):
    _, _, model, loss, data, hypers = prepare(runs)[0]
    epochs = replicas.fit_all(model, loss, data, hypers, batchsize=RUN.batchsize, epochs=1, memory=memory,
                              lanes=lanes, on=jax.devices()[:1])  # fmt: skip
    return {i: row["train_loss"] for epoch in epochs for i, row in epoch.rows.items()}


def test_replicas_that_do_not_fit_are_split(caplog):
    needed = group_of(RUNS).bytes
    whole, parts = trained(RUNS, needed), trained(RUNS, needed - 1)
    assert len(warned(caplog)) == 1 and parts == whole


def test_where_temporaries_do_not_fit_fewer_replicas_are_vectorised(caplog, monkeypatch):
    """As on a GPU, whose replicas are all vectorised where they fit."""
    monkeypatch.setattr(replicas, "side_by_side", lambda count: count)
    widths, made = [], group.Group.__init__

    def counted(self, task, data, hypers, mesh, lanes):
        widths.append(lanes)
        made(self, task, data, hypers, mesh, lanes)

    wide = group_of(RUNS, lanes=4)
    monkeypatch.setattr(group.Group, "__init__", counted)
    found = trained(RUNS, wide.bytes - 1)
    assert widths == [4, 2] and not warned(caplog)
    assert found == pytest.approx(trained(RUNS, wide.bytes), rel=1e-2) and widths == [4, 2, 4]


def test_the_evaluation_counts_as_well():
    many = group_of(RUNS)
    assert many.bytes >= max(devices.memory_needed(p)[0] for p in (many._batches, many._evaluate))


def test_networks_of_many_saved_runs_are_read_from_their_folders(monkeypatch, tmp_path):
    alone = npt.train(RUNS)
    monkeypatch.setattr(training, "HELD", 2 * sum(leaf.nbytes for leaf in jax.tree.leaves(alone[0].params)))
    found = npt.train(RUNS, name="many", out=tmp_path)
    assert [callable(result._source) for result in found] == [False, False, True, True]
    assert not any(result.read_back for result in found)
    assert all(distance(a, b) == 0 for a, b in zip(alone, found, strict=True))
    assert not any(callable(result._source) for result in alone)
