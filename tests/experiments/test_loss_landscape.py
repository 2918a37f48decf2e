"""The landscape: the loss at a path's end is the run's own, planes go through it, directions are filter-normalised."""

import jax
import numpy as np
import pytest

import nodepert as npt
from nodepert.errors import UserError
from nodepert.experiments import build
from nodepert.experiments.questions.loss_landscape import filter_normalised, flat, like


def test_the_loss_along_the_path_is_that_of_the_run_and_the_grid_agrees_with_it_at_the_end():
    experiment = build("loss-landscape", "smoke", rules=("sgd", "np"), rates=(0.5,), examples=0, points=41)
    run = npt.Run(dataset="digits(train=300, test=100)", network="fc(width=12)", rule="np", optimizer="sgd", lr=0.5,
                  epochs=4, loss="mse")  # fmt: skip
    rows = list(experiment.rows({"rule": "np"}))
    path = [row for row in rows if row["kind"] == "path"]
    assert [row["loss"] for row in path] == pytest.approx([r["train_loss"] for r in npt.train(run).rows], rel=1e-5)
    assert (path[0]["a"], path[0]["b"]) == pytest.approx((0, 0), abs=1e-6)
    grid = [row for row in rows if row["kind"] == "grid"]
    assert len(grid) == 41**2
    near = sorted(grid, key=lambda r: (r["a"] - path[-1]["a"]) ** 2 + (r["b"] - path[-1]["b"]) ** 2)[:4]
    spread = max(r["loss"] for r in near) - min(r["loss"] for r in near)
    assert abs(np.mean([r["loss"] for r in near]) - path[-1]["loss"]) <= spread + 1e-6


def test_the_plane_meets_the_end_of_the_path_in_float_precision():
    params = npt.make_model("fc(width=5)", (4,), 3).init(jax.random.key(0))
    again = like(flat(params) + 0.0 * flat(params), params)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()) and a.dtype == b.dtype, again, params))


def test_every_unit_of_a_direction_has_the_norm_of_its_weights():
    keys = jax.random.split(jax.random.key(1), 2)
    model = npt.make_model("conv", (8, 8, 3), 4)
    params, other = model.init(keys[0]), model.init(keys[1])
    scaled = like(filter_normalised(other, params), params)
    for a, b in zip(jax.tree.leaves(scaled), jax.tree.leaves(params), strict=True):
        if a.ndim > 1:
            axes = tuple(range(a.ndim - 1))
            np.testing.assert_allclose(np.square(a).sum(axes), np.square(b).sum(axes), rtol=1e-4)


def test_what_cannot_be_is_refused():
    with pytest.raises(UserError, match="one each; got 3"):
        build("loss-landscape", "smoke", rates=(0.1, 0.2, 0.3), rules=("np", "sgd"))
    with pytest.raises(UserError, match="a run diverged; take a smaller"):
        list(build("loss-landscape", "smoke", rules=("sgd",), loss="linear-mse", rates=(1e20,)).rows({"rule": "sgd"}))
