"""Does a rule estimate what it claims, and how noisy is it? `check` is in checking.py, what it finds in finding.py."""

from nodepert.diagnostics.gradient_check import check as check
from nodepert.diagnostics.verdict import Check as Check
