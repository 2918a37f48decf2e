"""`nodepert doctor` reports what is installed, what is missing, and how to get it."""

import os
import re
import stat
import subprocess
import sys

import pytest

from nodepert.cli import app as cli
from nodepert.cli import display
from nodepert.cli import doctor as cli_doctor


def report(capsys, *arguments, status=0):
    """Its output. Status 1: something required is missing."""
    try:
        cli.main(["doctor", *map(str, arguments)])
    except SystemExit as stop:
        assert stop.code == status
    else:
        assert status == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


@pytest.fixture
def bare(tmp_path, monkeypatch):
    """A machine without data, GPU, Slurm and optional packages."""
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    for name in ("NODEPERT_DATA_DIR", "SLURM_CONF"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    own = cli_doctor._version
    monkeypatch.setattr(cli_doctor, "_version", lambda name: None if name in cli_doctor.EXTRAS.values() else own(name))
    monkeypatch.chdir(tmp_path)


def test_a_bare_machine_gets_what_is_missing_and_how_to_fix_it(bare, capsys):
    text = report(capsys)
    here, missing = text.split("optional:")
    lines = {line.split("  ")[0]: line for line in here.splitlines()}
    assert "none; everything works on the CPU" in lines["GPU"]
    assert "no sbatch" in lines["Slurm"] and "worker processes" in lines["Slurm"]
    assert "digits" in lines["data here"] and "mnist5k" in lines["data here"]
    assert "cifar10" in lines["data not here"] and "nodepert data fetch" in missing and "NODEPERT_DATA_DIR" in missing
    assert missing.count("pip install") == len(cli_doctor.EXTRAS)
    assert os.listdir() == []  # it leaves nothing


def test_what_is_installed_is_reported(tmp_path, monkeypatch, capsys):
    for name in ("sbatch", "scontrol"):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text("#!/bin/sh\nexit 0\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    text = report(capsys, "--out", tmp_path / "results")
    assert "--launcher slurm" in text.split("optional:")[0] and "GB free" in text
    assert not (tmp_path / "results").exists()


def test_slurm_that_does_not_answer_and_a_directory_that_cannot_be_written(tmp_path, monkeypatch, capsys):
    for name, code in (("sbatch", 0), ("scontrol", 1)):
        (tmp_path / name).write_text(f"#!/bin/sh\nexit {code}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (tmp_path / "file").write_text("")
    text = report(capsys, "--out", tmp_path / "file" / "runs", status=1)
    assert "does not answer" in text
    _, required, optional = re.split("required:|optional:", text)
    assert required.split() == ["results:", "choose", "another", "--out"] and "see scontrol ping" in optional


def test_a_missing_data_directory_is_a_row_among_the_others(tmp_path, capsys):
    text = report(capsys, "--data-dir", tmp_path / "nowhere", status=1)
    rows = {line.split("  ")[0]: line for line in text.split("required:")[0].splitlines()}
    assert f"missing  the data folder {tmp_path / 'nowhere'} does not exist" in rows["data"]
    assert {"python", "packages", "devices", "results", "compiled programs", "Slurm"} <= rows.keys()
    assert "data: use a --data-dir (or NODEPERT_DATA_DIR) that exists, or none" in text


def in_a_process(*arguments, **env):
    """Its output in a new process, with status 1 and nothing on stderr."""
    command = [sys.executable, "-m", "nodepert", "doctor", *map(str, arguments)]
    done = subprocess.run(command, env=os.environ | env, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "")
    table, required, *_ = re.split("required:|optional:", done.stdout)
    assert "results " in table and "Slurm " in table
    return table, required


def test_a_missing_device_is_a_row(tmp_path):
    table, required = in_a_process("--out", tmp_path, JAX_PLATFORMS="cuda")
    assert "missing  JAX finds no device for JAX_PLATFORMS=cuda" in table and "unset JAX_PLATFORMS" in required


def test_a_broken_installation_of_jax_is_a_row(tmp_path):
    (tmp_path / "jax").mkdir()
    (tmp_path / "jax" / "__init__.py").write_text("raise ImportError('no jaxlib')")
    table, required = in_a_process("--out", tmp_path, PYTHONPATH=os.pathsep.join([str(tmp_path), *sys.path]))
    assert "missing  ImportError: no jaxlib" in table and "devices: pip install --force-reinstall nodepert" in required


def test_lines_fold_to_the_width_of_a_terminal(bare, capsys, monkeypatch):
    monkeypatch.setattr(display.console, "_width", 50)
    text = report(capsys)
    names = [line for line in text.splitlines() if not line.startswith("packages")]
    assert max(map(len, names)) <= 50 and "nodepert data fetch" in text


@pytest.mark.parametrize(("cores", "words"), [(1, "1 CPU core"), (2, "2 CPU cores")])
def test_cores_are_counted(cores, words, capsys, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    assert f"; {words}\n" in report(capsys)
