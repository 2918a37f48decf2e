"""The learning rate that was measured for a rule (benchmarks/rates.py)."""

from __future__ import annotations

from nodepert.errors import UserError
from nodepert.registry.spec import BY_NODE
from nodepert.registry.table import entry
from nodepert.registry.validate import within


def measured_rate(rule: str, optimizer: str) -> float:
    """The learning rate measured for a rule with Adam; of a map from nodes to rules the lowest of theirs.

    Raises UserError where none is measured.
    """
    names = within("rule", rule)
    rates = [entry("rule", name).lr for name in (names[1:] if names[0] == BY_NODE else names[:1])]
    known = [rate for rate in rates if rate is not None]
    if len(known) < len(rates) or "adam" not in within("optimizer", optimizer):
        of = f"the rule {rule}" if len(known) < len(rates) else f"the optimizer {optimizer}, only for adam"
        raise UserError(f"no learning rate is measured for {of}; give --lr a number, or search with --tune")
    return min(known)
