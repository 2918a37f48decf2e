"""Results of saved runs: one value per run (`saved_runs`), and one tidy table for pandas (`load_results`)."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from nodepert.errors import UserError, did_you_mean, reason
from nodepert.registry import full, short
from nodepert.registry.spec import BY_NODE, Spec, show
from nodepert.studies.run import LATER, SPECS, Run, from_config
from nodepert.studies.store.run_folder import RunFolder, checked_name
from nodepert.training.metrics import Row, columns_of, measured

if TYPE_CHECKING:
    from pandas import DataFrame

OPTIONS = (*SPECS, "lr", "wd", "batchsize", "epochs", "seed", *LATER)  # in the order of columns, and of sorting
assert set(OPTIONS) == {f.name for f in fields(Run)}
LONGEST = 500  # characters of a warning: a corrupt file may hold anything
log = logging.getLogger("nodepert")


class SavedRun(NamedTuple):
    """A run as its folder has it."""

    study: str
    id: str
    status: str
    reason: str  # why it failed
    options: dict[str, Any]  # {option: value}, specs in their short form
    arguments: dict[str, Any]  # {"network.width": 500, ...}, defaults written out
    rows: list[Row]
    changed: float  # seconds since the epoch
    sources: dict[str, Any]  # versions, device and data, as recorded


def load_results(name: str | None = None, out: str | Path = "runs", *, last: bool = False) -> DataFrame:
    """The rows of every run of a study as one tidy pandas table.

    A row per run and epoch, sorted by the runs' options. Columns: study, id, status; the options, specs without the
    arguments that equal their defaults; arguments such as `network.width` in which the runs differ; epoch and the
    metrics as in metrics.csv. A run without rows has one row without metrics. Corrupt files are left out, with a
    warning of the logger "nodepert".

    Args:
        name: The study; by default all studies in `out`.
        out: Folder of all results.
        last: Whether to keep only the last epoch of each run.

    Returns:
        A `pandas.DataFrame`.

    Raises:
        UserError: For a study that does not exist, with the names of those that do.

    Examples:
        >>> npt.load_results("compare").groupby("rule").test_acc.max()  # doctest: +SKIP
    """
    return table(saved_runs(None if name is None else [name], out), last)


def studies(out: str | Path = "runs") -> list[str]:
    """The names of all studies in a folder: those folders that hold runs. Raises UserError where it cannot be read."""
    try:
        return sorted(p.name for p in Path(out).iterdir() if p.is_dir() and _is_name(p.name) and run_folders(p))
    except OSError as error:
        raise UserError(f"no runs in {out}: {reason(error)}; "
                        "nodepert train puts them into OUT/NAME/ID/") from None  # fmt: skip


def saved_runs(names: Iterable[str] | None = None, out: str | Path = "runs") -> list[SavedRun]:
    """The runs of these studies (or of all), sorted by study, then options. Corrupt ones are left out, with a warning.

    Raises UserError, with the studies that exist, for one that does not.
    """
    places = {name: Path(out) / checked_name(name) for name in (studies(out) if names is None else names)}
    found: list[SavedRun] = []
    for study, place in places.items():
        folders = run_folders(place)
        if not folders:
            there = studies(out)
            hint = did_you_mean(study, there)
            raise UserError(f"no study '{study}' in {out}{hint}; there are: {', '.join(there) or 'none'}")
        for path in folders:
            try:
                found.append(_read(study, path))
            except UserError as error:
                _warn(f"left out: {error}")
    return sorted(found, key=lambda run: (run.study, *(rank(name, run.options[name]) for name in OPTIONS), run.id))


def table(runs: Sequence[SavedRun], last: bool = False) -> DataFrame:
    """The table of `load_results`, of these runs."""
    import pandas as pd

    rows = [(run, row) for run in runs for row in (run.rows[-1:] if last else run.rows) or [{}]]
    columns = {key: pd.Series([getattr(run, key) for run, _ in rows], dtype="str") for key in ("study", "id", "status")}
    for name in options_of(runs):
        kind = {"SpecOrObject": "str", "float": "float64", "int": "int64"}[_TYPES[name]]
        columns[name] = pd.Series([run.options[name] for run, _ in rows], dtype=kind)
    for key in differing(runs):
        columns[key] = _column([run.arguments.get(key) for run, _ in rows])
    for name in ("epoch", *columns_of([row for _, row in rows if row] or [measured()])):
        values = [row.get(name) for _, row in rows]
        columns[name] = pd.Series(values, dtype="Int64" if name == "epoch" else "float64")
    return pd.DataFrame(columns)


def options_of(runs: Sequence[SavedRun]) -> list[str]:
    """The options that these runs have: of `LATER`, those that some run sets."""
    return [name for name in OPTIONS if name not in LATER or any(run.options[name] != LATER[name] for run in runs)]


def differing(runs: Sequence[SavedRun]) -> list[str]:
    """The arguments of specs ("network.width") in which those of these runs that have them differ."""
    values: dict[str, set[str]] = {}
    for run in runs:
        for key, value in run.arguments.items():
            values.setdefault(key, set()).add(show(value))
    keys = [key for key, found in values.items() if len(found) > 1]
    return sorted(keys, key=lambda key: SPECS.index(key.partition(".")[0]))


class Known(NamedTuple):
    """What a spec says."""

    short: Spec
    names: tuple[str, ...]  # its own, and of those that it wraps
    arguments: dict[str, Any]  # defaults written out


@functools.lru_cache(10_000)  # runs of a study share most of their specs
def known(kind: str, text: str) -> Known:
    """What a spec says; of one that wraps another, as decorrelate(np), the inner one's arguments as well."""
    spec = full(kind, text)
    inner = [*spec.args, *(value for key, value in spec.kwargs if (spec.name, key) == (BY_NODE, "*"))]
    around = [known(kind, str(one)) for one in inner]
    own = {key: str(short(kind, value)) if isinstance(value, Spec) else value for key, value in spec.kwargs}
    arguments = {key: value for one in around for key, value in one.arguments.items()}
    arguments |= {key: value for key, value in own.items() if (spec.name, key) != (BY_NODE, "*")}
    return Known(short(kind, spec), (spec.name, *(name for one in around for name in one.names)), arguments)


