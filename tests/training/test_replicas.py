"""Replicas: each has what it would have alone, whatever its neighbours do; nothing compiles twice; devices agree."""

import json
import os
import socket
import subprocess
import sys
import textwrap
from dataclasses import replace

import jax
import numpy as np
import pytest
import spread
from small import COLUMNS, Told, distance, same_rows
from spread import CONV, REPLICAS

import nodepert as npt
from nodepert.cli import app as cli
from nodepert.cli import display
from nodepert.cli.options import combinations, grid_of
from nodepert.errors import UserError
from nodepert.studies.grid import parsed_seeds
from nodepert.studies.labels import labels
from nodepert.studies.setup import groups, prepare
from nodepert.studies.store.run_folder import open_run
from nodepert.training import devices, group, replicas
from nodepert.training.hyper import stacked

pytestmark = pytest.mark.usefixtures("quickly_compiled")
BASE = npt.Run(dataset="digits(train=200, test=50)", network="fc(width=12)", batchsize=40, epochs=3, rule="np")
RUNS = [
    replace(BASE, seed=3),
    replace(BASE, lr=1e-2, rule="np(sigma=1e-2)", wd=0.01),
    replace(BASE, lr=1e12, optimizer="adam(b1=0.5, schedule=cosine)"),  # diverges
    replace(BASE, lr=3e-3, seed=3),
]


@pytest.fixture(scope="module")
def alone():
    return [npt.train(run) for run in RUNS]


@pytest.fixture(scope="module")
def alone_exactly():
    """The same without finite differences, which multiply rounding by 1/sigma."""
    return [npt.train(replace(run, rule="np(difference=jvp)")) for run in RUNS]


@pytest.mark.parametrize("lanes", [pytest.param(2, marks=pytest.mark.slow), 4, pytest.param(9, marks=pytest.mark.slow)])
def test_vectorised_replicas_are_the_runs_alone_to_rounding(alone_exactly, lanes):
    together = npt.train([r.run for r in alone_exactly], lanes=lanes)  # 2: two at a time; the frozen one among them
    for one, other in zip(alone_exactly, together, strict=True):
        assert one.status == other.status
        if one.status == "finished":
            assert distance(one, other) < 1e-5
            for a, b in zip(one.rows, other.rows, strict=True):
                assert a["test_loss"] == pytest.approx(b["test_loss"], rel=1e-5)


def test_a_frozen_replica_stays_as_it_is(alone):
    seen = []
    _, _, model, loss, data, hypers = prepare(RUNS, npt.load_dataset(BASE.dataset))[0]
    for epoch in replicas.fit_all(model, loss, data, hypers, batchsize=40, epochs=3):
        seen.append((sorted(epoch.rows), jax.tree.map(np.array, epoch.state(2).params)))
    assert [numbers for numbers, _ in seen] == [[0, 1, 2, 3], [0, 1, 2, 3], [0, 1, 3], [0, 1, 3]]
    bits = [[leaf.tobytes() for leaf in jax.tree.leaves(params)] for _, params in seen]
    assert bits[1] == bits[2] == bits[3] != bits[0]


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["np(replay=True)", "np(baseline=running)", "decorrelate(kp)"])
def test_every_kind_of_state_and_parameters_can_be_replicated(rule):
    runs = [replace(BASE, rule=rule, seed=seed, epochs=1) for seed in (0, 1)]
    one, (_, other) = npt.train(runs[1]), npt.train(runs)
    assert same_rows(one, other) and distance(one, other) == 0


def test_runs_fall_into_groups_by_what_is_not_a_number():
    runs = [
        BASE,
        replace(BASE, network="fc(width=13)"),
        replace(BASE, rule="np(sigma=0.5)"),
        replace(BASE, rule="np(samples=2)"),
        replace(BASE, network="fc(depth=2, width=12)", optimizer="adam(b2=0.9, schedule=cosine)", seed=8),
        replace(BASE, batchsize=50),
        replace(BASE, epochs=4),
        replace(BASE, optimizer="sgd"),
    ]
    assert groups(runs) == [[0, 2, 4], [1], [3], [5], [6], [7]]


def test_runs_of_several_groups_come_back_in_their_order():
    runs = [BASE, replace(BASE, network="fc(width=5)"), replace(BASE, seed=1), replace(BASE, epochs=1)]
    rows = []
    results = npt.train(runs, callbacks=[Told(lambda run, row: rows.append((runs.index(run), row["epoch"])))])
    assert [r.run for r in results] == runs
    assert [len(r.rows) for r in results] == [4, 4, 4, 2]
    assert sorted(rows) == [(i, e) for i, n in enumerate([4, 4, 4, 2]) for e in range(n)]


