"""Callbacks: who is told what, and when; what one raises ends the training and deceives nobody."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import RUN, RUNS, Told

import nodepert as npt
from nodepert.studies.callbacks import Callback
from nodepert.studies.stopping import Stopped


class Spy(Callback):
    def __init__(self):
        self.told, self.states = [], []

    def on_begin(self, run, folder):
        self.told.append((run, "begins", folder))

    def on_epoch(self, run, row, state):
        self.told.append((run, row["epoch"], dict(row)))
        self.states.append(state())
        row.clear()  # what it does with its row is its own affair

    def on_end(self, run, status):
        self.told.append((run, "ends", status))

    def of(self, run):
        return [(what, more) for own, what, more in self.told if own == run]


def test_it_is_told_of_every_run_from_beginning_to_end_with_its_rows_and_states():
    spy = Spy()
    results = npt.train(RUNS, callbacks=[spy])
    for result in results:
        (begins, folder), *rows, (ends, status) = spy.of(result.run)
        assert (begins, folder, ends, status) == ("begins", None, "ends", result.status)
        assert str([row for _, row in rows]) == str(result.rows)  # nan is not equal to itself
    assert results[2].status == "diverged at epoch 1" and len(spy.states) == 8
    final = [state for state in spy.states if int(state.step) == 8 and np.isfinite(state.params["out"]["w"]).all()]
    assert len(final) == 2  # copies of its own: they outlive the epochs after them
    same = jax.tree.map(jnp.array_equal, final[0].params, results[0].params)
    assert all(jax.tree.leaves(same))


def test_rows_that_were_read_back_come_first_and_have_no_state(tmp_path):
    whole = npt.train(RUN, name="n", out=tmp_path / "whole")
    spy = Spy()
    again = npt.train(RUN, name="n", out=tmp_path / "whole", callbacks=[spy])
    assert [what for what, _ in spy.of(RUN)] == ["begins", 0, 1, 2, "ends"] and spy.states == [None] * 3
    assert spy.told[0][2] == again.folder == whole.folder

    def stop(run, row):
        if row["epoch"] == 1:
            raise KeyboardInterrupt

    spy = Spy()
    with pytest.raises(KeyboardInterrupt):
        npt.train(RUN, name="n", out=tmp_path, callbacks=[spy, Told(stop)], checkpoint_every=0.0)
    assert spy.told[-1] == (RUN, "ends", "interrupted")
    spy = Spy()
    result = npt.train(RUN, name="n", out=tmp_path, callbacks=[spy])
    assert [what for what, _ in spy.of(RUN)] == ["begins", 0, 1, 2, "ends"]
    assert [state is None for state in spy.states] == [True, True, False]
    assert [row for _, row in spy.of(RUN)[1:-1]] == result.rows


@pytest.mark.parametrize("callbacks, got", [([Spy], "type"), (Spy(), "Spy"), (3, "int"), ([3], "int")])
def test_what_is_no_callback_is_an_error(callbacks, got):
    with pytest.raises(npt.UserError, match=rf"callbacks (is a list|are instances).*; got {got}$"):
        npt.train(RUN, callbacks=callbacks)


def test_callbacks_may_come_one_by_one():
    spy = Spy()
    npt.train(RUN, callbacks=(one for one in [spy]))
    assert [what for what, _ in spy.of(RUN)] == ["begins", 0, 1, 2, "ends"]


def test_a_state_that_is_asked_for_too_late_is_refused():
    kept = []

    class Keep(Callback):
        def on_epoch(self, run, row, state):
            kept.append(state)

    npt.train(RUN, callbacks=[Keep()])
    for state in kept:
        with pytest.raises(npt.UserError, match="can only be called inside on_epoch"):
            state()


class Raising(Callback):
    """At the beginning of the second run, in its last epoch, or at its end."""

    def __init__(self, at):
        self.at = at

    def on_begin(self, run, folder):
        self.at_last(run.seed == 1 and self.at == "begin")

    def on_epoch(self, run, row, state):
        self.at_last(run.seed == 1 and self.at == "last" and row["epoch"] == run.epochs)

    def on_end(self, run, status):
        self.at_last(run.seed == 1 and self.at in ("end", "last"))  # a second error does not replace the first

    def at_last(self, due):
        if due:
            raise LookupError(self.at) if self.at == "end" else OSError(self.at)


@pytest.mark.parametrize("at, error", [("begin", OSError), ("last", OSError), ("end", LookupError)])
@pytest.mark.parametrize("first", [True, False])
def test_each_is_told_of_the_end_of_what_began_as_the_record_has_it_where_one_raises(at, error, first, tmp_path):
    runs = [replace(RUN, seed=seed) for seed in range(3)]
    spy, raising = Spy(), Raising(at)
    with pytest.raises(error, match=at):
        npt.train(runs, name="n", out=tmp_path, callbacks=[raising, spy] if first else [spy, raising])
    records = {run: json.loads((tmp_path / "n" / run.id / "config.json").read_text()) for run in runs}
    begun = [run for run, what, _ in spy.told if what == "begins"]
    ends = {run: status for run, what, status in spy.told if what == "ends"}
    assert len(begun) == {"begin": 1 if first else 2}.get(at, 3)
    assert ends == {run: records[run]["status"] for run in begun}
    assert [what for _, what, _ in spy.told].count("ends") == len(begun)
    if at != "begin":
        assert ends[runs[1]] == "finished"


def test_of_runs_that_are_read_back_as_well(tmp_path):
    runs = [replace(RUN, seed=seed) for seed in range(2)]
    npt.train(runs, name="n", out=tmp_path)
    spy = Spy()
    with pytest.raises(OSError, match="last"):
        npt.train(runs, name="n", out=tmp_path, callbacks=[spy, Raising("last")])
    assert [status for _, what, status in spy.told if what == "ends"] == ["finished"] * 2


def test_a_stop_that_is_asked_for_in_the_last_epoch_of_a_group_lets_no_other_begin(tmp_path):
    runs = [replace(RUN, epochs=1), replace(RUN, rule="sgd", epochs=1)]
    asked, spy = [], Spy()
    last = Told(lambda run, row: asked.append(run) if row["epoch"] == 0 else None)  # heard after the next one
    with pytest.raises(Stopped, match="resumes"):
        npt.train(runs, name="n", out=tmp_path, callbacks=[last, spy], stop=lambda: bool(asked))
    assert {run for run, *_ in spy.told} == {runs[0]} and spy.told[-1][1:] == ("ends", "finished")
    with pytest.raises(Stopped, match="starts again"):
        npt.train(runs, stop=lambda: True)
