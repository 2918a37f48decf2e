"""What a run's record keeps of code of the user's own: another rule of the same name is not taken for the first."""

import functools
import json
import textwrap
import types
from dataclasses import replace

import jax
import numpy as np
import pytest
from small import RUN, half

import nodepert as npt
from nodepert.studies import train as runner
from nodepert.studies.user_code import checksum, own_code

BASE = """
    import numpy as np
    SCALE = 2.0
    TABLE = np.arange(3.0)

    def helper(x):
        return SCALE * x

    class Kept:
        '''Of one.'''
        def call(self, x):
            return helper(x)

    def factory(model, loss, *, factor: float = 0.5):
        '''A rule.'''
        def grads(key):
            return [Kept().call(k) for k in TABLE if k in {1, 2, 3}]
        return grads
    """
CHANGES = {  # of the text above: (from, to, whether it is other code)
    "nothing": ("", "", False),
    "a comment": ("return SCALE * x", "return SCALE * x  # as in the paper", False),
    "a docstring": ("A rule.", "A rule, told of better.", False),
    "no docstring": ("        '''A rule.'''\n", "", False),
    "where it stands": ("SCALE = 2.0", "\n\n\n    SCALE = 2.0", False),
    "what is not used": ("import numpy as np", "import numpy as np\n    OTHER = 3", False),
    "a constant": ("SCALE = 2.0", "SCALE = 3.0", True),
    "an array": ("np.arange(3.0)", "np.arange(4.0)", True),
    "a helper": ("SCALE * x", "SCALE + x", True),
    "a method": ("return helper(x)", "return -helper(x)", True),
    "a default": ("factor: float = 0.5", "factor: float = 1.5", True),
    "what is within": ("{1, 2, 3}", "{1, 2, 4}", True),
    "a name": ("k in {", "k not in {", True),
}


def written(text):
    module = types.ModuleType("mine")
    exec(textwrap.dedent(text), vars(module))
    return module.factory


@pytest.mark.parametrize("what", CHANGES)
def test_the_checksum_changes_with_the_code_and_with_nothing_else(what):
    old, new, other = CHANGES[what]
    assert old in BASE
    assert (checksum(written(BASE)) != checksum(written(BASE.replace(old, new)))) == other


def scaled(factor):
    return lambda model, loss: factor


def test_values_that_are_closed_over_and_arguments_of_partial_count():
    assert checksum(scaled(1.0)) == checksum(scaled(1.0)) != checksum(scaled(2.0))
    assert checksum(scaled(np.ones(2))) != checksum(scaled(np.zeros(2)))
    of = functools.partial
    assert checksum(of(half, factor=1.0)) == checksum(of(half, factor=1.0)) != checksum(of(half, factor=2.0))
    assert checksum(jax.jit(scaled(1.0))) != checksum(jax.jit(scaled(2.0)))
    assert checksum(npt.node_perturbation) != checksum(npt.backprop)


def test_a_function_that_calls_itself_has_a_checksum():
    def again(n):
        return again(n - 1)

    assert checksum(again) == checksum(again)


def test_only_what_is_not_nodeperts_is_kept_of_a_run_also_within_others(own):
    assert own_code([RUN]) == [{}]
    npt.register("rule", "half", half)
    npt.register("loss", "error", lambda outputs, targets: 0)
    for rule in ("half(factor=1)", "decorrelate(half)", "np; out=half"):
        assert own_code([replace(RUN, rule=rule)]) == [{"rule half": checksum(half)}]
    assert own_code([replace(RUN, loss="error")])[0].keys() == {"loss error"}


def test_a_run_of_another_rule_of_the_same_name_is_refused_and_left_alone(own, tmp_path, monkeypatch):
    run = replace(RUN, rule="half", optimizer="sgd", lr=0.1)
    npt.register("rule", "half", half)
    first = npt.train(run, name="n", out=tmp_path)
    record = json.loads((first.folder / "config.json").read_text())
    assert record["own"] == {"rule half": checksum(half)}

    def other(model, loss, *, factor: float = 0.5):
        return half(model, loss, factor=-factor)

    npt.register("rule", "half", other)
    with pytest.raises(npt.UserError, match="holds this run of another rule half, whose code has changed since"):
        npt.train(run, name="n", out=tmp_path)
    assert json.loads((first.folder / "config.json").read_text()) == record
    npt.register("rule", "half", half)
    monkeypatch.setattr(runner, "fit_all", lambda *given, **how: None)  # nothing is trained
    assert npt.train(run, name="n", out=tmp_path).rows == first.rows
