"""The data of a study's report, as plain values: its runs in groups that differ only in seed, and their metrics.

Numbers are exactly those of the store; infinite and NaN are None, for JSON.
"""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from nodepert.errors import UserError
from nodepert.experiments.drawing import COLOURS, style
from nodepert.registry import examples, passes
from nodepert.studies.filters import status_word, written
from nodepert.studies.results import OPTIONS, SPECS, SavedRun, differing, one_line, options_of, saved_runs
from nodepert.studies.store.run_folder import succeeded
from nodepert.training.metrics import columns_of, final, finite_or_none, mean_error, metric_of, score_of

DASHES = ("solid", "dash", "dot", "dashdot")


def grouped(runs: Sequence[SavedRun]) -> list[str]:
    """The options that runs of one group share."""
    return [name for name in options_of(runs) if name != "seed"]


def gather(name: str, out: str | Path = "runs") -> dict[str, Any]:
    """The data of the report of a study. Raises UserError for an unknown study, and if no run is readable."""
    runs = saved_runs([name], out)
    if not runs:
        raise UserError(f"no run of {Path(out) / name} can be read; see the warnings")
    shared = grouped(runs)
    columns = [key for key in shared if len({repr(run.options[key]) for run in runs}) > 1]
    columns.sort(key=lambda key: key != "rule")
    groups: dict[tuple[str, ...], list[SavedRun]] = {}
    for run in runs:
        groups.setdefault(tuple(repr(run.options[key]) for key in shared), []).append(run)
    texts = {key: value_texts([run.options[key] for run in runs]) for key in shared}
    metrics = columns_of(row for run in runs for row in run.rows)
    group = partial(_group, texts={key: texts[key] for key in columns}, arguments=differing(runs), metrics=metrics)
    described = list(map(group, range(len(groups)), groups.values()))
    return {
        "study": name,
        "common": {key: ", ".join(texts[key].values()) for key in shared if key not in columns},
        "columns": columns,
        "axes": _axes(described),
        "groups": described,
        "metrics": [_described(name) for name in sorted(metrics, key=lambda name: name == "epoch_time")],
        "score": score_of(metrics),
        "counts": dict(Counter(map(status_word, runs))),
        "colours": COLOURS,
        "provenance": provenance(runs),
    }


def value_texts(values: Iterable[Any]) -> dict[Any, str]:
    """{value: text} of an option; floats have four digits, or all of them if values would look the same."""
    different = list(dict.fromkeys(values))
    short = {value: f"{value:.4g}" if isinstance(value, float) else written(value) for value in different}
    return short if len({*short.values()}) == len(different) else {value: written(value) for value in different}


def _group(
    i: int,
    runs: Sequence[SavedRun],
    texts: dict[str, dict[Any, str]],
    arguments: Sequence[str],
    metrics: Sequence[str],
) -> dict[str, Any]:
    """Group i, of runs that differ only in seed; `texts`: the texts of each option in which groups differ."""
    options = {key: runs[0].options[key] for key in grouped(runs)}
    own = {key: texts[key][options[key]] for key in texts}
    status, included = summarised(runs)
    return {
        "label": ", ".join(text if key in SPECS else f"{key}={text}" for key, text in own.items()) or options["rule"],
        "texts": own,
        "options": options,
        "arguments": {key: finite_or_none(runs[0].arguments[key]) for key in arguments if key in runs[0].arguments},
        "runs": [_run(run) for run in runs],
        "included": included,
        "status": status,
        "summary": summary([runs[k] for k in included] if status in ("finished", "unfinished") else [], metrics),
        "counts": status_counts(runs),
        "examples": examples(options["dataset"]),
        "passes": passes(options["rule"]),
        "command": command(runs),
        "style": {**style(i), "dash": DASHES[i % len(DASHES)]},
    }


def _run(run: SavedRun) -> dict[str, Any]:
    """A run with all its rows, a list per column."""
    rows = {name: [finite_or_none(row.get(name)) for row in run.rows] for name in ("epoch", *columns_of(run.rows))}
    return {"id": run.id, "seed": run.options["seed"], "status": run.status, "reason": run.reason, "rows": rows}


