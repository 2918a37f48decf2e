"""Commands in processes of their own, and what they leave."""

import csv
import json
import os
import subprocess
import sys

import pytest

from nodepert.data import DataError, download


@pytest.fixture
def work(tmp_path, monkeypatch):
    """An empty working folder, no data but those that come with packages, no network."""

    def closed(name, folder):
        raise DataError(f"cannot download {name}: no connection to example.org")

    folder = tmp_path / "work"
    folder.mkdir()
    for variable in ("NODEPERT_DATA_DIR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "_download", closed)
    monkeypatch.chdir(folder)
    return folder


def process(*arguments, platforms="cpu"):
    """The command in a process of its own; programs of JAX are compiled for the CPU, which all machines have."""
    return subprocess.Popen(
        [sys.executable, "-m", "nodepert", *arguments],
        env=os.environ | {"JAX_PLATFORMS": platforms},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(*arguments, **options):
    with process(*arguments, **options) as started:
        out, err = started.communicate(timeout=120)
    return started.returncode, out, err


def is_plain(text):
    return all(c.isprintable() or c == "\n" for c in text)


def record(folder):
    return json.loads((folder / "config.json").read_text())


def table(folder, file="metrics.csv"):
    with open(folder / file, newline="") as file:
        return list(csv.DictReader(file))
