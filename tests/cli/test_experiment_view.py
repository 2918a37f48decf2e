"""The line of an experiment on a terminal: part, loop, pace, time left."""

import io

import pytest
from rich.console import Console

from nodepert.cli import display, experiment_view, live
from nodepert.cli.experiment_view import View
from nodepert.experiments.session import Steps

PART, NEXT = {"rule": "np", "noise": 0.32}, {"rule": "sgd", "noise": 0.32}


@pytest.fixture
def view():
    now = [0.0]
    found = View("mismatch", clock=lambda: now[0])

    def at(seconds, *steps, part=1):
        now[0] = seconds
        if steps:
            found.on_steps(part, 3, PART if part == 1 else NEXT, Steps(*steps))
        return ", ".join(found.footer(seconds))

    found.at = at
    return found


def test_compiling_is_no_pace_and_the_time_left_counts_down(view, capsys):
    assert view.at(0) == "starting"
    assert view.at(2, "update", 0, 1000) == "[1/3] rule np, noise 0.32: compiling, 2 s"
    assert view.at(30, "update", 0, 1000, 0.0) == "[1/3] rule np, noise 0.32: update 0 of 1,000, 30 s"
    assert view.at(30.1, "update", 1, 1000, 0.1) == "[1/3] rule np, noise 0.32: update 1 of 1,000, 30 s"  # too short
    line = "[1/3] rule np, noise 0.32: update {} of 1,000, {} s, 10 updates/s, about {} left"
    assert view.at(40, "update", 100, 1000, 10.0) == line.format(100, 40, "2 min")
    assert view.at(50, "update", 200, 1000, 20.0) == line.format(200, 50, "80 s")
    assert view.at(130, "update", 1000, 1000, 100.0).endswith("update 1,000 of 1,000, 2 min, 10 updates/s")
    view.on_part(1, 3, PART, 130.0)
    assert capsys.readouterr().out == "[1/3] rule np, noise 0.32: 130.0 s\n"
    assert view.at(131) == "starting"
    view.at(132, "update", 0, 1000, part=2)
    view.at(140, "update", 0, 1000, 0.0, part=2)
    assert view.at(150, "update", 100, 1000, 10.0, part=2) == (
        "[2/3] rule sgd, noise 0.32: update 100 of 1,000, 20 s, 10 updates/s, about 2 min left, all parts about 4 min"
    )


def test_at_the_end_the_figure_is_drawn(view):
    view.on_part(3, 3, PART, 1.0)
    assert view.at(1) == "drawing"


def test_a_loop_without_a_known_end_has_no_time_left(view):
    view.at(1, "update", 0, 0)
    view.at(2, "update", 2, 0, 0.0)
    assert view.at(4, "update", 22, 0, 2.0) == "[1/3] rule np, noise 0.32: update 22, 4 s, 10 updates/s"


def test_resumed_steps_and_parts_are_no_pace(view):
    view.on_part(1, 3, PART, None)
    view.at(1, "epoch", 3, 50, part=2)
    view.at(2, "epoch", 3.5, 50, 0.5, part=2)
    assert view.at(4, "epoch", 4.5, 50, 2.5, part=2) == (
        "[2/3] rule sgd, noise 0.32: epoch 4 of 50, 4 s, 2 s/epoch, about 2 min left"
    )


def test_on_a_terminal_a_line_is_drawn_elsewhere_none(monkeypatch, capsys, view):
    with experiment_view.shown(view):
        pass
    assert capsys.readouterr().out == ""
    terminal = Console(file=io.StringIO(), width=120, force_terminal=True)
    for module in (display, live):
        monkeypatch.setattr(module, "console", terminal)
    with experiment_view.shown(view):
        view.at(2, "update", 0, 1000)
    assert "[1/3] rule np, noise 0.32: compiling" in terminal.file.getvalue()
