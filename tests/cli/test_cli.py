"""The command line: what it prints and leaves, and that whatever is wrong is one line, status 2 and no file."""

import json
import os
import re
import struct
import subprocess
import sys
from dataclasses import fields

import jax
import matplotlib
import numpy as np
import pytest
from commands import is_plain, process, record, run, table
from PIL import Image

import nodepert as npt
from nodepert.cli import app as cli
from nodepert.cli import display
from nodepert.data import formats
from nodepert.experiments.drawing import COLOURS
from nodepert.registry import everything, names
from nodepert.registry.catalogue import BUILT_IN
from nodepert.registry.table import OWN
from nodepert.studies import train as runner
from nodepert.studies.callbacks import summary
from nodepert.studies.run import Run
from nodepert.studies.store.run_folder import open_run
from nodepert.training.program import State
from nodepert.training.replicas import Epoch

matplotlib.get_cachedir()  # fixed here, once: a list of fonts takes seconds to make, and every test has its own HOME

pytestmark = pytest.mark.usefixtures("work")
DEFAULTS = {f.name: f.default for f in fields(Run)}
TINY = ["--dataset", "digits(train=200, test=50)", "--network", "fc(width=8, depth=1)"]
ROWS = [
    {"epoch": e, "epoch_time": 0.5, "train_acc": 9.0, "test_acc": 8.0, "train_loss": 0.2, "test_loss": 0.3}
    for e in (0, 1)
]


@pytest.fixture
def untrained(monkeypatch):
    """Runs that cost nothing: two rows that are known before."""
    monkeypatch.setattr(
        runner,
        "fit_all",
        lambda *_, **__: (Epoch({0: row}, lambda i: State({"w": np.zeros(2)}, (), (), np.int32(1))) for row in ROWS),
    )


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.name != ".owner")


# ------------------------------------------------------------------------------------------ what works


