"""A run that is asked for more epochs resumes from the shorter one, where its updates do not depend on the epochs."""

from dataclasses import replace

import pytest
from small import RUN, Told, distance, same_rows

import nodepert as npt
from nodepert.studies import resume

pytestmark = pytest.mark.usefixtures("quickly_compiled")
SHORT = replace(RUN, optimizer="normalise(adam)", rule="np(baseline=running)")
LONG = replace(SHORT, epochs=4)
VALIDATION = {"validation": 0.25}


def files(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("more", [{}, VALIDATION], ids=str)
def test_the_bits_are_those_of_all_epochs_at_once_and_the_shorter_run_is_not_touched(more, tmp_path):
    short, long = replace(SHORT, **more), replace(LONG, **more)
    at_once = npt.train(long)
    before = npt.train(short, name="n", out=tmp_path)
    saved, rows = files(before.folder), []
    continued = npt.train(long, name="n", out=tmp_path, callbacks=[Told(lambda run, row: rows.append(row["epoch"]))])
    assert continued.folder != before.folder and rows == [0, 1, 2, 3, 4]
    assert same_rows(continued, at_once) and distance(continued, at_once) == 0
    assert continued.rows[:3] == before.rows  # their times as well: they were not trained again
    assert files(before.folder) == saved


def test_replicas_resume_where_each_can(tmp_path):
    other = replace(LONG, seed=5)
    npt.train(SHORT, name="n", out=tmp_path)
    for one, alone in zip(npt.train([LONG, other], name="n", out=tmp_path), [LONG, other], strict=True):
        assert same_rows(one, npt.train(alone))


def test_a_schedule_that_ends_with_the_run_starts_anew_and_says_so(tmp_path, caplog):
    short = npt.train(replace(SHORT, optimizer="clip(adam(schedule=cosine))"), name="n", out=tmp_path)
    long = npt.train(replace(short.run, epochs=3), name="n", out=tmp_path)
    assert f"{short.folder} has this run with fewer epochs, but its schedule ends with the last one" in caplog.text
    assert same_rows(long, npt.train(long.run))
    for path in (tmp_path / "n", str(tmp_path / "n")):
        caplog.clear()
        assert npt.load(path).folder == long.folder
        assert f"n has this run with 2 and 3 epochs; that with 3 is used, {long.folder}" in caplog.text
    with pytest.raises(BaseException, match="resumes"):
        npt.train(replace(long.run, epochs=4), name="n", out=tmp_path, stop=iter([False, True]).__next__)
    assert npt.load(tmp_path / "n").folder == long.folder  # that with 4 has no result yet


def test_a_shorter_run_is_not_looked_for_where_the_study_has_no_other_run(tmp_path, monkeypatch):
    monkeypatch.setattr(resume, "id_of", lambda config: pytest.fail("one hash for each epoch less"))
    assert npt.train(replace(SHORT, epochs=2), name="n", out=tmp_path).status == "finished"


@pytest.mark.parametrize("change", [{"seed": 1}, {"dataset": "digits(train=200,test=40)"}, {"lr": 0.1}], ids=str)
def test_other_runs_are_not_continued(change, tmp_path):
    before = npt.train(replace(SHORT, epochs=1), name="n", out=tmp_path)
    after = npt.train(replace(SHORT, **change), name="n", out=tmp_path)
    assert after.rows[1] != before.rows[1]
