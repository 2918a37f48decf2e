"""Delayed non-match to sample: quartiles over seeds, and findings that follow from the rows."""

from nodepert.experiments import build


def test_rows_are_quartiles_over_seeds(smoke):
    rows = smoke("dnms").rows
    assert {r["trials"] for r in rows} == {0, 80, 160, 240}
    assert all(0 <= r["lower"] <= r["median"] <= r["upper"] <= 100 and 0 <= r["share"] <= 100 for r in rows)


def test_the_finding_is_when_the_median_is_there(smoke):
    experiment, rows = build("dnms", "smoke"), smoke("dnms").rows
    known = [{**r, "median": 100.0 if r["trials"] >= 160 else 50.0} for r in rows]
    finding = experiment.findings(known)[0]
    assert finding.holds and "after 160 trials" in finding.says
    never = experiment.findings([{**r, "median": 75.0} for r in rows])[0]
    assert not never.holds and "not within 240 trials" in never.says
