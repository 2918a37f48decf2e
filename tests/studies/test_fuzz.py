"""What is not ours is data: whatever bytes a file has, reading it gives a value or one clear error."""

import json
import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nodepert.errors import UserError
from nodepert.registry import check, full
from nodepert.studies.execution import Execution
from nodepert.studies.grid import load_grid, make_grid
from nodepert.studies.run import Run, from_config
from nodepert.studies.store import checkpoints, records
from nodepert.studies.store.run_folder import RunFolder, read_record
from nodepert.studies.sweep.jobs import Job, read_job, write_jobs
from nodepert.studies.sweep.sweep import progress_of

EXAMPLES = [pytest.param(200, id="few"), pytest.param(10_000, id="10,000", marks=pytest.mark.slow)]
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
    | st.sampled_from(["np", "np(sigma=1e-3)", "fc(width=5)", "digits", "sgd", "np; out=exact"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
OPTION = st.sampled_from([*Run().config, "seeds", "name", "grid", "runs", "except", "slurm", "update_rule"])
TABLE = st.dictionaries(OPTION, PLAIN | st.lists(PLAIN, max_size=3), max_size=5)
RECORD = {
    "format": "nodepert-run",
    "version": 2,
    "id": "0",
    "config": Run().config,
    "data": "d",
    "status": "running",
}
SPEC = st.text(alphabet="np(sigma=1e-3,;*_)'\"[]{}\\ \n\0é", max_size=40) | st.text(max_size=60)


def fuzz(examples, *strategies):
    return lambda f: settings(max_examples=examples, deadline=None, database=None)(given(*strategies)(f))()


def survives(call, *arguments):
    """It gives a value, or one line that says what is wrong."""
    try:
        call(*arguments)
    except UserError as error:
        assert str(error) and len(str(error)) < 2_000


def mutated(text):
    """A text of ours with some bytes cut out, put in or changed."""
    data = text.encode()
    place = st.integers(0, len(data))
    return st.lists(st.tuples(place, place, st.binary(max_size=6)), min_size=1, max_size=3).map(
        lambda changes: _changed(data, changes)
    )


def _changed(data, changes):
    for a, b, put in changes:
        data = data[: min(a, b)] + put + data[min(max(a, b), min(a, b) + 10) :]
    return data


@pytest.mark.parametrize("examples", EXAMPLES)
def test_specs(examples):
    def spec(text):
        for kind in ("rule", "network", "dataset", "optimizer", "loss"):
            survives(check, kind, text)
            survives(full, kind, text)

    fuzz(examples, SPEC)(spec)


@pytest.mark.parametrize("examples", EXAMPLES)
def test_configurations(examples):
    fuzz(examples, PLAIN | TABLE.map(lambda table: Run().config | table))(lambda values: survives(from_config, values))
    fuzz(examples, TABLE)(lambda t: survives(lambda: Run(**{k: v for k, v in t.items() if k in RECORD["config"]})))


@pytest.mark.parametrize("examples", EXAMPLES)
def test_grids(examples, tmp_path):
    path = tmp_path / "grid.toml"
    sound = (
        'name = "a"\nseeds = 2\n[grid]\nrule = ["np", "sgd"]\nlr = [1e-4, 1e-3]\n[[except]]\nlr = 1e-4\n'
        "[slurm]\ntime = 5\n"
    )
    assert tomllib.loads(sound)

    def file(data):
        path.write_bytes(data)
        survives(load_grid, path)

    fuzz(examples, TABLE)(lambda table: survives(make_grid, table))
    fuzz(examples, mutated(sound) | st.binary(max_size=60))(file)


@pytest.mark.parametrize("examples", EXAMPLES)
def test_records_of_runs(examples, tmp_path):
    path = tmp_path / "config.json"

    def file(data):
        path.write_bytes(data)
        survives(read_record, path)
        progress_of(tmp_path)

    def sealed(more):
        file(records.sealed(RECORD | more).encode())

    fuzz(
        examples, mutated(records.sealed(RECORD)) | st.binary(max_size=60) | PLAIN.map(lambda v: json.dumps(v).encode())
    )(file)
    fuzz(examples, st.dictionaries(st.sampled_from([*RECORD, "table", "attempts"]), PLAIN, max_size=3))(sealed)


@pytest.mark.parametrize("examples", EXAMPLES)
def test_tables_of_runs(examples, tmp_path):
    sound = (
        "epoch,epoch_time,train_acc,test_acc,train_loss,test_loss\n0,0.0,9.5,8.0,1.5,1.25\n1,0.5,19.5,18.0,0.5,nan\n"
    )

    def file(data):
        (tmp_path / "metrics.csv").write_bytes(data)
        rows = RunFolder(tmp_path, RECORD).rows()
        assert [row["epoch"] for row in rows] == list(range(len(rows)))

    fuzz(examples, mutated(sound) | st.binary(max_size=60))(file)


@pytest.mark.parametrize("examples", EXAMPLES)
def test_records_of_checkpoints(examples, tmp_path):
    (tmp_path / "checkpoints" / "0").mkdir(parents=True)
    row = {"epoch": 0, "epoch_time": 0.0, "train_acc": 1.0, "test_acc": 1.0, "train_loss": 1.0, "test_loss": 1.0}
    record = {"format": "nodepert-checkpoint", "version": 1, "epoch": 0, "data": "d", "digest": "0", "rows": [row]}

    def file(data):
        (tmp_path / "checkpoints" / "0.json").write_bytes(data)
        assert len(checkpoints.last_rows(tmp_path, "d")) <= 1

    fuzz(examples, mutated(records.sealed(record)) | st.binary(max_size=60))(file)
    fuzz(examples, st.dictionaries(st.sampled_from([*record]), PLAIN, max_size=3))(
        lambda more: file(records.sealed(record | more).encode())
    )


@pytest.mark.parametrize("examples", EXAMPLES)
def test_jobs(examples, tmp_path):
    (path,) = write_jobs([Job("a", tmp_path, [Run(rule="np")], Execution())])
    sound = json.loads(path.read_text())

    def file(data):
        path.write_bytes(data)
        survives(read_job, path)

    fuzz(examples, mutated(json.dumps(sound)) | st.binary(max_size=60))(file)
    del sound["seal"]
    fuzz(examples, st.dictionaries(st.sampled_from([*sound]), PLAIN, max_size=3))(
        lambda more: file(records.sealed(sound | more).encode())
    )
