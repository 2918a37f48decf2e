"""Which runs: `rule=np`, `lr=1e-3`, `network.width=100`; of a status; the best; in which order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches
from typing import Any

from nodepert.errors import UserError
from nodepert.registry import entry
from nodepert.registry.catalogue import ALIASES
from nodepert.registry.spec import parse, show
from nodepert.studies.grid import parsed_seeds
from nodepert.studies.results import OPTIONS, SPECS, SavedRun, known, rank
from nodepert.training.metrics import columns_of, final, measured, metric_of, score_of, scores

OWN = ("study", "id", "status")  # columns beside options, arguments and metrics
SHOWN = 12  # values in a complaint


def where(runs: Sequence[SavedRun], conditions: Sequence[str]) -> list[SavedRun]:
    """The runs that meet every condition OPTION=VALUE; of several on one option, any of them.

    Raises UserError, with the values that exist, for a malformed condition, or where no run meets it.
    """
    tests: dict[str, list[Callable[[Any], bool]]] = {}
    for condition in conditions:
        key, equals, text = (part.strip() for part in condition.partition("="))
        if not equals:
            raise UserError(
                f"--where takes OPTION=VALUE, as in rule=np lr=1e-3, after the names of studies; got '{condition}'"
            )
        if not (there := [(run.options | run.arguments)[key] for run in runs if key in run.options | run.arguments]):
            if key == "status":
                raise UserError(f"status is not an option of a run: write --status {text}, not --where {condition}")
            near = "".join(f" (did you mean {one}?)" for one in get_close_matches(key, _keys(runs), n=1))
            raise UserError(f"none of these runs has an option {key}{near}; there are: {', '.join(_keys(runs))}")
        test = _test(key, text)
        if not any(map(test, there)):
            raise UserError(f"none of these runs has {key}={text}; there are: {listed(map(written, there))}")
        tests.setdefault(key, []).append(test)

    def meets(run: SavedRun) -> bool:
        values = run.options | run.arguments
        return all(key in values and any(test(values[key]) for test in either) for key, either in tests.items())

    found = [run for run in runs if meets(run)]
    if conditions and not found:
        raise UserError(f"none of these {len(runs):,} runs meets all of: {', '.join(conditions)}")
    return found


def of_status(runs: Sequence[SavedRun], word: str) -> list[SavedRun]:
    """The runs of a status: finished, diverged (at whatever epoch), ... Raises UserError, with those there are."""
    found = [run for run in runs if word in (run.status, status_word(run))]
    if not found:
        there = (f"{one} ({count})" for one, count in Counter(map(status_word, runs)).items())
        raise UserError(f"none of these runs is {word}; there are: {listed(there)}")
    return found


def status_word(run: SavedRun) -> str:
    """diverged, of 'diverged at epoch 3'."""
    return run.status.split()[0]


def best(runs: Sequence[SavedRun], count: int) -> list[SavedRun]:
    """The runs of best score (of METRICS), of the networks that they result in, best first; of each kind of task, where
    several.

    Raises UserError for a count below 1, and where no run has rows.
    """
    if count < 1:
        raise UserError(f"best must be at least 1; got {count}")
    found = [run for run in runs if run.rows]
    if not found:
        raise UserError("none of these runs has metrics yet")
    kinds = {score_of(run.rows[-1]): [] for run in found}
    for run in found:
        kinds[score_of(run.rows[-1])].append(run)
    return [run for name in scores(kinds) for run in ordered(kinds[name], name)[:count]]


def ordered(runs: Sequence[SavedRun], column: str) -> list[SavedRun]:
    """The runs sorted by a column: metrics from the best, all else upwards, runs that lack it at the end.

    Raises UserError, with the columns that exist, for one that does not.
    """
    metrics = metrics_of(runs)
    columns = (*OWN, *_keys(runs), *metrics)
    if column not in columns:
        raise UserError(f"no column {column}; there are: {', '.join(columns)}")
    sign = -1 if metric_of(column).better == "higher" else 1

    def place(run: SavedRun) -> tuple:
        found = value(run, column)
        if found is None or found != found:
            return (1,)
        return (0, rank(column, sign * found if column in metrics else found))

    return sorted(runs, key=place)


def metrics_of(runs: Sequence[SavedRun]) -> list[str]:
    """epoch, and the metrics that these runs have; without rows, those that are always measured."""
    return ["epoch", *columns_of([run.rows[-1] for run in runs if run.rows] or [measured()])]


def value(run: SavedRun, column: str) -> Any:
    """The value of an option, an argument ("network.width") or a metric of the network that the run results in; None
    where there is none."""
    if column in OWN:
        return getattr(run, column)
    return (run.options | run.arguments | final(run.rows)).get(column)


def values(runs: Sequence[SavedRun], column: str) -> list[Any]:
    """The values of a column in those runs that have one."""
    return [found for run in runs if (found := value(run, column)) is not None]


def written(value: Any) -> str:
    """A value as it is written in a condition."""
    return value if isinstance(value, str) else show(value)


def listed(texts: Iterable[str]) -> str:
    """Different texts, the first of them."""
    different = list(dict.fromkeys(texts))
    return ", ".join(different[:SHOWN]) + f" and {len(different) - SHOWN} more" * (len(different) > SHOWN)


def _keys(runs: Sequence[SavedRun]) -> list[str]:
    return [*OPTIONS, *dict.fromkeys(key for run in runs for key in run.arguments)]


def _test(key: str, text: str) -> Callable[[Any], bool]:
    """What a value of this option must meet. Raises UserError for a text that cannot be one."""
    if key in SPECS:
        return _spec_test(key, text)
    if key == "seed":
        return parsed_seeds(text).__contains__  # ranges as well: 0..4
    try:
        number = float(text)
    except ValueError:
        if key in OPTIONS:
            raise UserError(f"{key} is a number; got '{text}'") from None
        return lambda own: written(own).lower() == text.lower()
    return lambda own: isinstance(own, int | float) and not isinstance(own, bool) and own == number


def _spec_test(kind: str, text: str) -> Callable[[Any], bool]:
    """A name stands for any arguments; a spec with arguments for itself, however it is written."""
    spec = parse(text)
    if not (spec.args or spec.kwargs or "(" in text):  # np() is np with its defaults
        entry(kind, spec.name)
        name = ALIASES.get(kind, {}).get(spec.name, spec.name)
        return lambda own: known(kind, own).names[0] == name
    canonical = str(known(kind, text).short)
    return lambda own: own == canonical