@pytest.mark.parametrize(
    ("command", "parts"),
    [
        ([], ["train", "compare", "list", "data", "nodepert COMMAND --help", "two or more rules on one task"]),
        (["train"], [f"--{f} {default}" for f, default in DEFAULTS.items()] + ["--out runs", "--name default"]),
        (["compare"], ["--rules", "--lr 0.0003", "--epochs 10", "--optimizer adam(schedule=cosine)"]),
        (["list"], ["rules", "networks", "losses", "datasets", "optimizers"]),
        (["data"], ["status", "fetch", "NODEPERT_DATA_DIR"]),
    ],
)
def test_help_says_what_there_is_and_the_defaults(command, parts, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([*command, "--help"])
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert not stop.value.code
    chunks = re.split(r" (?=--[a-z])", said.replace("'", ""))
    for part in (part for part in parts if part.startswith("--")):
        option, *default = part.split(" ", 1)
        about = next(chunk for chunk in chunks if re.match(rf"{option} \[?[A-Z]", chunk))
        assert not default or f"(default: {default[0]})" in about
    assert [part for part in parts if not part.startswith("--") and part not in said] == []


def test_list_of_one_kind_shows_no_other(capsys):
    cli.main(["list", "losses"])
    words = capsys.readouterr().out.split()
    assert {name for _, name, _ in everything()} & set(words) == set(names("loss"))


def test_data_says_of_every_set_whether_it_is_here(capsys, tmp_path, monkeypatch):
    write_mnist(tmp_path / "data" / "mnist")
    cli.main(["data", "--data-dir", str(tmp_path / "data")])
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert list(lines) == names("dataset")
    assert " here " in lines["digits"] and "not here" not in lines["mnist"] + lines["mnist5k"]
    assert "not here" in lines["cifar10"] and "nodepert data fetch cifar10" in lines["cifar10"]


def test_train_prints_every_epoch_and_the_outcome_and_leaves_the_rows(work, untrained, capsys):
    cli.main(["train", *TINY, "--epochs", "1", "--out", "results", "--name", "study"])
    (folder,) = (work / "results" / "study").iterdir()
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert [line.split()[:3] for line in lines[:2]] == [["np", "epoch", str(e)] for e in range(2)]
    assert "finished" in out and lines[-1] == f"rows: {folder.relative_to(work)}/metrics.csv"
    assert is_plain(out) and err == ""
    assert len(table(folder)) == 2 and files(folder)[-2:] == ["config.json", "metrics.csv"]
    assert {name.split("/")[0] for name in files(folder)[:-2]} == {"checkpoints"}


def test_compare_tunes_every_rule_reports_it_and_saves_the_trials(work, capsys):
    rules = ["np", "np(sigma=0.01)"]  # replicas of one program
    arguments = ["compare", *TINY, "--epochs", "1", "--rules", *rules, "--tune", "4", "--lr-range", "1e-9", "1e-8"]
    cli.main(arguments)
    out, err = capsys.readouterr()
    lines = out.splitlines()
    (heading,) = (i for i, line in enumerate(lines) if line.split()[:5] == ["rule", "best", "lr", "held-out", "%"])
    chosen = [line.split() for line in lines[heading + 1 : heading + 3]]
    assert [words[0] for words in chosen] == rules and [words[-3:] for words in chosen] == [["4", "4", "24"]] * 2
    assert (
        f"np: the best learning rate, {chosen[0][1]}, is the highest that was tried" in out
    )  # although it went beyond
    assert "4 trials, scored on 20 held-out training examples" in out
    assert [line.split()[1] for line in lines[-3:-1]] == [words[1] for words in chosen] and is_plain(out) and err == ""
    trials = table(work / "runs" / "compare", "tune.csv")
    assert [row["rule"] for row in trials] == [rule for rule in rules for _ in range(4)]
    assert [f"{float(row['lr']):g}" for row in trials if row["best"] == "1"] == [words[1] for words in chosen]
    assert (work / "runs" / "compare" / "tune.png").exists()
    assert len(npt.load_results("compare-tune", last=True)) == 8 and len(npt.load_results("compare", last=True)) == 2
    cli.main([*arguments, "--json"])  # all is read back
    again = json.loads(capsys.readouterr().out)
    assert [f"{one['run']['lr']:g}" for one in again["tuned"]] == [words[1] for words in chosen]
    assert [len(one["trials"]) for one in again["tuned"]] == [4, 4] and len(again["runs"]) == 2


def test_compare_takes_the_rate_that_is_measured_for_each_rule(work, untrained, capsys):
    cli.main(["compare", *TINY, "--epochs", "1", "--rules", "np", "np; out=exact", "wp", "sgd", "--lr", "auto"])
    found = npt.load_results("compare", last=True).set_index("rule")["lr"].to_dict()
    rates = {name: BUILT_IN["rule"][name].lr for name in ("np", "wp", "sgd", "exact")}
    assert found == {name: rates[name] for name in ("np", "wp", "sgd")} | {
        "np; out=exact": min(rates["np"], rates["exact"])
    }
    cli.main(["list", "rules"])
    assert f"Learning rate: {rates['np']:g}, measured with Adam" in capsys.readouterr().out


def test_compare_leaves_a_picture_and_a_table_per_rule_each_with_its_own_lr(work, capsys):
    cli.main(["compare", *TINY, "--epochs", "1", "--rules", "np(samples=2)", "sgd", "--lr", "1e-3", "0.5"])
    folders = [path for path in (work / "runs" / "compare").iterdir() if path.is_dir()]
    rates = {record(f)["config"]["rule"].split(", noise")[0]: record(f)["config"]["lr"] for f in folders}
    assert rates == {"np(sigma=0.001, samples=2": 0.001, "sgd": 0.5}
    assert [len(table(f)) for f in folders] == [2, 2]
    with Image.open(work / "runs" / "compare" / "compare.png") as picture:
        assert picture.format == "PNG"
        colours = {f"#{r:02X}{g:02X}{b:02X}" for _, (r, g, b) in picture.convert("RGB").getcolors(1 << 24)}
    assert set(COLOURS[:2]) <= colours  # two curves
    out, err = capsys.readouterr()
    assert "figure: runs/compare/compare.png" in out and is_plain(out) and err == ""


def test_a_config_is_run_as_it_says_and_options_override_it(work, tmp_path, untrained, capsys):
    earlier = Run("digits(train=100)", "fc(width=3)", "mse", 10, 1, 0.01, 5, "np(samples=3)", "momentum", 0.7)
    with open_run(tmp_path, "earlier", earlier, "data") as folder:
        folder.start()
        config = folder.path / "config.json"
    cli.main(["train", "--config", str(config)])
    (folder,) = (work / "runs" / "default").iterdir()
    assert record(folder)["config"] == earlier.config
    cli.main(["train", "--seed", "6", f"--config={config.parent}", "--rule", "sgd", "--name", "other"])
    (folder,) = (work / "runs" / "other").iterdir()
    assert record(folder)["config"] == earlier.config | {"seed": 6, "rule": "sgd"}


def test_a_finished_run_is_said_to_be_read_back(work, untrained, capsys):
    for _ in range(2):
        cli.main(["train", *TINY, "--epochs", "1"])
    assert "had finished and is read back" in capsys.readouterr().out


# ------------------------------------------------------------------------------------- what is refused


def write_mnist(folder, damage=None):
    """Four small IDX files, the training images truncated, corrupted or of another type."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for split, count in zip(formats.IDX_SPLITS, (6, 4), strict=True):
        images = struct.pack(">4I", 0x803, count, 28, 28) + rng.bytes(count * 784)
        if split == formats.IDX_SPLITS[0] and damage:
            images = {"truncated": images[:-9], "corrupted": b"\x1f\x8b" + images, "type": b"\0\0\x0d" + images[3:]}[
                damage
            ]
        (folder / formats.IDX_IMAGES.format(split)).write_bytes(images)
        labels = struct.pack(">2I", 0x801, count) + bytes(range(count))
        (folder / formats.IDX_LABELS.format(split)).write_bytes(labels)


@pytest.fixture
def places(tmp_path):
    """Folders and files that bad commands name."""
    for damage in ("truncated", "corrupted", "type"):
        write_mnist(tmp_path / damage / "mnist", damage)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("mine")
    (tmp_path / "elsewhere.json").write_text('{"learning_rate": 3}')
    return tmp_path


MNIST = ["train", "--network", "fc(width=8)", "--dataset", "mnist", "--data-dir"]
BAD = {  # command, and what the line must say; @ stands for the folder of `places`
    "network": (["train", *TINY, "--network", "nosuch"], "unknown network 'nosuch'; there are: fc"),
    "rule": (["train", *TINY, "--rule", "nosuch"], "unknown rule"),
    "dataset": (["train", "--dataset", "mnits"], "did you mean 'mnist'?"),
    "loss": (["train", *TINY, "--loss", "nosuch"], "unknown loss"),
    "optimizer": (["train", *TINY, "--optimizer", "nosuch"], "unknown optimizer"),
    "rule argument": (["train", *TINY, "--rule", "np(sigm=1)"], "no argument 'sigm'"),
    "no spec": (["train", *TINY, "--rule", "np(\n"], "cannot read"),
    "escape": (["train", *TINY, "--rule", r"np(noise='\d')"], "noise"),
    "sigma 0": (["train", *TINY, "--rule", "np(sigma=0)"], "sigma must be positive"),
    "sigma negative": (["train", *TINY, "--rule", "np(sigma=-1)"], "sigma must be positive"),
    "sigma nan": (["train", *TINY, "--rule", "np(sigma=nan)"], "sigma must be a number"),
    "samples 0": (["train", *TINY, "--rule", "np(samples=0)"], "samples must be at least 1"),
    "samples huge": (["train", *TINY, "--rule", f"np(samples=1{'0' * 20})"], "samples"),
    "batchsize 0": (["train", *TINY, "--batchsize", "0"], "batchsize must be at least 1"),
    "batchsize large": (["train", *TINY, "--batchsize", "201"], "at most the 200"),
    "lr negative": (["train", *TINY, "--lr", "-1e-3"], "lr (learning rate) must be"),
    "lr nan": (["train", *TINY, "--lr", "nan"], "lr (learning rate) must be"),
    "wd": (["train", *TINY, "--wd", "1.5"], "wd (weight shrinkage per update) must be"),
    "smoothed": (["check", *TINY, "--smoothed", "-1"], "smoothed must be a positive number"),
    "smoothed recommend": (["check", *TINY, "--recommend", "--smoothed", "1"], "no option of check --recommend"),
    "epochs": (["train", *TINY, "--epochs", "-1"], "epochs must not be negative"),
    "seed": (["train", *TINY, "--seed", "-1"], "seeds are a number of them"),
    "subset": (["train", "--dataset", "digits(train=9999)"], "1,437"),
    "no data": ([*MNIST, "@/empty"], "no mnist in @/empty"),
    "no data folder": ([*MNIST, "@/nowhere"], "@/nowhere does not exist"),
    "truncated data": ([*MNIST, "@/truncated"], "truncated"),
    "corrupted data": ([*MNIST, "@/corrupted"], "train-images"),
    "data of another type": ([*MNIST, "@/type"], "not an IDX file of images"),
    "out": (["train", *TINY, "--out", "@/file"], "cannot write @/file"),
    "config": (["train", "--config", "@/elsewhere.json"], "@/elsewhere.json is not a NodePert record of this kind"),
    "no config": (["train", "--config", "@/nowhere"], "cannot read @/nowhere: no such file"),
    "name": (["train", *TINY, "--name", "a/b"], "the name 'a/b'"),
    "option": (["train", "--nosuch", "3"], "--nosuch"),
    "similar option": (["train", "--rul", "np"], "--rule"),
    "no number": (["train", "--epochs", "ten"], "--epochs"),
    "no value": (["train", "--epochs"], "epochs needs a value"),
    "no tracker": (["train", *TINY, "--log"], "--log needs a value (see nodepert train --help)"),
    "no seeds": (["compare", "--seeds", "--rules", "np", "sgd"], "--seeds needs a value (see nodepert compare --help)"),
    "no condition": (["runs", "--where"], "--where needs a value (see nodepert runs --help)"),
    "no Slurm": (["sweep", "grid.toml", "--slurm"], "--slurm needs a value (see nodepert sweep --help)"),
    "no whole number": (["runs", "--best", "x"], "--best must be a whole number; got 'x' (see nodepert runs --help)"),
    "whole numbers": (["train", "--epochs", "1", "2.5"], "--epochs must be a whole number; got '1', '2.5'"),
    "rate": (["train", "--lr", "fast"], "--lr must be a number; got 'fast' (see nodepert train --help)"),
    "seconds": (["sweep", "g", "--checkpoint-every", "x"], "--checkpoint-every must be a number; got 'x'"),
    "near option": (["runs", "--wher", "a=b"], "unknown option --wher (did you mean --where?) (see nodepert runs --"),
    "unknown before missing": (["compare", "--rul", "np"], "unknown option --rul (see nodepert compare --help)"),
    "option of no command": (["--lr", "3", "train"], "unknown option --lr (see nodepert --help)"),
    "flag with a value": (["train", "--spread-batch", "yes"], "unexpected argument 'yes'"),
    "a word more": (["report", "x", "y"], "unexpected argument 'y' (see nodepert report --help)"),
    "no shell": (["completion"], "error: nodepert completion needs SHELL (see nodepert completion --help)"),
    "no study": (["results"], "error: nodepert results needs NAME (see nodepert results --help)"),
    "no grid": (["sweep"], "error: nodepert sweep needs GRID (see nodepert sweep --help)"),
    "near command": (["trian"], "unknown command 'trian' (did you mean 'train'?); there are: train, compare, check"),
    "near choice": (["list", "rule"], "invalid choice 'rule' for argument 'kinds'. Expected one of ('rules', "),
    "long value": (["train", "--epochs", "x" * 200], f"got '{'x' * 200}' (see"),
    "experiment": (["experiment", "linesearch", "--scal", "x"], "(see nodepert experiment linesearch --help)"),
    "scale": (
        ["experiment", "adam", "--scale", "big"],
        "invalid choice 'big' for argument '--scale'. Expected one of ('smoke', 'small', 'paper') (see",
    ),
    "folder of a report": (["report", "x", "--to", "@/no/r.html"], "cannot write @/no/r.html: there is no folder @/no"),
    "folder of a table": (["results", "x", "--to", "@/no/r.csv"], "cannot write @/no/r.csv: there is no folder @/no"),
    "no command": (
        [],
        "train, compare, check, experiment, sweep, runs, results, report, evaluate, predict, summary, list, data, "
        "doctor, completion",
    ),
    "command": (
        ["trian"],
        "train, compare, check, experiment, sweep, runs, results, report, evaluate, predict, summary, list, data, "
        "doctor, completion",
    ),
    "kind": (
        ["list", "nosuch"],
        "argument 'kinds'. Expected one of ('rules', 'guides', 'networks', 'losses', 'datasets', 'optimizers', ",
    ),
    "no rules": (["compare", *TINY], "--rules"),
    "one rule": (["compare", *TINY, "--rules", "np"], "two or more rules"),
    "second rule": (["compare", *TINY, "--rules", "np", "np(sigma=0)"], "sigma must be positive"),
    "rates": (["compare", *TINY, "--rules", "np", "sgd", "--lr", "1", "2", "3"], "one each; got 3"),
    "fetch what": (["data", "fetch"], "nodepert data fetch mnist"),
    "tune and lr": (
        ["compare", *TINY, "--rules", "np", "sgd", "--tune", "8", "--lr", "1"],
        "give --tune or --lr, not both",
    ),
    "few trials": (["compare", *TINY, "--rules", "np", "sgd", "--tune", "3"], "takes from 4 to 60 trials; got 3"),
    "range": (
        ["compare", *TINY, "--rules", "np", "sgd", "--tune", "4", "--lr-range", "1", "0"],
        "between a lower and a higher one, both above 0; got 1 and 0",
    ),
    "auto with sgd": (
        ["compare", *TINY, "--rules", "np", "sgd", "--lr", "auto", "--optimizer", "sgd"],
        "no learning rate is measured for the optimizer sgd, only for adam; give --lr a number, or search with --tune",
    ),
    "data elsewhere": (["train"], "--dataset mnist5k needs no download"),
    "no connection": (["data", "fetch", "mnist"], "no connection to example.org"),
    "status of what": (["data", "status", "nosuch"], "unknown dataset 'nosuch'"),
}


def at(places, *texts):
    return [text.replace("@", str(places)) for text in texts]


def says_so(err, part):
    return err.startswith("nodepert: error: ") and part in err and err.count("\n") == 1 and is_plain(err)


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_one_line_status_2_and_no_file(what, work, places, capfd):
    command, part = BAD[what]
    with pytest.raises(SystemExit) as stop:
        cli.main(at(places, *command))
    out, err = capfd.readouterr()
    assert stop.value.code == 2 and out == ""
    assert says_so(err, *at(places, part)), err
    assert files(work) == [] and (places / "file").read_text() == "mine"


@pytest.mark.parametrize("what", ["truncated data", "out", "escape"])
def test_bad_input_ends_the_process_with_status_2_and_no_traceback(what, work, places):
    command, part = BAD[what]
    status, out, err = run(*at(places, *command))
    assert (status, out) == (2, "") and says_so(err, *at(places, part)), err
    assert files(work) == []


@pytest.mark.parametrize(
    ("command", "platforms"),
    [("train", "cuda"), *((command, "nosuch") for command in ("train", "compare", "check", "sweep", "debug"))],
)
def test_a_device_that_is_not_there_is_one_line(command, platforms, work):
    (work / "grid.toml").write_text('dataset = "digits"\nlr = [0.1, 0.2]\n')
    arguments = {"compare": ["compare", *TINY, "--rules", "np", "sgd"], "sweep": ["sweep", "grid.toml"],
                 "debug": ["sweep", "grid.toml", "--launcher", "debug"]}.get(command, [command, *TINY])  # fmt: skip
    status, _, err = run(*arguments, platforms=platforms)
    assert status == 2 and says_so(err, f"JAX finds no device for JAX_PLATFORMS={platforms}"), err
    assert "unset JAX_PLATFORMS" in err and files(work) == ["grid.toml"]


@pytest.mark.parametrize(
    ("variable", "value"), [("JAX_ENABLE_X64", "maybe"), ("JAX_DEFAULT_MATMUL_PRECISION", "low")], ids=str
)
def test_a_variable_that_jax_does_not_understand_is_one_line(variable, value, work, monkeypatch):
    monkeypatch.setenv(variable, value)
    status, _, err = run("train", *TINY)
    assert status == 2 and says_so(err, value) and variable in err.upper(), err
    assert files(work) == []


def made_by(kind, made):
    """A factory of the user's that gives `made`."""
    return (lambda a: made) if kind == "dataset" else (lambda a, b: made)


@pytest.mark.parametrize(
    ("kind", "made", "says"),
    [
        ("rule", None, "rule 'mine' returns NoneType; its factory must return npt.Rule"),
        ("network", (1, 2), "network 'mine' returns tuple; its factory must return npt.Model"),
        ("dataset", {}, "dataset 'mine' returns dict; its factory must return npt.Dataset"),
        ("optimizer", 3, "optimizer 'mine' returns int; its factory must return optax.GradientTransformation"),
        ("loss", None, "a loss must return one number per example; this one returned NoneType"),
        ("loss", len, "this one returned builtin_function_or_method (network fc(width=8, depth=1), rule np, loss mine"),
        (
            "rule",
            npt.Rule(len, len),
            "(network fc(width=8, depth=1), rule mine, loss mse, inputs of",
        ),
    ],
)
def test_what_a_factory_of_the_users_own_gives_is_looked_at(kind, made, says, work, monkeypatch, capfd):
    monkeypatch.setitem(OWN, kind, {})
    npt.register(kind, "mine", made_by(kind, made))
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", *TINY, f"--{kind}", "mine"])
    out, err = capfd.readouterr()
    assert (stop.value.code, out) == (2, "") and says_so(err, says), err
    assert "(2, 32, 32, 3)" not in err and files(work) == []


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_the_example_of_a_command_fits_a_narrow_terminal(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("Example: "))
    assert len(line) <= 80 and line.startswith(f"Example: nodepert {command} ")
    assert cli.COMMANDS[command].__doc__.count(line) == 1  # it is all there


@pytest.mark.parametrize("command", [["list"], ["experiment"], ["data"]])
def test_a_pipe_gets_whole_cells_and_no_spaces_at_the_end_of_lines(command, capsys):
    cli.main(command)
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line != line.rstrip() or "…" in line] == []
    if command == ["list"]:
        assert all(any(entry.about in line for line in lines) for _, _, entry in everything())


