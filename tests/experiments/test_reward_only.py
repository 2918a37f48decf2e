"""Reward only: every rule sees rewards, backpropagation their expectation; findings follow from the rows."""

from nodepert.experiments import build


def test_rows_are_the_correct_answers_of_each_task_and_rule(smoke):
    rows = smoke("reward-only").rows
    chances = {"images": 10, "trials": 50}
    assert {(r["task"], r["rule"]) for r in rows} == {(t, rule) for t in chances for rule in ("reinforce", "sgd")}
    assert all(r["chance"] == chances[r["task"]] for r in rows)
    assert {r["answers"] for r in rows if r["task"] == "images"} == {0, 200, 400}
    assert all(0 <= r["correct"] <= 100 for r in rows)


def test_a_rule_learns_if_it_covers_half_of_the_way_to_backpropagation(smoke):
    experiment, rows = build("reward-only", "smoke"), smoke("reward-only").rows

    def finding(correct):
        known = [{**r, "correct": 90.0 if r["rule"] == "sgd" else correct, "error": 1.0} for r in rows]
        return experiment.findings(known)[0]

    assert finding(60.0).holds and not finding(40.0).holds
    assert finding(60.0).says.startswith("images, reinforce: 60.0 ± 1.0 % correct after 400 answers")
