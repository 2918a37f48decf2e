"""Is a rule's estimate biased, and how noisy is it? `check` is in gradient_check.py, what it returns in result.py."""

from nodepert.diagnostics.gradient_check import check as check
from nodepert.diagnostics.result import Check as Check
