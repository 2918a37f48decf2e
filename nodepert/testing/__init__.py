"""Conformance tests: does a rule, or a network, keep the contracts of core.py? For NodePert's own and for plug-ins.

    from nodepert.testing import check_model, check_rule

    def test_my_rule():
        check_rule(my_rule)  # or a spec, as in check_rule("my-rule(strength=2)")

What is wrong is an AssertionError in one sentence: where it is, what it is, what to do. Needs no test framework.
"""

from nodepert.testing.models import check_model as check_model
from nodepert.testing.rules import check_rule as check_rule
