"""Execute an experiment: part by part, each saved as soon as it is complete; then its table, figure and findings.

`<out>/<name>.csv` has all rows; `<name>.json` describes them and lists the complete parts. Both are written atomically
after each part, so that an interrupted experiment resumes, and a complete one is only drawn again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from nodepert.errors import UserError
from nodepert.experiments.drawing import save_figure
from nodepert.experiments.experiment import Experiment, Finding, Part, Row, build, chosen_options, of_part
from nodepert.experiments.record import read_record, read_rows, write_record
from nodepert.studies.output import guarded
from nodepert.studies.store.lock import Lock
from nodepert.studies.store.records import write_whole, writing
from nodepert.studies.store.run_folder import versions
from nodepert.studies.store.tables import to_csv
from nodepert.training import devices
from nodepert.training.compile_cache import keep_programs
from nodepert.training.configuration import check_settings, settings

# Figures are 7 inches wide; in a column of 9 cm, half of that, letters of 12 points are as large as a footnote's.
TYPE: Any = {"font.size": 12, "axes.titlesize": 12, "legend.fontsize": 11}


class Outcome(NamedTuple):
    """What an experiment found, and where it is saved."""

    rows: list[Row]
    findings: list[Finding]
    table: Path
    figure: Path


def execute(
    name: str,
    scale: Any = "small",
    *,
    out: str | Path,
    data_dir: str | Path | None = None,
    on_part: Callable[[int, int, Part, float | None], None] = lambda *_: None,
    **given: Any,
) -> Outcome:
    """Compute the parts that are missing; write table, figure (PNG and SVG) and findings to the directory `out`.

    `on_part(i, of, part, seconds)` is called after each part; `seconds` is None for a part that was saved before.
    Raises UserError for wrong options, and for a directory that cannot be written, is in use by another process, or
    holds the same experiment with other options.
    """
    experiment = build(name, scale, data_dir, **given)
    devices.start()
    chosen = json.loads(json.dumps(chosen_options(name, scale, given)))
    with guarded(), locked(Path(out), name) as check_lock:
        stem = Path(out) / name
        record = _record(stem.with_name(f"{name}.json"), {"experiment": name, "scale": scale, "options": chosen})

        def save(rows: Sequence[Row] | None = None) -> None:
            check_lock()
            if rows:
                write_whole(stem.with_name(f"{name}.csv"), to_csv(rows))
            write_record(stem.with_name(f"{name}.json"), record)

        rows = _compute(experiment, stem.with_name(f"{name}.csv"), record, save, on_part)
        findings = experiment.findings(rows)
        record |= {"findings": [finding._asdict() for finding in findings], "picture": experiment.picture._asdict()}
        save()
        return Outcome(rows, findings, stem.with_name(f"{name}.csv"), drawn(experiment, rows, stem))


def _compute(experiment: Experiment, table: Path, record: dict[str, Any], save: Any, on_part: Any) -> list[Row]:
    """All rows: those of complete parts as saved, the others computed."""
    saved = read_rows(table) if record["done"] else []
    found = [[row for row in saved if part.items() <= row.items()] for part in experiment.parts]
    keep_programs()
    for i, part in enumerate(experiment.parts):
        seconds = None
        if not (part in record["done"] and found[i]):
            start = time.perf_counter()
            found[i] = list(of_part(experiment, part))
            seconds = time.perf_counter() - start
            record["seconds"] += seconds
            record["done"] = [*[p for p in record["done"] if p != part], part]
            save([row for rows in found for row in rows])
        on_part(i + 1, len(experiment.parts), part, seconds)
    return [row for rows in found for row in rows]


@contextmanager
def locked(folder: Path, name: str) -> Iterator[Callable[[], None]]:
    """Hold the lock of an experiment in a directory; gives a check that it is still held. Raises UserError."""
    occupied = UserError(f"{name} in {folder} is locked by another process; wait for it, or give another --out")

    def check() -> None:
        if not lock.held():
            raise occupied

    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = Lock(folder / f".{name}.owner")
        if not lock.acquired(patient=True):
            raise occupied
    try:
        yield check
    finally:
        lock.release()


def drawn(experiment: Experiment, rows: Sequence[Row], stem: Path) -> Path:
    """Draw the rows to STEM.png and STEM.svg."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "nodepert"} | TYPE):
        figure = Figure(figsize=experiment.size, layout="constrained")
        experiment.draw(figure, rows)
        save_figure(figure, stem.with_name(f"{stem.name}.svg"))
        return save_figure(figure, stem.with_name(f"{stem.name}.png"))


def _record(path: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """The saved record of this experiment, or a new one. Raises UserError for one with other options."""
    if not path.exists():
        return {**asked, "done": [], "seconds": 0.0, "device": devices.device_name(), "versions": versions(),
                "settings": settings()}  # fmt: skip
    record = read_record(path)
    if differing := _differing(record, asked):
        raise UserError(f"{path} has {record.get('experiment')} with other options ({differing}); give another --out, "
                        "or move it away")  # fmt: skip
    if not (isinstance(record.get("done"), list) and isinstance(record.get("seconds"), float)):
        raise UserError(f"{path} is corrupt; move it away")
    if record["done"]:
        check_settings(str(path), record, "--out")
    return record | {"settings": settings()} if not record["done"] else record


def _differing(record: dict[str, Any], asked: dict[str, Any]) -> str:
    """How two experiments differ: by name or scale, or in their options."""
    pairs = [(key, record.get(key), asked[key]) for key in ("experiment", "scale")]
    old, new = record.get("options"), asked["options"]
    old = old if isinstance(old, dict) else {}
    of_options = [(f"{key}:", old.get(key, "none"), new.get(key, "none")) for key in sorted({*old, *new})]
    names = [f"{key} {a}, not {b}" for key, a, b in pairs if a != b]
    return names[0] if names else ", ".join(f"{key} {a}, not {b}" for key, a, b in of_options if a != b)
