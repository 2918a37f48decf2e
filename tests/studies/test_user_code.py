"""What a run's record keeps of code of the user's own: where it has changed since, a saved run comes with a warning."""

import functools
import json
from dataclasses import replace

import jax
from small import RUN, half

import nodepert as npt
from nodepert.studies import train as training
from nodepert.studies.user_code import code_of, source_of


def other(model, loss, *, factor: float = 0.5):
    return half(model, loss, factor=-factor)


def test_the_source_of_a_factory_is_found_also_where_it_is_wrapped_or_bound():
    assert source_of(half) == source_of(jax.jit(half)) != source_of(other)
    of = functools.partial
    assert source_of(of(half, factor=1.0)) == source_of(of(half, factor=1.0)) != source_of(of(half, factor=2.0))
    assert source_of(len) == ""  # there is none to read


def test_only_what_is_not_nodeperts_is_saved_of_a_run_also_within_others(own):
    assert code_of([RUN]) == [{}]
    npt.register("rule", "half", half)
    npt.register("loss", "error", lambda outputs, targets: 0)
    (first,) = {json.dumps(code_of([replace(RUN, rule=rule)])) for rule in ("half(factor=1)", "np; out=half")}
    assert list(json.loads(first)[0]) == ["rule half"]
    assert code_of([replace(RUN, loss="error")])[0].keys() == {"loss error"}


def test_a_run_of_a_rule_that_has_changed_is_read_back_with_a_warning(own, tmp_path, monkeypatch, caplog):
    npt.register("rule", "half", half)
    run = replace(RUN, rule="half", optimizer="sgd", lr=0.1)
    first = npt.train(run, name="n", out=tmp_path)
    record = json.loads((first.folder / "config.json").read_text())
    assert record["code"] == code_of([run])[0]
    monkeypatch.setattr(training, "fit_all", lambda *given, **how: None)  # nothing is trained
    assert npt.train(run, name="n", out=tmp_path).rows == first.rows and not caplog.records
    npt.register("rule", "half", other)
    assert npt.train(run, name="n", out=tmp_path).rows == first.rows
    assert "the source of the rule half has changed since" in caplog.text
    assert json.loads((first.folder / "config.json").read_text()) == record