def test_seconds_have_three_digits_that_count():
    assert [display.seconds(s) for s in (0.0, 0.001234, 0.05678, 12.345, 999.7)] == (
        ["0", "0.00123", "0.0568", "12.3", "1000"]
    )
    assert summary(ROWS[0] | {"epoch_time": 0.0049}).endswith("  0.0049 s")


def test_several_replicas_have_a_cpu_device_each(work):
    """As many as there are cores."""
    program = "import sys, jax; from nodepert.cli import app as cli; cli.main(sys.argv[1:]); print(jax.device_count())"
    command = [sys.executable, "-c", program, "train", *TINY, "--epochs", "1", "--seeds", "0..3"]
    flags = " ".join(flag for flag in os.environ["XLA_FLAGS"].split() if "device_count" not in flag)
    env = {k: v for k, v in os.environ.items() if k != "JAX_NUM_CPU_DEVICES"} | {"XLA_FLAGS": flags}
    done = subprocess.run(command, env=env | {"JAX_PLATFORMS": "cpu"}, capture_output=True, text=True, check=True)
    assert int(done.stdout.splitlines()[-1]) == min(4, len(os.sched_getaffinity(0)))


def test_a_rate_stands_in_its_own_column_alone(work, capsys):
    cli.main(["train", *TINY, "--epochs", "1", "--lr", "0.1", "0.1234567", "0.1234569", "--seeds", "0..1"])
    rows = [line.split()[:2] for line in capsys.readouterr().out.splitlines() if "2 finished" in line]
    assert rows == [["np", "0.1"], ["np", "0.1234567"], ["np", "0.1234569"]]


