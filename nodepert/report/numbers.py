"""How figures are written in a report's tables, in HTML and in Markdown alike."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

NOTE = (
    "Figures are those after the last epoch, accuracies in per cent: the mean ± its standard error over the seeds that "
    "finished; of one seed its value. Where none has finished, those of the epochs that were reached, marked *."
)


def left(data: Mapping[str, Any]) -> list[str]:
    """The columns at the left: the options in which groups differ, or the rule."""
    return [*data["columns"]] or ["rule"]


def headings(data: Mapping[str, Any]) -> list[str]:
    """The heads of all columns."""
    return [*left(data), *(metric["heading"] for metric in data["metrics"]), "epochs", "runs"]


def options(group: Mapping[str, Any]) -> dict[str, str]:
    """What stands at the left of a group's line."""
    return group["texts"] or {"rule": group["options"]["rule"]}


def common(data: Mapping[str, Any]) -> dict[str, str]:
    """What all groups have in common, and the table does not say."""
    return {key: text for key, text in data["common"].items() if key not in left(data)}


def measured(figure: Mapping[str, Any] | None, form: str) -> str:
    """A mean with its standard error, to two digits of the error; a dash where there is none."""
    if not figure or figure["mean"] is None:
        return "-"
    mean, error = figure["mean"], figure["error"]
    if error is None:
        return f"{mean:{form}}"
    places = 1 - math.floor(math.log10(error)) if error > 0 else -1
    if not 0 <= places <= (2 if form == ".2f" else 6):
        return f"{mean:{form}} ± {error:{'.1g' if 0 < error < 1 else '.2g'}}"
    return f"{mean:.{places}f} ± {error:.{places}f}"


def cells(data: Mapping[str, Any], group: Mapping[str, Any]) -> list[str]:
    """The metrics of a group, as texts."""
    mark = "*" if group["standing"] == "so far" else ""
    texts = [measured(group["summary"].get(metric["name"]), metric["form"]) for metric in data["metrics"]]
    return [text if text == "-" else text + mark for text in texts]


def epochs(group: Mapping[str, Any]) -> str:
    """How many epochs the runs that count have of those that were asked for: 10, or 3-7 of 10."""
    asked = group["options"]["epochs"]
    reached = sorted({group["runs"][k]["rows"]["epoch"][-1] for k in group["counted"]})
    if reached == [asked]:
        return str(asked)
    return f"{'-'.join(map(str, dict.fromkeys((reached[0], reached[-1])))) if reached else '-'} of {asked}"


def standing(statuses: Sequence[Mapping[str, Any]]) -> list[str]:
    """How the runs of a group stand, a text for each status that occurs."""
    alone = len(statuses) == 1 and statuses[0]["count"] == 1
    return [one["text"] if alone else f"{one['count']} {one['text']}" for one in statuses]


def headline(data: Mapping[str, Any]) -> str:
    """24 runs of 8 configurations, apart from seeds: 22 finished, 1 diverged, 1 failed."""
    counts, groups = data["statuses"], len(data["groups"])
    runs, words = sum(counts.values()), sorted(counts, key=lambda word: (-counts[word], word))
    found = ", ".join(f"{counts[word]:,} {word}" for word in words)
    kinds = f" of {groups:,} configuration{'s' * (groups > 1)}, apart from seeds" if runs > 1 else ""
    return f"{runs:,} run{'s' * (runs > 1)}{kinds}: {found}"


def sources(data: Mapping[str, Any]) -> list[str]:
    """Versions, device and data, a text for each that occurs."""
    return ["; ".join([f"{one['runs']:,} run{'s' * (one['runs'] > 1)}",
                       *(text for text in (one["versions"], one["device"] and f"on {one['device']}",
                                           one["data"] and f"data {one['data']}") if text)])
            for one in data["provenance"]]  # fmt: skip
