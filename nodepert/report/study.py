"""What a report shows, as plain values: the runs of a study in groups that differ in seed only, and their figures.

Every number of a row is the store's, to the last bit; what is not finite is None, as JSON has no such number.
"""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from nodepert.errors import UserError
from nodepert.experiments.drawing import COLOURS, style
from nodepert.registry import examples, passes
from nodepert.studies.filters import said, status_word
from nodepert.studies.results import OPTIONS, SPECS, SavedRun, differing, one_line, saved_runs
from nodepert.training.metrics import SCORE, columns_of, finite_or_none, mean_error, metric_of

APART = [name for name in OPTIONS if name != "seed"]
DASHES = ("solid", "dash", "dot", "dashdot")


def gather(name: str, out: str | Path = "runs") -> dict[str, Any]:
    """All that a report of this study shows.

    Raises UserError for a study that is not there, and where none of its runs can be read.
    """
    runs = saved_runs([name], out)
    if not runs:
        raise UserError(f"no run of {Path(out) / name} can be read; the warnings say why")
    columns = [key for key in APART if len({repr(run.options[key]) for run in runs}) > 1]
    columns.sort(key=lambda key: key != "rule")  # the rule first
    alike: dict[tuple[str, ...], list[SavedRun]] = {}
    for run in runs:
        alike.setdefault(tuple(repr(run.options[key]) for key in APART), []).append(run)
    arguments = differing(runs)
    texts = {key: written([run.options[key] for run in runs]) for key in APART}
    metrics = columns_of(row for run in runs for row in run.rows)
    groups = [_group(i, own, columns, arguments, texts, metrics) for i, own in enumerate(alike.values())]
    return {
        "study": name,
        "common": {key: ", ".join(texts[key].values()) for key in APART if key not in columns},
        "columns": columns,
        "axes": _axes(groups),
        "groups": groups,
        "metrics": [_described(name) for name in sorted(metrics, key=lambda name: name == "epoch_time")],
        "score": SCORE,
        "statuses": dict(Counter(map(status_word, runs))),
        "colours": COLOURS,
        "provenance": provenance(runs),
    }


def written(values: Iterable[Any]) -> dict[Any, str]:
    """How the values of an option are written: floats with four digits, where that tells them apart."""
    different = list(dict.fromkeys(values))
    short = {value: f"{value:.4g}" if isinstance(value, float) else said(value) for value in different}
    return short if len({*short.values()}) == len(different) else {value: said(value) for value in different}


def _group(
    i: int,
    own: Sequence[SavedRun],
    columns: Sequence[str],
    arguments: Sequence[str],
    forms: dict[str, dict[Any, str]],
    metrics: Sequence[str],
) -> dict[str, Any]:
    """Runs that differ in seed only."""
    options = {key: own[0].options[key] for key in APART}
    texts = {key: forms[key].get(options[key], said(options[key])) for key in columns}  # nan is no key
    standing, chosen = counted(own)
    return {
        "label": ", ".join(text if key in SPECS else f"{key}={text}" for key, text in texts.items())
        or said(options["rule"]),
        "texts": texts,
        "options": {key: finite_or_none(value) for key, value in options.items()},
        "arguments": {key: finite_or_none(own[0].arguments[key]) for key in arguments if key in own[0].arguments},
        "runs": [_run(run) for run in own],
        "counted": chosen,
        "standing": standing,
        "summary": summary([own[k] for k in chosen] if standing in ("finished", "so far") else [], metrics),
        "statuses": statuses(own),
        "examples": examples(options["dataset"]),
        "passes": passes(options["rule"]),
        "command": command(own),
        "style": {**style(i), "dash": DASHES[i % len(DASHES)]},
    }


def _run(run: SavedRun) -> dict[str, Any]:
    """A run with all its rows, a list per column."""
    rows = {name: [finite_or_none(row.get(name)) for row in run.rows] for name in ("epoch", *columns_of(run.rows))}
    return {"id": run.id, "seed": run.options["seed"], "status": run.status, "reason": run.reason, "rows": rows}


