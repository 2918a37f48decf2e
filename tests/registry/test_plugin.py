"""A package adds a rule and a network by entry points (tests/registry/plugin); here it is installed and used."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import nodepert as npt
from nodepert import registry
from nodepert.registry import table
from nodepert.registry.entry import Entry


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the plug-in installed, for PYTHONPATH."""
    folder = tmp_path_factory.mktemp("plugin")
    source, target = folder / "source", folder / "site"
    shutil.copytree(Path(__file__).parent / "plugin", source)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--target", str(target), str(source)], check=True, capture_output=True)
    return target


def run(installed, *command, code=0):
    paths = filter(None, [str(installed), os.environ.get("PYTHONPATH")])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    return " ".join((done.stdout if code == 0 else done.stderr).split())


def test_it_is_listed_with_its_cost_and_bias_and_a_broken_one_is_reported(installed):
    shown = run(installed, "-m", "nodepert", "list")
    assert (
        "one-bit Node perturbation by one bit per example: whether the noise lowered the loss. sigma=0.01 "
        "Cost: 3 forward passes per step: a clean and a noisy forward pass, the weight gradients." in shown
    )
    assert "Bias: biased: every example has the same weight" in shown
    assert "tanh-net Fully connected, one hidden layer of tanh. width=64" in shown
    assert "the rule 'broken' of the package nodepert-one-bit cannot be imported: ModuleNotFoundError" in shown
    assert "conv-large" in shown


def test_it_trains_and_is_checked_from_the_command_line(installed):
    options = ("--dataset", "digits", "--network", "tanh-net(width=32)", "--rule", "one-bit(sigma=1e-2)")
    assert "finished" in run(installed, "-m", "nodepert", "train", *options, "--epochs", "1")
    assert "biased" in run(installed, "-m", "nodepert", "check", *options, "--draws", "200")
    wrong = ("-m", "nodepert", "train", "--dataset", "digits", "--rule", "broken")
    assert run(installed, *wrong, code=2).startswith("nodepert: error: the rule 'broken' of the package")


def test_it_passes_the_conformance_tests(installed):
    program = "from nodepert.testing import check_model, check_rule; import nodepert_one_bit as p; "
    program += "check_rule(p.one_bit); check_rule('one-bit'); check_model(p.tanh_net((8, 8, 3), 4), (8, 8, 3))"
    run(installed, "-c", program)


def test_a_name_that_is_taken_is_an_error_naming_the_owner(monkeypatch):
    monkeypatch.setattr(table, "plugins", lambda kind: (("np", Entry("a:b", package="their-package")),))
    with pytest.raises(npt.UserError, match="their-package adds a rule 'np', but that name is taken by NodePert"):
        registry.check("rule", "np")