def test_a_group_larger_than_the_memory_is_trained_in_parts_and_says_so(alone, caplog):
    compiled = []
    _, _, model, loss, data, hypers = prepare(RUNS, npt.load_dataset(BASE.dataset))[0]
    inner = replicas.Group.__init__

    def noted(self, *arguments):
        inner(self, *arguments)
        compiled.append((self.count, self.bytes))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replicas.Group, "__init__", noted)
        for first in (hypers, hypers[:2]):
            list(replicas.fit_all(model, loss, data, first, batchsize=40, epochs=0))
        (_, whole), (_, half) = compiled
        assert half < whole
        split = npt.train(RUNS, memory=half + 1000)
    assert [count for count, _ in compiled[2:]] == [4, 2, 2]
    assert "training 2 at a time" in caplog.text
    assert all(same_rows(a, b) for a, b in zip(alone, split, strict=True))


def test_nothing_compiles_after_the_first_epoch_and_each_epoch_brings_results_to_the_host_once(monkeypatch):
    _, _, model, loss, data, hypers = prepare(RUNS[:2], npt.load_dataset(BASE.dataset))[0]
    compilations, transfers, inner = [], [], group.fetched

    def fetched(tree):
        transfers.append(len(jax.tree.leaves(tree)))
        with jax.transfer_guard("allow"):
            return inner(tree)

    monkeypatch.setattr(group, "fetched", fetched)
    jax.monitoring.register_event_duration_secs_listener(lambda event, *_, **__: compilations.append(event))
    epochs = replicas.fit_all(model, loss, data, hypers, batchsize=40, epochs=4)
    next(epochs).state(0)
    assert any("backend_compile" in event for event in compilations)
    compilations.clear()
    with jax.transfer_guard("disallow"):
        for _ in epochs:
            pass
    assert not [event for event in compilations if "compile" in event]
    assert transfers == [4] * 5
    with pytest.raises(Exception, match="Disallowed host-to-device"), jax.transfer_guard("disallow"):
        jax.jit(lambda x: x + 1)(np.ones(3))  # the guard does guard


def test_what_was_finished_is_read_back_and_the_others_are_trained(tmp_path):
    first = npt.train(RUNS[0], name="study", out=tmp_path)
    again = npt.train(RUNS, name="study", out=tmp_path)
    assert [r.read_back for r in again] == [True, False, False, False] and again[0].rows == first.rows
    assert jax.tree.all(jax.tree.map(np.array_equal, again[0].params, first.params))
    assert [r.status for r in again] == ["finished", "finished", "diverged at epoch 1", "finished"]
    assert len({r.folder for r in again}) == 4
    assert all(r.read_back for r in npt.train(RUNS, name="study", out=tmp_path))


def test_an_interruption_keeps_the_rows_of_every_replica(tmp_path):
    def stop(run, row):
        if (row["epoch"], run) == (2, RUNS[1]):
            raise KeyboardInterrupt

    later = replace(BASE, network="fc(width=3)")  # another group, which is not reached
    with pytest.raises(KeyboardInterrupt):
        npt.train([*RUNS, later], name="study", out=tmp_path, callbacks=[Told(stop)])
    records = [json.loads(path.read_text()) for path in sorted(tmp_path.glob("study/*/config.json"))]
    assert sorted(r["status"] for r in records) == ["diverged at epoch 1", *["interrupted"] * 3]
    assert len(list(tmp_path.glob("study/*"))) == 4  # nothing is left of the group that was not reached
    lengths = sorted(len(p.read_text().splitlines()) - 1 for p in tmp_path.glob("study/*/metrics.csv"))
    assert lengths == [2, 2, 3, 3]  # the last one was not yet told of its row of epoch 2
    assert [len(r.rows) for r in npt.train(RUNS, name="study", out=tmp_path)] == [4, 4, 2, 4]


