"""The texts of a study's report that HTML and Markdown share: the cells of its table, its headline, its sources."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nodepert.training.metrics import with_error

NOTE = (
    "Metrics are those after the last epoch, accuracies in per cent: mean ± standard error over the finished seeds, or "
    "the value of a single seed. * marks a group without a finished seed: the values at the last epochs reached."
)


def left_columns(data: Mapping[str, Any]) -> list[str]:
    """The options in which groups differ, or the rule."""
    return [*data["columns"]] or ["rule"]


def headings(data: Mapping[str, Any]) -> list[str]:
    """The headings of all columns."""
    return [*left_columns(data), *(metric["heading"] for metric in data["metrics"]), "epochs", "runs"]


def left_cells(group: Mapping[str, Any]) -> dict[str, str]:
    """{left column: text} of a group."""
    return group["texts"] or {"rule": group["options"]["rule"]}


def shared_options(data: Mapping[str, Any]) -> dict[str, str]:
    """The options that all groups share, without those in the table."""
    return {key: text for key, text in data["common"].items() if key not in left_columns(data)}


def metric_cells(data: Mapping[str, Any], group: Mapping[str, Any]) -> list[str]:
    """The metrics of a group."""
    mark = "*" if group["status"] == "unfinished" else ""
    found = [(group["summary"].get(metric["name"], {}), metric["form"]) for metric in data["metrics"]]
    texts = [with_error(one.get("mean"), one.get("error"), form) for one, form in found]
    return [text if text == "-" else text + mark for text in texts]


def epochs_reached(group: Mapping[str, Any]) -> list[int]:
    """The last epochs of the runs in the summary, ascending, each once."""
    return sorted({group["runs"][k]["rows"]["epoch"][-1] for k in group["included"]})


def epochs_cell(group: Mapping[str, Any]) -> str:
    """The epochs of the runs in the summary, out of those requested: 10, or 3-7 of 10."""
    requested, reached = group["options"]["epochs"], epochs_reached(group)
    if reached == [requested]:
        return str(requested)
    return f"{'-'.join(map(str, dict.fromkeys((reached[0], reached[-1])))) if reached else '-'} of {requested}"


def status_texts(group: Mapping[str, Any]) -> list[str]:
    """The statuses of a group's runs, with their counts."""
    return [one["text"] if len(group["runs"]) == 1 else f"{one['count']} {one['text']}" for one in group["counts"]]


def headline(data: Mapping[str, Any]) -> str:
    """24 runs of 8 configurations (without seeds): 22 finished, 1 diverged, 1 failed."""
    counts, groups = data["counts"], len(data["groups"])
    runs, statuses = sum(counts.values()), sorted(counts, key=lambda status: (-counts[status], status))
    found = ", ".join(f"{counts[status]:,} {status}" for status in statuses)
    kinds = f" of {groups:,} configuration{'s' * (groups > 1)} (without seeds)" if runs > 1 else ""
    return f"{runs:,} run{'s' * (runs > 1)}{kinds}: {found}"


def sources(data: Mapping[str, Any]) -> list[str]:
    """Versions, device and data, one text for each combination."""
    return ["; ".join([f"{one['runs']:,} run{'s' * (one['runs'] > 1)}",
                       *(text for text in (one["versions"], one["device"] and f"on {one['device']}",
                                           one["data"] and f"data {one['data']}") if text)])
            for one in data["provenance"]]  # fmt: skip