def summarised(runs: Sequence[SavedRun]) -> tuple[str, list[int]]:
    """The status of a group, and which runs its summary and curve include.

    Finished runs; if there are none, runs that have not diverged ("unfinished"); if there are none, diverged runs
    (only their curve is shown); or no runs ("no rows").
    """
    rows = [k for k, run in enumerate(runs) if run.rows]
    finished = [k for k in rows if succeeded(runs[k].status)]
    unfinished = [k for k in rows if status_word(runs[k]) != "diverged"]
    choices = {"finished": finished, "unfinished": unfinished, "diverged": rows}
    return next(((status, included) for status, included in choices.items() if included), ("no rows", []))


def summary(runs: Sequence[SavedRun], metrics: Sequence[str]) -> dict[str, dict[str, Any]]:
    """{metric: {mean, error, n}} of the networks that these runs result in; error: standard error over runs. epoch_time
    is over all epochs."""
    last = [final(run.rows) for run in runs]
    values = {name: [row[name] for row in last if name in row] for name in metrics}
    times = [[row["epoch_time"] for row in run.rows[1:] if "epoch_time" in row] for run in runs]
    values["epoch_time"] = [fmean(one) for one in times if one]
    found = {name: _mean([v for v in each if math.isfinite(v)]) for name, each in values.items()}
    found["epoch_time"]["error"] = None  # replicas of one program share their time
    return found


def _mean(values: Sequence[float]) -> dict[str, Any]:
    n = len(values)
    try:
        mean, error = mean_error(values)
    except OverflowError:
        n, mean, error = 0, None, None
    return {"mean": mean if n else None, "error": error if n > 1 else None, "n": len(values)}


def _described(name: str) -> dict[str, Any]:
    """A metric: its name, what an axis is called, and what METRICS says."""
    metric = metric_of(name)
    title = f"{metric.label}, {metric.unit}" if metric.unit else metric.label
    own = {key: finite_or_none(getattr(metric, key)) for key in ("label", "unit", "heading", "form", "lowest")}
    return {"name": name, "title": title, **own}


def status_counts(runs: Sequence[SavedRun]) -> list[dict[str, Any]]:
    """The runs of a group by status: {status, text, count}; the text has the epoch of unfinished runs, and the reason
    of failed ones."""

    def described(run: SavedRun) -> tuple[str, str]:
        status = status_word(run)
        if status == "failed":
            return status, f"failed: {run.reason}" if run.reason else "failed"
        if status in ("interrupted", "running"):
            done = f"after epoch {run.rows[-1]['epoch']} of {run.options['epochs']}" if run.rows else "before epoch 0"
            return status, f"{status} {done}"
        return status, run.status

    counts = Counter(map(described, runs))
    return [{"status": status, "text": text, "count": count} for (status, text), count in counts.items()]


def command(runs: Sequence[SavedRun]) -> str:
    """The command that trains these runs, which differ only in seed."""
    words = ["nodepert", "train", "--name", runs[0].study]
    for key in grouped(runs):
        value = runs[0].options[key]
        if value is not None:  # lr, where the optimizer has its own
            words += [f"--{key}", value if isinstance(value, str) else repr(value)]
    seeds = sorted(run.options["seed"] for run in runs)
    successive = len(seeds) > 1 and seeds == list(range(seeds[0], seeds[0] + len(seeds)))
    words += ["--seeds", *([f"{seeds[0]}..{seeds[-1]}"] if successive else map(str, seeds))]
    return shlex.join(words)


def _axes(groups: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The numbers in which groups differ: {key, values, texts}, values ascending; lr first, then arguments of specs."""
    found: dict[str, set[Any]] = {}
    for group in groups:
        for key, value in (group["options"] | group["arguments"]).items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                found.setdefault(key, set()).add(value)
    order = sorted(found, key=lambda key: (key != "lr", key in OPTIONS))
    several = {key: sorted(found[key]) for key in order if len(found[key]) > 1}
    return [{"key": k, "values": values, "texts": list(value_texts(values).values())} for k, values in several.items()]


def provenance(runs: Sequence[SavedRun]) -> list[dict[str, Any]]:
    """Versions, device and data of the runs: {versions, device, data, runs}, the most frequent first."""
    found: Counter[tuple[str, str, str]] = Counter()
    for run in runs:
        versions = run.sources["versions"]
        texts = [f"{k} {v}" for k, v in versions.items()] if isinstance(versions, dict) else []
        device, data = (str(run.sources[key] or "") for key in ("device", "data"))
        found[one_line(", ".join(texts)), one_line(device), one_line(data)[:40]] += 1
    return [{"versions": versions, "device": device, "data": data, "runs": count}
            for (versions, device, data), count in found.most_common()]  # fmt: skip