def test_a_list_is_refused_as_a_whole(tmp_path):
    for second, message in (
        (lambda: replace(BASE, rule="np(sigma=0)"), "sigma must be positive"),
        (lambda: replace(BASE, lr=-1.0), "lr .* must be"),
        (lambda: replace(BASE, rule="np(sigma=1e-3)"), "two of these runs are the same"),
        (lambda: "np", "train takes a run"),
        (lambda: replace(BASE, network="nosuch"), "unknown network"),
    ):
        with pytest.raises(UserError, match=message):
            npt.train([BASE, second()], name="study", out=tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert npt.train([]) == []


@pytest.mark.parametrize("command", [["train", "--rule", "sgd"], ["compare", "--rules", "np", "sgd"]])
def test_seeds_that_diverge_are_told_in_the_table_and_drawn(command, capsys):
    small = ["--dataset", "digits(train=200, test=50)", "--network", "linfc(width=8)", "--epochs", "2"]
    cli.main([*command, *small, "--lr", "1e30", "--seeds", "0..1", "--optimizer", "sgd"])
    said = " ".join(capsys.readouterr().out.split())
    assert "2 diverged at epoch 1" in said and "nan ± nan" not in said


def test_options_of_several_values_are_all_combinations():
    grid = grid_of(vars(BASE))(seed=("0..2", "7"), lr=(0.1, 0.2), rule=("np", "sgd"))
    runs = combinations(grid)
    assert len(runs) == len(set(runs)) == 16
    assert [run.seed for run in runs[:5]] == [0, 1, 2, 7, 0]
    assert {(run.lr, run.rule) for run in runs} == {(lr, rule) for lr in (0.1, 0.2) for rule in ("np", "sgd")}


@pytest.mark.parametrize("text", ["a", "1.5", "3..1", "0..99999", "..", "1..", "0...4", ""])
def test_seeds_that_cannot_be_are_refused(text):
    with pytest.raises(UserError, match="seeds"):
        parsed_seeds([text])


def test_a_group_of_which_nothing_seems_to_fit_is_trained_one_by_one(caplog):
    runs = [replace(BASE, epochs=1, seed=seed) for seed in range(3)]
    assert [result.status for result in npt.train(runs, memory=20_000)] == ["finished"] * 3
    assert len(caplog.records) <= 3


def test_whole_numbers_as_rates_are_the_rates_of_all_replicas():
    *_, hypers = prepare([BASE, replace(BASE, lr=0.5)], npt.load_dataset(BASE.dataset))[0]
    found = stacked([hypers[0]._replace(lr=1, wd=0), hypers[1]._replace(wd=0.25)])
    assert found.lr.tolist() == [1, 0.5] and found.wd.tolist() == [0, 0.25]
    assert found.seed.dtype == np.int32


@pytest.mark.parametrize("rule", ["np", "np(replay=True)", "decorrelate(np(replay=True))"])
def test_rules_that_replay_their_noise_are_never_vectorised(monkeypatch, rule):
    monkeypatch.setattr(replicas, "side_by_side", lambda replicas: replicas)  # as on a GPU
    seen, inner = [], replicas.Group
    monkeypatch.setattr(replicas, "Group", lambda *a: seen.append(a[-1]) or inner(*a))
    npt.train([replace(BASE, rule=rule, seed=seed, epochs=0) for seed in range(3)])
    assert seen == [3 if rule == "np" else 1]


def test_parameters_of_groups_of_any_size_can_be_compared():
    results = npt.train([BASE, replace(BASE, seed=1), replace(BASE, rule="sgd")])
    difference = jax.tree.map(lambda a, b: a - b, results[0].params, results[2].params)
    assert any(float(abs(leaf).max()) > 0 for leaf in jax.tree.leaves(difference))


@pytest.mark.slow
def test_many_runs_need_no_more_files_than_the_system_allows(tmp_path):
    code = """
        import resource, sys
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, int(sys.argv[1])))
        import nodepert as npt
        base = dict(dataset="digits(train=50, test=20)", network="fc(width=3, depth=1)", epochs=0, batchsize=50)
        print(len(npt.train([npt.Run(seed=s, **base) for s in range(150)], name="a", out=sys.argv[2])))"""

    def trained(hard):
        command = [sys.executable, "-c", textwrap.dedent(code), str(hard), tmp_path / str(hard)]
        return subprocess.run(command, capture_output=True, text=True)

    assert trained(4096).stdout.split() == ["150"]
    assert "150 runs at once need 406 open files" in trained(300).stderr
    assert not list((tmp_path / "300").glob("*/*/config.json"))


def test_a_folder_that_is_in_the_way_leaves_no_run_that_seems_to_run(tmp_path):
    runs = [replace(BASE, seed=seed, epochs=1) for seed in range(3)]
    bad = tmp_path / "a" / runs[2].id
    bad.mkdir(parents=True)
    (bad / "config.json").write_text("{}")
    with pytest.raises(UserError, match="move it away: this run needs"):
        npt.train(runs, name="a", out=tmp_path)
    statuses = [json.loads(path.read_text()).get("status") for path in (tmp_path / "a").glob("*/config.json")]
    assert sorted(map(str, statuses)) == ["None"] and len(list((tmp_path / "a").iterdir())) == 1


def test_labels_tell_apart_what_differs_in_the_seventh_digit():
    runs = [replace(BASE, seed=1234567), replace(BASE, seed=1234568, lr=0.1234567), replace(BASE, lr=0.1234569)]
    assert labels(runs) == ["np, seed 1234567, lr 0.0003", "np, seed 1234568, lr 0.1234567", "np, seed 0, lr 0.1234569"]


def test_seeds_that_diverged_are_no_part_of_a_mean(monkeypatch):
    good = {"epoch": 1, "epoch_time": 0.1, "train_acc": 90.0, "test_acc": 90.0, "train_loss": 0.1, "test_loss": 0.1}
    bad = good | {"train_acc": 10.0, "test_acc": 10.0, "train_loss": float("nan")}
    results = [npt.Result(BASE, [row], status) for row, status in (
        (good, "finished"), (good | {"test_acc": 92.0}, "finished"), (bad, "diverged at epoch 1"))]  # fmt: skip
    cells = [next(iter(column.cells)) for column in display.results(["np"] * 3, results).columns]
    assert "91.0 ± 1.0" in cells and "nan" not in " ".join(cells)
    assert "-" in [next(iter(column.cells)) for column in display.results(["np"], results[2:]).columns]


def test_a_run_that_ends_earlier_than_before_has_the_rows_of_its_end(tmp_path):
    run = replace(BASE, epochs=2)
    with open_run(tmp_path, "a", run, "x") as folder:
        folder.write_rows([{"epoch": i, **dict.fromkeys(COLUMNS[1:], 1.0)} for i in range(3)])
    with open_run(tmp_path, "a", run, "x") as folder:
        folder.write_rows([{"epoch": 0, **dict.fromkeys(COLUMNS[1:], 2.0)}])
        assert len(folder.rows()) == 3
        folder.write_rows([{"epoch": 0, **dict.fromkeys(COLUMNS[1:], 2.0)}], last=True)
        assert len(folder.rows()) == 1


# ------------------------------------------------------------------------------------------ devices


def environment(devices, **more):
    """Of processes that compile quickly, with so many simulated CPU devices."""
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    return os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"} | more


def agree(a, b):
    for one, other in zip(a, b, strict=True):
        assert len(one) == len(other) > 1
        for x, y in zip(one, other, strict=True):
            assert x["test_loss"] == pytest.approx(y["test_loss"], rel=1e-5)
            assert x["train_loss"] == pytest.approx(y["train_loss"], rel=1e-5)


@pytest.fixture(scope="module")
def one_device():
    """Rows of the same replicas and of the same network, in this process."""
    assert jax.device_count() == 1
    return [result.rows for result in npt.train(REPLICAS)], npt.train(CONV).rows


@pytest.mark.slow  # as two processes with two devices each, below, but for a convolution
def test_eight_devices_find_what_one_finds(tmp_path, one_device):
    out = tmp_path / "8.json"
    subprocess.run([sys.executable, spread.__file__, out], env=environment(8), check=True)
    eight, (replicas, conv) = json.loads(out.read_text()), one_device
    assert eight["devices"] == 8
    agree(replicas, eight["replicas"])
    agree([conv, conv], [eight["batch"], eight["slopes"]])


def test_two_processes_find_what_one_finds(tmp_path, one_device):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    outs, started = [tmp_path / f"{i}.json" for i in range(2)], []
    for i, out in enumerate(outs):
        who = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": str(i)}
        command = [sys.executable, spread.__file__, out, tmp_path / "runs"]
        started.append(subprocess.Popen(command, env=environment(2, **who)))
    assert [process.wait(timeout=300) for process in started] == [0, 0]
    found = json.loads(outs[0].read_text())
    assert not outs[1].exists()  # one process writes
    assert (found["devices"], found["local"]) == (4, 2)
    agree(one_device[0], found["replicas"])
    agree(one_device[0][:1] * 2, [found["batch"], found["slopes"]])
    folders = [path.parent for path in (tmp_path / "runs").glob("*/*/metrics.csv")]
    assert len(folders) == 5
    saved = [npt.load(folder) for folder in folders]  # with the trained networks
    assert all(result.params for result in saved)
    assert saved[0].evaluate()["test_loss"] == pytest.approx(saved[0].rows[-1]["test_loss"], rel=1e-5)


def test_free_memory_of_a_job_counts_what_is_cached_as_free(tmp_path):
    limit, used, cached = 2_000_000, 1_900_000, 1_500_000
    for name, text in {"max": limit, "current": used, "stat": f"anon 1\ninactive_file {cached}\nslab 3\n"}.items():
        (tmp_path / f"memory.{name}").write_text(str(text))
    assert devices.memory_free(tmp_path) == 1_600_000 // jax.local_device_count()
    (tmp_path / "memory.max").write_text("max\n")
    assert devices.memory_free(tmp_path) > 0  # no limit
