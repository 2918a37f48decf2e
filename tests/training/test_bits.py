"""Compiled as users compile: a replica has the bits of the run alone."""

from dataclasses import replace

from small import distance, same_rows

import nodepert as npt

BASE = npt.Run(dataset="digits(train=200, test=50)", network="fc(width=12)", batchsize=40, epochs=3, rule="np")
RUNS = [
    replace(BASE, lr=1e-2, rule="np(sigma=1e-2)", wd=0.01, seed=3),
    replace(BASE, lr=1e12),  # diverges
    replace(BASE, lr=3e-3),
]


def test_a_replica_in_a_loop_has_the_bits_of_the_run_alone_and_a_diverging_one_harms_nobody():
    alone, together = [npt.train(run) for run in RUNS], npt.train(RUNS)
    for one, other in zip(alone, together, strict=True):
        assert same_rows(one, other) and one.status == other.status
        assert distance(one, other) == 0
    assert [result.status for result in together] == ["finished", "diverged at epoch 1", "finished"]
    assert [len(result.rows) for result in together] == [4, 2, 4]