def test_a_shell_completes_commands_and_options(work, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["completion", "bash"])
    assert not stop.value.code
    (work / "script").write_text(capsys.readouterr().out)

    def completed(*words):
        program = f"""source ./script; COMP_WORDS=({" ".join(words)}); COMP_CWORD={len(words) - 1}
            COMP_LINE="{" ".join(words)}"; COMP_POINT=${{#COMP_LINE}}; _tyro_nodepert; echo "${{COMPREPLY[@]}}" """
        return subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True).stdout.split()

    assert completed("nodepert", "tra") == ["train"]
    assert {"results", "report"} <= set(completed("nodepert", "re"))
    assert set(completed("nodepert", "train", "--checkpoint")) == {"--checkpoint-every"}


# ------------------------------------------------------------------------------------------ being stopped


@pytest.mark.parametrize("command", [["list"], ["experiment"]])
def test_a_reader_that_closes_the_pipe_is_no_error(command, work):
    with process(*command) as started:
        started.stdout.close()
        assert started.stderr.read() == ""
    assert started.returncode == 141


def test_the_loss_is_the_networks_own_unless_it_is_given(work):
    """As before: this run's id is that of version 0.1."""
    cli.main(["train", "--dataset", "digits(train=200, test=50)", "--network", "linfc(width=8)", "--rule", "sgd",
              "--epochs", "1"])  # fmt: skip
    assert [path.name for path in (work / "runs" / "default").iterdir()] == ["6d296ea4e298"]


@pytest.mark.parametrize(
    "command",
    ["train --dataset digits", "check --dataset digits", "runs", "sweep grid.toml", "doctor",
     "experiment linear-theory --scale smoke"],
)  # fmt: skip
def test_a_deleted_working_directory_is_the_reason(command, work, capsys):
    work.rmdir()
    with pytest.raises(SystemExit) as stop:
        cli.main(command.split())
    err = capsys.readouterr().err
    assert stop.value.code == 2 and "the working directory no longer exists" in err and err.count("\n") == 1


def test_a_value_that_jax_was_asked_to_find_is_one_line(work, capsys):
    options = "--dataset digits(train=20,test=10) --network fc(depth=0) --rule sgd --optimizer sgd --loss linear-mse"
    with jax.debug_nans(True), pytest.raises(SystemExit) as stop:
        cli.main(["train", *options.split(), "--lr", "1e30", "--batchsize", "5", "--epochs", "3"])
    err = capsys.readouterr().err
    assert stop.value.code == 2 and "without JAX_DEBUG_NANS" in err and "Traceback" not in err
