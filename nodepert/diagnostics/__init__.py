"""Does a rule estimate what it claims, and how noisy is it? `check` is in gradient_check.py, its result in result.py."""

from nodepert.diagnostics.gradient_check import check as check
from nodepert.diagnostics.result import Check as Check
