"""Every network learns on every real data set, under both rules (all but four of them: slow)."""

import itertools
import math
import os

import pytest

import nodepert as npt
from nodepert.data import status

WHERE = os.environ.get("NODEPERT_DATA_DIR")
HERE = {name for name, found, _ in status(WHERE) if found} if WHERE else set()


AT_ONCE = [("fc", "mnist", "np"), ("fc", "fmnist", "sgd"), ("linfc", "cifar10", "np"), ("conv", "cifar10", "np")]
COMBINATIONS = [
    pytest.param(*case, marks=() if case in AT_ONCE else pytest.mark.slow)
    for case in itertools.product(
        ("fc", "linfc", "conv", "conv-large"), ("mnist", "fmnist", "cifar10"), ("np", "sgd"))
]  # fmt: skip


@pytest.mark.parametrize("network, dataset, rule", COMBINATIONS)
def test_every_network_trains_on_every_set_with_every_rule(network, dataset, rule):
    if dataset not in HERE:
        pytest.skip(f"NODEPERT_DATA_DIR does not hold {dataset}")
    examples, batchsize, epochs = {"conv": (200, 20, 1), "conv-large": (200, 10, 2)}.get(network, (1500, 20, 1))
    subset = f"{dataset}(train={examples}, test={examples // 4})"
    run = npt.Run(
        dataset=subset,
        network=network,
        rule=rule,
        lr=1e-3 if rule == "sgd" else 3e-4,
        epochs=epochs,
        batchsize=batchsize,
    )
    result = npt.train(run, data_dir=WHERE)
    assert result.status == "finished"
    assert all(math.isfinite(v) for row in result.rows for v in row.values())
    assert result.rows[-1]["train_loss"] < result.rows[0]["train_loss"]
