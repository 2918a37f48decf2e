"""One run at smoke of every experiment, for all tests that look at it."""

import functools
import os

import pytest
from filelock import FileLock
from toy import Toy

import nodepert as npt
from nodepert.experiments.execute import execute


@pytest.fixture(scope="session")
def smoke(tmp_path_factory):
    """`smoke(name)`: the outcome of an experiment at smoke, computed once for all processes of this test run."""
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder

    @functools.cache
    def outcome(name):
        with FileLock(folder / f"{name}.lock"):
            return execute(name, "smoke", out=folder / f"smoke-{name}")

    return outcome


@pytest.fixture(scope="module", autouse=True)
def compiled_for_one_use(quickly_compiled):
    """Programs of these tests run once."""


@pytest.fixture
def toy(own):
    npt.register("experiment", "toy", Toy)
    return "toy"
