"""What is drawn on a terminal while runs train."""

import io
import math
from dataclasses import replace

import pytest
from rich.console import Console

import nodepert as npt
from nodepert.cli import display, live
from nodepert.cli.live import Line, sparkline

RUN = npt.Run(dataset="digits(train=200,test=50)", network="fc(width=8)", epochs=3, batchsize=50)


def test_a_curve_is_drawn_from_low_to_high_and_ends_with_the_last_value():
    assert sparkline([0, 50, 100], 0, 100) == "▁▅█"
    assert sparkline([], 0, 1) == "" and sparkline([3.0], 3, 3) == "▁"
    assert sparkline([1, math.nan], 0, 1) == "█?"
    long = sparkline(range(1000), 0, 999)
    assert len(long) == live.WIDTH and long[-1] == "█" and list(long) == sorted(long)
    assert sparkline([0, 1], 0, 1, bars=live.PLAIN) == "_@"


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0 s"), (89, "89 s"), (100, "2 min"), (5399, "90 min"), (9000, "2.5 h")]
)
def test_a_duration_in_words(seconds, said):
    assert live.duration(seconds) == said


def test_the_pace_and_what_is_left():
    assert live.pace(20, 60, 10) == "10 s, 2 epochs/s, about 30 s left"
    assert live.pace(1, 1, 50) == "50 s, 50 s/epoch, about 50 s left"
    assert live.pace(5, 0, 10) == "10 s, 2 s/epoch" and live.pace(0, 5, 10) == "10 s"


def drawn(lines, width=90):
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(live.replicas(lines))
    return [line for line in console.file.getvalue().splitlines() if line.strip()]


def test_runs_that_train_stand_first_and_many_are_cut_short():
    lines = [Line("[a]", [10, 20], 1, 9, "finished"), Line("b", [], 0, 9, ""), Line("c", [40.04], 0, 9, "running")]
    head, first, second, third = drawn(lines)
    assert "10 to 40%" in head
    assert first.split()[0] == "c" and "40.0" in first and "running" in first
    assert second.split() == ["b", "waiting"]
    assert third.startswith("[a]") and "20.0" in third and "1/9" in third and "finished" in third
    shown = drawn([*lines, *[Line(f"r{i}", [], 0, 9, "") for i in range(40)]])
    assert len(shown) == 2 + live.LINES and "and 29 more" in shown[-1]
    assert all(len(line) < 150 for line in drawn([Line("long " * 99, [1.0], 0, 9, "")], width=40))


def test_the_board_says_what_came_of_each_run(monkeypatch):
    terminal = Console(file=io.StringIO(), width=100, force_terminal=True)
    for module in (display, live):
        monkeypatch.setattr(module, "console", terminal)
    runs = {RUN: "one", replace(RUN, seed=1): "other"}
    with live.progress(runs) as board:
        assert board.footer(1.0) == ["compiling"] and board.footer(9.0) == ["compiling", "9 s"]
        results = npt.train(list(runs), callbacks=[board])
    for line, result in zip(board.lines(), results, strict=True):
        assert line.curve == [row["test_acc"] for row in result.rows] and (line.epoch, line.status) == (3, "finished")
    assert board.footer(2.0) == ["2/2 runs", "2 s, 3 epochs/s"]
    board.on_end(next(iter(runs)), "interrupted")
    assert board.footer(2.0)[0] == "1/2 runs"
    assert "\x1b" in terminal.file.getvalue()


def test_epochs_that_were_read_back_do_not_count_as_pace(tmp_path):
    npt.train(RUN, name="n", out=tmp_path)
    board = live.Board({RUN: "one"})
    npt.train(RUN, name="n", out=tmp_path, callbacks=[board])
    assert board.footer(5.0) == ["5 s"] and board.lines()[0].status == "finished"
