"""What a run costs beside time: examples an epoch, forward passes a step, as docstrings and the registry tell them."""

from __future__ import annotations

import re

from nodepert.errors import UserError
from nodepert.registry import about, facts
from nodepert.studies.results import known


def examples(dataset: str) -> int | None:
    """Training examples of a data set, by its spec (`train=`) or what the registry says of it ("60,000 + 10,000");
    None where neither tells."""
    said = known("dataset", dataset)
    if train := said.arguments.get("train"):
        return train
    found = re.search(r"(\d[\d,]*) \+ \d", about("dataset", said.names[0]))
    return int(found[1].replace(",", "")) if found else None


def passes(rule: str) -> float | None:
    """Forward passes of one step by the docstring's paragraph "Cost:"; None where it tells no number for this form.

    Read is a number that it begins with, what "each further draw, and central, adds", and that of "running".
    """
    said = known("rule", rule)
    try:
        cost = facts("rule", said.names[0]).get("Cost", "")
    except UserError:  # a plug-in that cannot be imported
        return None
    options = {"samples": 1} | said.arguments
    running, central = options.get("baseline") == "running", options.get("difference") == "central"
    draws = options["samples"]
    if options.get("replay") or type(draws) is not int or (draws > 1 and (running or central)):
        return None
    if options.get("presynaptic") == "noisy" and not running:
        return None
    base = _number(r"(?:^|.*?\W)running (\d+)" if running else r"(\d+)(?=$|[;.,]| \()", cost)
    more = draws - 1 + central
    if not more:
        return base
    added = _number(r".*each further draw, and central, adds (\d+)\b", cost)
    return None if base is None or added is None else base + more * added


def _number(pattern: str, text: str) -> int | None:
    """The number that a pattern finds from the start of a text on."""
    found = re.match(pattern, text)
    return int(found[1]) if found else None
