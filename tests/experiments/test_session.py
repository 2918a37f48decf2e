"""Experiments that are stopped within a part: they resume there, and end with the bits of one that was not."""

import itertools
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy import Slow

import nodepert as npt
from nodepert.experiments import build, session, unfinished
from nodepert.experiments.execute import execute
from nodepert.experiments.experiment import of_part
from nodepert.experiments.record import read_record, read_rows
from nodepert.experiments.session import Session
from nodepert.experiments.shared.looping import followed, looped, simulated
from nodepert.studies.stopping import Stopped
from nodepert.training import parts

TESTS = Path(__file__).parents[1]
TINY = {"dataset": "digits(train=200, test=50)", "network": "fc(width=6)", "batchsize": 50}
CASES = {  # options, and after how many steps the stop comes
    "mismatch": ({"rules": ("np",), "noises": (0.3,), "steps": 40, "replicas": 2}, 3),
    "stabilise": ({"optimizers": ("adam",), "lrs": (1e-3,), "steps": 30, "seeds": 1}, 3),
    "linear-theory": ({"rules": ("np",), "steps": 20, "replicas": 3}, 6),
    "linesearch": ({"rules": ("np",), "widths": (6,), "count": 3, "draws": 4, "accuracy": 20.0}, 2),
    "width-scaling": ({"rules": ("np",), "widths": (4, 5), "lrs": 2, "steps": 20, "epochs": 3}, 2),
    "adam": ({**TINY, "rules": ("np",), "optimizers": ("adam",), "rates": 2, "epochs": 5, "seeds": 1}, 3),
    "crash-timing": ({**TINY, "rules": ("sgd",), "loss": "linear-mse", "lrs": (0.01, 1e30), "epochs": 3, "seeds": 1},
                     2),
    "delta-loss": ({"dataset": TINY["dataset"], "rules": ("np",), "depths": (1,), "width": 6, "epochs": 2, "draws": 2,
                    "seeds": 1}, 2),
    "loss-landscape": ({**TINY, "rules": ("np", "sgd"), "epochs": 2, "points": 3}, 5),
    "grad-dynamics": ({**TINY, "rule": "kp", "epochs": 2, "large": 50, "seeds": 1}, 2),
    "crash-dynamics": ({**TINY, "rule": "np", "epochs": 3, "every": 2, "large": 50, "seeds": 1}, 5),
    "alignment": ({"rules": ("np",), "width": 4, "depths": (1,), "draws": 2, "axis_draws": 2, "estimates": 16,
                   "batchsize": 5}, 2),
    "credit-in-time": ({"draws": 1024}, 2),
}  # fmt: skip


@pytest.fixture
def one_by_one(monkeypatch):
    """Compiled loops in parts of one step."""
    monkeypatch.setattr(parts, "PART", 0.0)


def stopped(path, compute, after):
    """The loops that are saved when `compute` is stopped after so many steps, read back."""
    calls = itertools.count(1)
    first = Session(save=lambda loops: unfinished.write(path, {}, 0.0, loops), stop=lambda: next(calls) >= after)
    with pytest.raises(Stopped, match="the same command resumes"), first.opened():
        compute()
    return unfinished.read(path, {})[1]


ALIKE = {"stabilise", "linear-theory", "width-scaling", "delta-loss", "alignment", "credit-in-time"}  # in their loops


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in ALIKE)) for n in CASES])
def test_what_is_stopped_within_a_part_ends_with_the_bits_of_what_was_not(name, tmp_path, one_by_one):
    options, after = CASES[name]

    def rows():
        experiment = build(name, "smoke", **options)  # anew, as in another process
        return list(of_part(experiment, experiment.parts[-1]))

    whole, loops, seen = rows(), stopped(tmp_path / "part.npz", rows, after), []
    with Session(loops, report=lambda steps: seen.append(steps)).opened():
        resumed = rows()
    assert without_time(resumed) == without_time(whole)
    assert any(steps.done for steps in seen if steps.seconds is None)  # not from the start


TRAINING = {"rules", "published", "dnms", "np-in-rnn", "char-lm", "reward-only"}  # which train as adam does


def without_time(rows):
    return str([{key: value for key, value in row.items() if key != "seconds"} for row in rows])


def test_experiments_that_compute_for_long_are_stopped_and_resumed():
    assert {*CASES} == {*npt.registry.names("experiment")} - TRAINING


