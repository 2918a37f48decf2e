"""Every benchmark runs at a small size and writes the printed rows as JSON with the device and versions."""

import json
import os
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
    assert {path.stem for path in FOLDER.glob("*.py")} - {"common", "gpu"} == set(SMALL)
    text = (FOLDER / "README.md").read_text()
    assert all(f"`{name}.py`" in text for name in (*SMALL, "gpu"))


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_it_runs(name, tmp_path):
    command = [sys.executable, FOLDER / f"{name}.py", *SMALL[name].split(), "--json", tmp_path / "found.json"]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    written = json.loads((tmp_path / "found.json").read_text())
    assert written["rows"] and written["device"].startswith("cpu") and written["versions"]["jax"] and written["date"]
    for row in written["rows"]:
        assert str(next(v for v in row.values() if isinstance(v, str))) in out


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    import gpu

    return gpu


def found_in(folder, output):
    """The parts of gpu.json, all of whose rows are in the printed table."""
    found = json.loads((folder / "gpu.json").read_text())
    assert found["device"].startswith("cpu") and found["toy"] and found["versions"]["jax"]
    rows = [row for part in found["parts"].values() for row in part["rows"]]
    printed = "".join(output.split())
    assert rows and all("".join(row["what"].split())[:10] in printed for row in rows)
    return found["parts"]


def test_gpu_goes_on_after_a_part_that_fails_or_runs_out_of_time(gpu, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(gpu, "PARTS", {"draws": 0.01, "absent": 600, "noise": 600})
    monkeypatch.setitem(gpu.MINUTES, "cpu", 8)
    assert gpu.main(gpu.Options(parts=("draws", "absent", "noise"), out=tmp_path)) == 1
    parts = found_in(tmp_path, capfd.readouterr().out)
    assert parts["draws"]["rows"][-1]["note"].startswith("out of time after")
    assert "failed: ModuleNotFoundError" in parts["absent"]["rows"][-1]["note"]
    assert parts["noise"]["status"] == "complete" and all(row["value"] > 0 for row in parts["noise"]["rows"])


def test_gpu_starts_no_part_when_time_is_over(gpu, tmp_path):
    assert gpu.main(gpu.Options(parts=("noise",), minutes=0.01, out=tmp_path)) == 1
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["parts"]["noise"]["rows"][0]["note"] == "not started: 0.01 minutes are over"
    with pytest.raises(SystemExit, match="no part 'nois'; parts: correct"):
        gpu.main(gpu.Options(parts=("nois",), out=tmp_path))


def test_what_is_missing_is_a_row(gpu):
    from gpu_parts import NoData, tried

    def fails(error):
        raise error
        yield

    for error, note, ok in ((ImportError("no flax", name="flax"), "not installed: flax", True),
                            (NoData("mnist"), "no data: mnist", True),
                            (MemoryError("all of it"), "failed: MemoryError: all of it", False)):  # fmt: skip
        (row,) = tried("a", lambda error=error: fails(error))
        assert (row.what, row.value, row.note, row.ok) == ("a", None, note, ok)
    (row,) = tried("a", lambda: fails(ValueError("TF32")), optional=True)
    assert row.ok and row.note == "not here: ValueError: TF32"


@pytest.mark.slow
def test_make_gpu(gpu, tmp_path):
    """All parts, at toy size, by the target of the Makefile, without an installation."""
    command = ["make", "-C", FOLDER.parent, "gpu", f"PYTHON={sys.executable}", f"OUT={tmp_path}"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=os.environ)
    parts = found_in(tmp_path, done.stdout)
    assert list(parts) == list(gpu.PARTS)
    failed = [row for part in parts.values() for row in part["rows"] if not row["ok"]]
    assert not failed and done.returncode == 0
