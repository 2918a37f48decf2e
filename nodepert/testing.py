"""Conformance tests: does a rule, or a network, satisfy the contracts of core.py? For NodePert's own and for plug-ins.

    from nodepert.testing import check_model, check_rule

    def test_my_rule():
        check_rule(my_rule)  # or a spec, as in check_rule("my-rule(strength=2)")

A violation is an AssertionError with a message of one sentence: where it is, what it is, what to do. No test framework
is needed.
"""

from nodepert.diagnostics.conformance.models import check_model as check_model
from nodepert.diagnostics.conformance.rules import check_rule as check_rule
