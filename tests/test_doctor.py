"""`nodepert doctor` says what is here, what is not, and what to type."""

import os
import stat

import pytest

from nodepert import cli, cli_doctor


def said(capsys, *arguments):
    cli.main(["doctor", *map(str, arguments)])
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


def test_a_bare_machine_is_told_what_is_missing_and_what_to_type(bare, capsys):
    text = said(capsys)
    here, missing = text.split("what is missing, if you want it:")
    lines = {line.split("  ")[0]: line for line in here.splitlines()}
    assert "none here; everything works on the CPU" in lines["GPU"]
    assert "no sbatch here" in lines["Slurm"] and "worker processes" in lines["Slurm"]
    assert "digits" in lines["data here"] and "mnist5k" in lines["data here"]
    assert "cifar10" in lines["data not here"] and "nodepert data fetch" in missing and "NODEPERT_DATA_DIR" in missing
    assert missing.count("pip install") == len(cli_doctor.EXTRAS)
    assert os.listdir() == []  # it leaves nothing


def test_what_is_there_is_said_to_be_there(tmp_path, monkeypatch, capsys):
    for name in ("sbatch", "scontrol"):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text("#!/bin/sh\nexit 0\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    text = said(capsys, "--out", tmp_path / "results")
    assert "--launcher slurm" in text.split("missing")[0] and "GB free" in text
    assert not (tmp_path / "results").exists()


def test_slurm_that_does_not_answer_and_a_place_that_cannot_be_written(tmp_path, monkeypatch, capsys):
    for name, code in (("sbatch", 0), ("scontrol", 1)):
        (tmp_path / name).write_text(f"#!/bin/sh\nexit {code}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (tmp_path / "file").write_text("")
    text = said(capsys, "--out", tmp_path / "file" / "runs")
    assert "does not answer" in text and "scontrol ping says why" in text
    assert "choose another folder" in text
