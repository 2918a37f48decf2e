"""Stabilise: what counts as a crash, that weight normalisation keeps the weights' size, findings."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from nodepert import UserError
from nodepert.experiments import build
from nodepert.experiments.questions.stabilise import crashed
from nodepert.models.fc import fc
from nodepert.registry import make


def test_a_crash_is_the_first_error_beyond_what_it_was_at_the_start():
    assert crashed(np.array([1.0, 0.2, 1.05, 0.3])) is None
    assert crashed(np.array([1.0, 0.2, 1.2, 0.3, 5.0])) == 2
    assert crashed(np.array([1.0, 0.2, math.nan])) == 2 and crashed(np.array([1.0, math.inf])) == 1


def test_weight_normalisation_keeps_the_rms_of_every_units_weights():
    params = fc((6,), 3, width=20, depth=1).init(jax.random.key(0))
    sizes = {name: float(jnp.sqrt(jnp.square(p["w"]).mean())) for name, p in params.items()}
    change = make("optimizer", "normalise(sgd)", 0.5, 10)
    state = change.init(params)
    for t in range(3):
        grads = jax.tree.map(lambda w, t=t: jax.random.normal(jax.random.key(t + 1), w.shape), params)
        updates, state = change.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        for name, size in sizes.items():
            np.testing.assert_allclose(jnp.sqrt(jnp.square(params[name]["w"]).mean(0)), size, rtol=1e-5)
    assert float(jnp.abs(params["out"]["b"]).min()) > 0  # biases are free


def test_what_is_expected_shows_at_smoke_from_one_start_for_all(smoke):
    experiment, (rows, findings, *_) = build("stabilise", "smoke"), smoke("stabilise")
    assert len(rows) == 8 and all(row["least"] <= row["initial"] for row in rows)
    assert len({(row["seed"], round(row["initial"], 5)) for row in rows}) == 2  # the start is the seed's
    assert len(findings) == 2 and all(finding.holds for finding in findings), findings
    everywhere = [row | {"crash": 25.0} for row in rows]
    assert not experiment.findings(everywhere)[1].holds  # normalised runs crash too
    assert not experiment.findings([row | {"crash": math.nan} for row in rows])[0].holds  # none does
    assert not experiment.findings([row | {"last": row["initial"]} for row in rows])[1].holds  # it learns nothing
    assert "nan" in experiment.findings([row | {"last": math.nan} for row in rows])[1].says


def test_options_that_cannot_be_are_refused_in_one_line():
    for given in ({"hidden": 0}, {"lrs": ()}, {"noise": -1.0}, {"rule": "nonsense"}, {"optimizers": ("normalise",)}):
        with pytest.raises(UserError) as error:
            build("stabilise", "smoke", **given)
        assert len(str(error.value).splitlines()) == 1
