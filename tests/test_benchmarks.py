"""Every benchmark runs at a small size and writes the printed rows as JSON with the device and versions."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "benchmarks"
SMALL = {
    "step": "--networks linfc --rules np --repeats 1 --seconds 0.001",
    "epoch": "--dataset digits --rules np --repeats 1 --networks fc(width=5)",
    "replicas": "--dataset digits --counts 2 --epochs 1 --repeats 1 --network fc(width=5)",
    "memory": "--depths 1 2 --batches 10 --width 8 --rules sgd np np(replay=True) --repeats 1",
    "rates": "--dataset digits --rules sgd --epochs 1 --trials 4 --networks fc(width=5)",
    "exchange": "--widths 10 --processes 2 --samples 1 --epochs 2",
    "speedrun": "--dataset digits --rows sgd --epochs 2 --seeds 2 --targets 20 100",
}


def test_every_benchmark_is_tested_and_documented():
    assert {path.stem for path in FOLDER.glob("*.py")} - {"common"} == set(SMALL)
    text = (FOLDER / "README.md").read_text()
    assert all(f"`{name}.py`" in text for name in SMALL)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_it_runs(name, tmp_path):
    command = [sys.executable, FOLDER / f"{name}.py", *SMALL[name].split(), "--json", tmp_path / "found.json"]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    written = json.loads((tmp_path / "found.json").read_text())
    assert written["rows"] and written["device"].startswith("cpu") and written["versions"]["jax"] and written["date"]
    for row in written["rows"]:
        assert str(next(v for v in row.values() if isinstance(v, str))) in out
