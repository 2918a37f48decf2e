"""What the tests of sweeps share: grids, commands, damage, and what a store holds when all is well."""

import csv
import io
import json
import os
import subprocess
import sys

GRID = """
name = "study"
seeds = {seeds}
[grid]
rule = ["np", "sgd"]
lr = {rates}
dataset = "digits(train=300, test=100)"
network = "fc(width=10)"
epochs = {epochs}
batchsize = 50
"""


def grid(folder, seeds=2, rates=(1e-2,), epochs=3, more=""):
    path = folder / "grid.toml"
    path.write_text(GRID.format(seeds=seeds, rates=list(rates), epochs=epochs) + more)
    return path


def command(path, out, *options):
    return [sys.executable, "-m", "nodepert", "sweep", str(path), "--out", str(out), *map(str, options)]


def start(path, out, *options):
    """A sweep in a process of its own."""
    env = os.environ | {"JAX_PLATFORMS": "cpu"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command(path, out, *options), env=env, start_new_session=True, **pipes)


def sweep(path, out, *options, status=0):
    """A sweep to its end; what it said."""
    process = start(path, out, *options)
    said, _ = process.communicate(timeout=500)
    assert process.returncode == status, said
    return said


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    data = bytearray(path.read_bytes())
    if data:
        data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


def records(out):
    """{id: config.json}"""
    return {path.parent.name: json.loads(path.read_text()) for path in out.glob("study/*/config.json")}


def results(out):
    """{id: (status, rows without times, digest of the final state)} of all runs, each with its files and no other."""
    found = {}
    for number, record in records(out).items():
        folder = out / "study" / number
        rows = list(csv.DictReader(io.StringIO((folder / "metrics.csv").read_text())))
        last = rows[-1]["epoch"]
        assert sorted(os.listdir(folder)) == ["checkpoints", "config.json", "metrics.csv"]
        assert sorted(os.listdir(folder / "checkpoints")) == [last, f"{last}.json"]
        checkpoint = json.loads((folder / "checkpoints" / f"{last}.json").read_text())
        for row in (*rows, *checkpoint["rows"]):
            del row["epoch_time"]
        found[number] = record["status"], rows, checkpoint["rows"], checkpoint["digest"]
    return found
