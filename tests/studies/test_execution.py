"""A run is valid from its construction; an execution is one value from the command line to a worker's job."""

import json
import subprocess
import sys
from dataclasses import replace

import jax
import pytest
from small import RUN

import nodepert as npt
from nodepert.studies.execution import Execution
from nodepert.studies.sweep.jobs import Job, read_job, write_jobs

BAD = {
    "epochs": ({"epochs": -1}, "epochs must not be negative"),
    "batchsize": ({"batchsize": 0}, "batchsize must be at least 1"),
    "lr": ({"lr": float("nan")}, "lr .* must be finite"),
    "wd": ({"wd": 1.0}, "wd .* below 1"),
    "seed": ({"seed": -1}, "seed must be in"),
    "type": ({"epochs": "3"}, "epochs must be a whole number"),
    "name": ({"rule": "npp"}, "unknown rule 'npp'"),
    "argument": ({"network": "fc(wide=3)"}, "no argument 'wide'"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_run_is_checked_when_it_is_made(what):
    changes, says = BAD[what]
    with pytest.raises(npt.UserError, match=says):
        replace(RUN, **changes)


def test_specs_are_parsed_once_into_values_and_spellings_are_one_run():
    run = npt.Run(rule=" np( samples = 4, sigma=1e-3 )", network="linfc")
    assert (run.rule, run.loss) == ("np(samples=4)", "linear-mse") and run == npt.Run(
        rule="np(samples=4)", network="linfc"
    )
    assert dict(run.specs["rule"].kwargs)["sigma"] == 1e-3 and run.config["rule"].startswith(
        "np(sigma=0.001, samples=4"
    )


def test_an_execution_reaches_the_worker_whole(tmp_path):
    execution = Execution(
        data_dir=tmp_path, checkpoint_every=5.0, log=("tensorboard",), metrics=("grad_norm",), lanes=2
    )
    (path,) = write_jobs([Job("study", tmp_path, [RUN], execution)])
    assert read_job(path) == Job("study", tmp_path, [RUN], execution)
    assert json.loads(path.read_text())["execution"]["lanes"] == 2


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"checkpoint_every": -1.0}, "checkpoint_every is in seconds"),
        ({"lanes": 0}, "lanes must be at least 1"),
        ({"memory": 0.0}, "memory is in bytes"),
        ({"log": ["tensorbord"]}, "unknown tracker 'tensorbord'"),
        ({"checkpoint": 3}, "unknown option 'checkpoint'.*there are: data_dir, checkpoint_every"),
    ],
)
def test_a_wrong_option_is_one_line(options, says):
    with pytest.raises(npt.UserError, match=says):
        npt.train(RUN, **options)


def test_the_old_spelling_of_devices_is_deprecated():
    with pytest.warns(DeprecationWarning, match="spread_batch=True"):
        assert npt.train(replace(RUN, epochs=0), on=jax.devices()).status == "finished"


def test_a_worker_imports_nothing_of_the_terminal():
    program = (
        "import sys, nodepert.studies.sweep.worker, nodepert.studies.train; print({'rich', 'tyro'} & {*sys.modules})"
    )
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "set()"