def counting(found=()):
    """A compiled loop of 100 steps, and one on the host of 5."""

    @jax.jit
    def advance(carry, first, last):
        return jax.lax.fori_loop(first, last, lambda i, c: 1.01 * c + i, carry)

    total = looped(advance, jnp.float32(0), 100)
    return float(total), [
        found for _, found in followed(lambda s, i: (s + i, [i, s]), np.int32(0), range(1, 6), "look")
    ]


def test_bits_do_not_depend_on_how_a_loop_is_divided_or_where_it_is_stopped(tmp_path, monkeypatch):
    expected = counting()
    for part in (0.0, 1.0):
        monkeypatch.setattr(parts, "PART", part)
        for after in (1, 3):
            loops = stopped(tmp_path / "part.npz", counting, after)
            with Session(loops).opened():
                assert str(counting()) == str(expected)


def test_steps_are_reported_and_the_time_of_compiling_is_no_time_of_steps(one_by_one):
    seen = []
    with Session(report=lambda steps: seen.append(steps)).opened():
        counting()
    of_updates = [steps for steps in seen if steps.unit == "update"]
    assert [steps.done for steps in of_updates] == [0, 0, *range(1, 101)] and {s.of for s in of_updates} == {100}
    assert [steps.seconds for steps in of_updates[:2]] == [None, 0.0]
    times = [steps.seconds for steps in of_updates[1:]]
    assert times == sorted(times)


def test_a_loop_that_another_process_had_already_done_is_no_hindrance(tmp_path):
    """As the training of a network, for all parts, of linesearch."""
    loops = stopped(tmp_path / "part.npz", lambda: list(followed(lambda s, i: (s, i), (), range(9), "draw")), 3)
    with Session(loops).opened():
        before = list(followed(lambda s, i: (s, -i), (), range(4), "update"))
        draws = [found for _, found in followed(lambda s, i: (s, 10 * i), (), range(9), "draw")]
    assert len(before) == 4 and draws == [0, 1, 2, *range(30, 90, 10)]


def test_a_state_of_other_shapes_is_not_used(tmp_path, caplog):
    def loop(state):
        return list(followed(lambda s, i: (s, i), state, range(5), "look"))

    loops = stopped(tmp_path / "part.npz", lambda: loop(np.zeros(3)), 2)
    with Session(loops).opened():
        assert len(loop(np.zeros(4))) == 5
    assert "does not fit" in caplog.text


def test_measurements_are_those_of_the_updates_before_them():
    run = simulated(lambda shared, own: (own, lambda t, w: w + shared * t, lambda w: (w, 2 * w)))
    once, twice = run([0, 1, 4], 1.0, jnp.array([0.0, 10.0]))
    assert once.tolist() == [[0, 0, 6], [10, 10, 16]] and twice.tolist() == (2 * once).tolist()


# ----------------------------------------------------------------------------------------- files


@pytest.fixture
def slow(own, monkeypatch):
    npt.register("experiment", "slow", Slow)
    return "slow"


def at_step(number):
    """Asks to stop after so many steps."""
    calls = itertools.count(1)
    return lambda: next(calls) >= number


def interrupted(out, steps=15, **options):
    """The file of the part that was stopped: of two with ten steps each, the second, by default."""
    with pytest.raises(Stopped):
        execute("slow", "smoke", out=out, stop=at_step(steps), count=10, **options)
    return out / ".slow.part.npz"


def resumed(out, **options):
    """(outcome, {part: the steps that it started with})."""
    starts = {}
    found = execute("slow", "smoke", out=out, count=10, **options,
                    on_steps=lambda i, of, part, steps: starts.setdefault((i, of), steps.done))  # fmt: skip
    return found, starts


def test_an_experiment_is_stopped_within_a_part_and_resumed(slow, tmp_path):
    whole, _ = resumed(tmp_path / "whole")
    part = interrupted(tmp_path)
    assert part.exists() and len(read_rows(tmp_path / "slow.csv")) == 10
    found, starts = resumed(tmp_path)
    assert list(starts) == [(2, 2)] and 0 < starts[2, 2] < 9
    assert found.table.read_bytes() == whole.table.read_bytes() and str(found.findings) == str(whole.findings)
    assert {path.name for path in tmp_path.iterdir()} == {
        "whole",
        *(f"slow.{k}" for k in ("csv", "json", "png", "svg")),
    }


