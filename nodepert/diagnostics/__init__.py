"""Does a rule estimate what it claims, and how noisy is it? `check` is in checking.py, what it finds in finding.py."""

from nodepert.diagnostics.checking import check as check
from nodepert.diagnostics.finding import Check as Check