def rank(name: str, value: Any) -> tuple:
    """What values are sorted by: numbers by size, words by letters, specs by name, then by their arguments."""
    if name in SPECS and isinstance(value, str):
        spec = known(name, value)
        return (spec.names, [rank("", v) for v in spec.arguments.values()], value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (0, math.inf if value != value else value, "")
    return (1, 0, show(value))


def one_line(text: str) -> str:
    """Any text as one short line that a terminal can show."""
    line = " ".join("".join(c if c.isprintable() or c.isspace() else "?" for c in text[: 2 * LONGEST]).split())
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 3]}..."


_TYPES = {f.name: str(f.type) for f in fields(Run)}


def _read(study: str, path: Path) -> SavedRun:
    """The run in a folder. Raises UserError, naming the file, where it is corrupt."""
    config = path / "config.json"
    folder = RunFolder.read(path)
    run = from_config(folder.record["config"])
    options = {name: getattr(run, name) for name in OPTIONS}
    status, reason = folder.status.strip(), folder.record.get("reason")
    texts = (path.name, status, *(options[name] for name in SPECS))
    if not 0 < len(status) <= LONGEST or not all(text.isprintable() for text in texts):
        raise UserError(f"{config} has a status or options that cannot be printed; it is corrupt")
    if large := [name for name in OPTIONS if _TYPES[name] == "int" and abs(options[name]) >= 2**63]:
        raise UserError(f"{config}: {large[0]} is too large")
    arguments = {f"{kind}.{k}": v for kind in SPECS for k, v in known(kind, options[kind]).arguments.items()}
    rows = folder.rows()
    if not rows and (path / "metrics.csv").exists():
        _warn(f"{path / 'metrics.csv'} is not a readable table; its run is listed without metrics")
    why = one_line(reason) if isinstance(reason, str) else ""
    sources = {key: folder.record.get(key) for key in ("versions", "device", "data")}
    return SavedRun(study, path.name, status, why, options, arguments, rows, _changed(path), sources)


def _changed(path: Path) -> float:
    times = [0.0]
    for file in (path / "config.json", path / "metrics.csv"):
        with suppress(OSError):
            times.append(file.stat().st_mtime)
    return max(times)


def run_folders(place: Path) -> list[Path]:
    """The runs' folders in a study's; what has no config.json is none."""
    try:
        return sorted(path for path in place.iterdir() if (path / "config.json").is_file())
    except OSError:
        return []


def _is_name(name: str) -> bool:
    try:
        return checked_name(name) == name
    except UserError:
        return False


def _column(values: Sequence[Any]) -> Any:
    """A column of one type, empty where there is no value."""
    import pandas as pd

    types = {type(value) for value in values if value is not None}
    if types == {bool}:
        return pd.Series(values, dtype="boolean")
    if types == {int}:
        return pd.Series(values, dtype="Int64")
    if types <= {int, float}:
        return pd.Series(values, dtype="float64")
    texts = [None if value is None else value if isinstance(value, str) else show(value) for value in values]
    return pd.Series(texts, dtype="str")


def _warn(message: str) -> None:
    log.warning("%s", one_line(message))
