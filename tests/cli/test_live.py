"""What is drawn on a terminal while runs train."""

import io
import math
import re
from dataclasses import replace

from rich.console import Console

import nodepert as npt
from nodepert.cli import display, live
from nodepert.cli.live import Line, sparkline
from nodepert.studies.callbacks import StateOf

RUN = npt.Run(dataset="digits(train=200,test=50)", network="fc(width=8)", epochs=3, batchsize=50)


def test_a_curve_is_drawn_from_low_to_high_and_ends_with_the_last_value():
    assert sparkline([0, 50, 100], 0, 100) == "▁▅█"
    assert sparkline([], 0, 1) == "" and sparkline([3.0], 3, 3) == "▁"
    assert sparkline([1, math.nan], 0, 1) == "█?"
    long = sparkline(range(1000), 0, 999)
    assert len(long) == live.WIDTH and long[-1] == "█" and list(long) == sorted(long)
    assert sparkline([0, 1], 0, 1, bars=live.PLAIN) == "_@"


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
    counts, pace = board.footer(2.0)
    assert counts == "2/2 runs" and re.fullmatch(r"2 s, [\d.e+]+ epochs/s", pace)
    board.on_end(next(iter(runs)), "interrupted")
    assert board.footer(2.0)[0] == "1/2 runs"
    assert "\x1b" in terminal.file.getvalue()


def test_epochs_that_were_read_back_do_not_count_as_pace(tmp_path):
    npt.train(RUN, name="n", out=tmp_path)
    board = live.Board({RUN: "one"})
    npt.train(RUN, name="n", out=tmp_path, callbacks=[board])
    assert board.footer(5.0) == ["5 s"] and board.lines()[0].status == "finished"


def row(epoch, seconds):
    return {"epoch": epoch, "epoch_time": seconds, "test_acc": 9.0}


def test_a_second_program_is_shown_as_compiling_and_its_time_is_no_pace():
    now, other = [0.0], replace(RUN, rule="sgd")
    board = live.Board({RUN: "one", other: "other"}, clock=lambda: now[0])
    board.on_begin(RUN, None)
    now[0] = 50.0  # of compiling
    board.on_epoch(RUN, row(0, 0.0), StateOf(lambda: None, 0.5))
    assert board.footer(50.0) == ["0/2 runs", "50 s"]
    now[0] += 0.5
    board.on_batches(RUN, 2, 10, 0.5)  # an epoch: 2.5 s, and 0.5 s of evaluation
    assert board.footer(50.5) == ["0/2 runs", "50 s, roughly 18 s left"]  # of both runs
    now[0] += 0.5
    board.on_batches(RUN, 4, 10, 1.0)
    assert board.footer(51.0) == ["0/2 runs", "51 s, roughly 17 s left"]
    for epoch in (1, 2, 3):
        now[0] += 1
        board.on_epoch(RUN, row(epoch, 1.0), StateOf(lambda: None, 1.0))
    board.on_end(RUN, "finished")
    board.on_begin(other, None)
    now[0] = 80.0
    assert board.footer(80.0) == ["1/2 runs", "compiling", "80 s, 1 epochs/s, about 3 s left"]


def test_a_run_that_resumes_has_the_time_of_its_earlier_epochs_until_it_has_its_own():
    now = [0.0]
    board = live.Board({RUN: "one"}, clock=lambda: now[0])
    board.on_begin(RUN, None)
    for epoch in (0, 1):
        board.on_epoch(RUN, row(epoch, 4.0 * epoch), StateOf())
    now[0] = 30.0
    assert board.footer(30.0) == ["compiling", "30 s, roughly 8 s left"]
    board.on_epoch(RUN, row(2, 2.0), StateOf(lambda: None, 2.0))
    assert board.footer(30.0) == ["30 s, 2 s/epoch, about 2 s left"]
