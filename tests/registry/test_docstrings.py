"""Registered factories and public functions document their arguments and have an example that runs."""

import doctest
import inspect
import re

import pytest

import nodepert as npt
from nodepert.registry import facts, resolve
from nodepert.registry.catalogue import BUILT_IN

KINDS = ("rule", "network", "loss", "dataset", "optimizer")
FUNCTIONS = {f"{kind} {name}": resolve(kind, name) for kind in KINDS for name in BUILT_IN[kind]} | {
    name: getattr(npt, name)
    for name in ("backprop", "pullback", "node_perturbation", "make_model", "make_rule", "make_loss", "register",
                 "make_dataset", "load_dataset", "from_flax", "from_equinox", "with_params", "load")
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_public_function_documents_arguments_and_result_and_its_example_runs(name, own):
    function = FUNCTIONS[name]
    doc = inspect.getdoc(function)
    arguments = "Args:" in doc or re.search(r"Arguments, return value and errors as for `\w+`\.", doc)
    assert arguments and "Examples:\n    >>> " in doc
    assert "Returns:" in doc or name == "register" or "Args:" not in doc
    if "Args:" in doc:
        listed = re.split(r"\n(?:Returns|Raises|Examples):\n", doc.partition("Args:\n")[2])[0]
        assert [p for p in inspect.signature(function).parameters if f"    {p}: " not in listed] == []
    (test,) = doctest.DocTestFinder(recurse=False).find(function, name, module=False, globs={})
    failed, tried = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=lambda text: None)
    assert tried and not failed


@pytest.mark.parametrize("name", BUILT_IN["rule"])
def test_a_rule_documents_equation_cost_bias_derivative_and_sources(name):
    doc = inspect.getdoc(resolve("rule", name))
    assert facts("rule", name).keys() - {"Learning rate"} == {"Cost", "Bias", "Derivative of the loss"}
    assert "\n    g" in doc or "g_l" in doc or "a_l" in doc
    assert "References:" in doc or name == "by-node"
