"""Is a rule's estimate biased, and how noisy is it? `check` is in gradient_check.py, what it returns in result.py.

Which form of node perturbation has the least variance? `recommend` is in forms.py, what it returns in advice.py.
"""

from nodepert.diagnostics.advice import Recommendation as Recommendation
from nodepert.diagnostics.forms import recommend as recommend
from nodepert.diagnostics.gradient_check import check as check
from nodepert.diagnostics.result import Check as Check
