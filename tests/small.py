"""Small runs, comparisons of results, a callback that calls a function, a rule of the user's own: shared by tests."""

from dataclasses import replace
from weakref import WeakValueDictionary

import jax
import numpy as np
import pytest

import nodepert as npt
from nodepert.registry import catalogue
from nodepert.registry.table import GIVEN, OWN
from nodepert.studies.callbacks import Callback
from nodepert.training.metrics import measured

COLUMNS = ["epoch", *measured()]  # of a row
RUN = npt.Run(dataset="digits(train=200,test=50)", network="fc(width=8)", epochs=2, batchsize=50, lr=1e-2)
SMALL_NETWORKS = {"fc": "fc(width=9)", "linfc": "linfc(width=9)", "heads": "heads(conv, predict=parts)",
                  "mixer": "mixer(width=12, groups=3, blocks=2)",
                  "resnet-small": "resnet-small(width=8, blocks=2)",
                  "precision": "precision(fc(width=9), dtype=float32)"}  # fmt: skip
RUNS = [RUN, replace(RUN, seed=1), replace(RUN, lr=1e30, optimizer="sgd", rule="sgd", loss="linear-mse")]


class Told(Callback):
    def __init__(self, f):
        self.f = f

    def on_epoch(self, run, row, state):
        self.f(run, row)


def _without_time(result):
    return [{k: v for k, v in row.items() if k != "epoch_time"} for row in result.rows]


def same_rows(a, b):
    return str(_without_time(a)) == str(_without_time(b))  # of nan too


def distance(a, b):
    """Largest difference of parameters, of NaN to NaN none."""
    leaves = zip(*(jax.tree.leaves(r.params) for r in (a, b)), strict=True)
    return max(float(np.nanmax(np.abs(np.nan_to_num(x) - np.nan_to_num(y)))) for x, y in leaves)


@pytest.fixture
def own(monkeypatch):
    for kind in catalogue.CONTEXT:
        monkeypatch.setitem(OWN, kind, {})
        monkeypatch.setitem(GIVEN, kind, WeakValueDictionary())


def half(model, loss, *, factor: float = 0.5):
    """Backpropagation, scaled."""
    whole = npt.backprop(model, loss)

    def grads(key, state, params, batch):
        found, state, info = whole.grads(key, state, params, batch)
        return jax.tree.map(lambda g: factor * g, found), state, info

    return npt.Rule(whole.init, grads)