def test_a_stop_in_the_first_part_holds_its_options(slow, tmp_path):
    interrupted(tmp_path, 5, factor=2.0)
    with pytest.raises(npt.UserError, match=r"with other options \(factor: 2.0, not 0.1\)"):
        resumed(tmp_path)
    assert resumed(tmp_path, factor=2.0)[1][1, 2] > 0


def test_a_stop_comes_between_parts_where_a_part_has_no_steps(toy, tmp_path):
    with pytest.raises(Stopped):
        execute(toy, "smoke", out=tmp_path, stop=lambda: True)
    assert read_record(tmp_path / "toy.json")["done"] == [{"size": 1}]


@pytest.mark.parametrize("how", ["truncated", "edited", "empty", "foreign", "of another part"])
def test_a_file_of_a_part_that_cannot_be_used_is_passed_over_with_a_warning(how, slow, tmp_path, caplog):
    part = interrupted(tmp_path)
    text = part.read_bytes()
    at = text.index(b'"found"') + 40
    match how:
        case "truncated":
            part.write_bytes(text[: len(text) // 2])
        case "edited":
            part.write_bytes(text[:at] + b"7" + text[at + 1 :])
        case "empty":
            part.write_bytes(b"")
        case "foreign":
            np.savez(tmp_path / "foreign.npz", record=np.zeros(3))
            (tmp_path / "foreign.npz").rename(part)
        case "of another part":
            interrupted(tmp_path / "other", 5).rename(part)
    found, starts = resumed(tmp_path)
    assert "it is not used, and this part starts again" in caplog.text and starts == {(2, 2): 0}
    assert found.table.read_bytes() == resumed(tmp_path / "whole")[0].table.read_bytes() and not part.exists()


def test_a_part_is_saved_once_a_while_and_a_process_that_lost_its_lock_saves_nothing(slow, tmp_path, monkeypatch):
    monkeypatch.setattr(session, "SAVE", -1.0)
    written = []
    monkeypatch.setattr(unfinished.archive, "write", lambda *given: written.append(len(given[3]["loops"][0]["found"])))
    resumed(tmp_path)
    assert written == [*range(1, 11)] * 2

    def taken(*_):
        (tmp_path / "lost" / ".slow.owner").write_text("another process's")

    with pytest.raises(npt.UserError, match="locked by another process"):
        execute("slow", "smoke", out=tmp_path / "lost", on_steps=taken)
    assert not list((tmp_path / "lost").glob("*.json"))


def test_a_full_disk_ends_no_part_unless_it_is_stopped(slow, tmp_path, monkeypatch, caplog):
    def full(*_):
        raise npt.UserError("cannot write it: No space left on device")

    monkeypatch.setattr(session, "SAVE", -1.0)
    monkeypatch.setattr(unfinished.archive, "write", full)
    found, _ = resumed(tmp_path)
    assert len(found.rows) == 20 and "is not saved: cannot write it" in caplog.text
    with pytest.raises(npt.UserError, match="cannot write it"):
        execute("slow", "smoke", out=tmp_path / "stopped", stop=lambda: True)


ENDLESS = """if True:
    import sys, time
    import nodepert as npt
    from nodepert.cli import app
    from nodepert.experiments import session
    from toy import Slow

    session.SAVE = 0.0
    npt.register("experiment", "slow", Slow)
    app.main(["experiment", "slow", "--scale", "smoke", "--count", "1000000", "--out", "."])
"""


def test_ctrl_c_ends_the_command_with_status_130_and_the_part_saved(work):
    code = f"import sys; sys.path[:0] = [{str(TESTS)!r}]\n{ENDLESS}"
    with subprocess.Popen([sys.executable, "-c", code], stdout=-1, stderr=-1, text=True) as started:
        while not (work / ".slow.part.npz").exists():
            assert started.poll() is None
            time.sleep(0.02)
        started.send_signal(signal.SIGINT)
        out, err = started.communicate(timeout=60)
    assert started.returncode == 130 and err == "nodepert: interrupted; the same command resumes\n"
    assert out == "stopping after this step (Ctrl-C again: at once)\n" and not (work / ".slow.owner").exists()
    assert read_record(work / "slow.json")["done"] == []