def counted(own: Sequence[SavedRun]) -> tuple[str, list[int]]:
    """Which runs of a group count, and how they stand: those that are finished; else, as "so far", those that go on or
    were broken off; else, as "diverged", those that have rows; or "no figures"."""
    rows = [k for k, run in enumerate(own) if run.rows]
    finished = [k for k in rows if own[k].status == "finished"]
    unfinished = [k for k in rows if status_word(own[k]) != "diverged"]
    for standing, chosen in (("finished", finished), ("so far", unfinished), ("diverged", rows)):
        if chosen:
            return standing, chosen
    return "no figures", []


def summary(own: Sequence[SavedRun], metrics: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Mean, standard error over the runs (None of one) and number of the last metrics; epoch_time over all epochs."""
    last = [run.rows[-1] for run in own]
    values = {name: [row[name] for row in last if name in row] for name in metrics}
    timed = [[row["epoch_time"] for row in run.rows[1:] if "epoch_time" in row] for run in own]
    values["epoch_time"] = [fmean(times) for times in timed if times]
    found = {name: _measured([v for v in each if math.isfinite(v)]) for name, each in values.items()}
    found["epoch_time"]["error"] = None  # replicas of one program share their time
    return found


def _described(name: str) -> dict[str, str]:
    """A metric as a report shows it."""
    metric = metric_of(name)
    label = f"{metric.label}, {metric.unit}" if metric.unit else metric.label
    return {"name": name, "label": label, "heading": metric.heading, "form": metric.form}


def _measured(values: Sequence[float]) -> dict[str, Any]:
    n = len(values)
    try:
        mean, error = mean_error(values)
    except OverflowError:
        n, mean, error = 0, None, None
    return {"mean": mean if n else None, "error": error if n > 1 else None, "n": len(values)}


def statuses(own: Sequence[SavedRun]) -> list[dict[str, Any]]:
    """How many runs of a group stand how: {word, text, count}, an epoch with what is not through, a reason with what
    failed."""

    def told(run: SavedRun) -> tuple[str, str]:
        word = status_word(run)
        if word == "failed":
            return word, f"failed: {run.reason}" if run.reason else "failed"
        if word in ("interrupted", "running"):
            done = f"after epoch {run.rows[-1]['epoch']} of {run.options['epochs']}" if run.rows else "before epoch 0"
            return word, f"{word} {done}"
        return word, run.status

    return [{"word": word, "text": text, "count": count} for (word, text), count in Counter(map(told, own)).items()]


def command(own: Sequence[SavedRun]) -> str:
    """The command that trains these runs, which differ in seed only."""
    options = own[0].options
    words = ["nodepert", "train", "--name", own[0].study]
    for key in APART:
        value = options[key]
        words += [f"--{key}", value if isinstance(value, str) else repr(value)]
    seeds = sorted(run.options["seed"] for run in own)
    several = len(seeds) > 1 and seeds == list(range(seeds[0], seeds[-1] + 1))
    words += ["--seeds", *([f"{seeds[0]}..{seeds[-1]}"] if several else map(str, seeds))]
    return shlex.join(words)


def _axes(groups: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The numbers in which groups differ: {key, values, texts}, values upwards; the rate first, then those of specs."""
    found: dict[str, set[Any]] = {}
    for group in groups:
        for key, value in (group["options"] | group["arguments"]).items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                found.setdefault(key, set()).add(value)
    order = sorted(found, key=lambda key: (key != "lr", key in OPTIONS))
    several = {key: sorted(found[key]) for key in order if len(found[key]) > 1}
    return [{"key": k, "values": values, "texts": list(written(values).values())} for k, values in several.items()]


def provenance(runs: Sequence[SavedRun]) -> list[dict[str, Any]]:
    """The versions, the device and the data of the runs: {versions, device, data, runs}, the most frequent first."""
    found: Counter[tuple[str, str, str]] = Counter()
    for run in runs:
        versions = run.sources["versions"]
        texts = [f"{k} {v}" for k, v in versions.items()] if isinstance(versions, dict) else []
        device, data = (str(run.sources[key] or "") for key in ("device", "data"))
        found[one_line(", ".join(texts)), one_line(device), one_line(data)[:40]] += 1
    return [{"versions": versions, "device": device, "data": data, "runs": count}
            for (versions, device, data), count in found.most_common()]  # fmt: skip
