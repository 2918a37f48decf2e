"""Conduct an experiment: part by part, each kept as soon as it is complete; then its table, figures and findings.

`<out>/<name>.csv` has all rows; `<name>.json` says what they are and which parts are complete. Both are written whole
after each part, so that an experiment which was interrupted goes on, and one which is complete is only drawn again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from nodepert.errors import UserError
from nodepert.experiments.drawing import saved
from nodepert.experiments.experiment import Experiment, Finding, Part, Row, build, of_part, options
from nodepert.experiments.record import FORMAT, VERSION, read_record, read_rows
from nodepert.studies.store.records import write_whole, writing
from nodepert.studies.store.run_folder import versions
from nodepert.studies.store.tables import to_csv
from nodepert.training.compile_cache import keep_programs
from nodepert.training.devices import device_name

# Figures are 7 inches wide; in a column of 9 cm, half of that, letters of 12 points are as large as a footnote's.
TYPE: Any = {"font.size": 12, "axes.titlesize": 12, "legend.fontsize": 11}


class Conducted(NamedTuple):
    """What came of an experiment."""

    rows: list[Row]
    findings: list[Finding]
    table: Path
    figure: Path


def conduct(
    name: str,
    scale: Any = "small",
    *,
    out: str | Path,
    data_dir: str | Path | None = None,
    on_part: Callable[[int, int, Part, float | None], None] = lambda *_: None,
    **given: Any,
) -> Conducted:
    """Compute the parts that are not there yet, write table, figures (PNG and SVG) and findings to `out`.

    `on_part(i, of, part, seconds)` is called after each part; `seconds` is None for one that was there.
    Raises UserError for options that are wrong, a place that cannot be written, is in use, or holds the same experiment
    with other options.
    """
    chosen = json.loads(json.dumps(options(name, scale) | given))
    experiment = build(name, scale, data_dir, **given)
    place = Path(out)
    with writing(place):
        place.mkdir(parents=True, exist_ok=True)
        lock = FileLock(place / f".{name}.lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise UserError(f"another process is at {name} in {place}; wait for it, or give another --out") from None
    try:
        return _conducted(name, experiment, {"experiment": name, "scale": scale, "options": chosen}, place, on_part)
    finally:
        lock.release()


def _conducted(name: str, experiment: Experiment, asked: dict[str, Any], place: Path, on_part: Any) -> Conducted:
    table = place / f"{name}.csv"
    record = _opened(place / f"{name}.json", asked)
    kept = read_rows(table) if record["done"] else []
    found = {i: [row for row in kept if _of(part, row)] for i, part in enumerate(experiment.parts)}
    keep_programs()
    for i, part in enumerate(experiment.parts):
        here = part in record["done"] and bool(found[i])
        if not here:
            start = time.perf_counter()
            found[i] = list(of_part(experiment, part))
            record["seconds"] += time.perf_counter() - start
            record["done"] = [*[p for p in record["done"] if p != part], part]
            write_whole(table, to_csv([row for rows in found.values() for row in rows]))
            write_whole(place / f"{name}.json", _json(record))
        on_part(i + 1, len(experiment.parts), part, None if here else time.perf_counter() - start)
    rows = [row for rows in found.values() for row in rows]
    findings = experiment.findings(rows)
    record |= {"findings": [finding._asdict() for finding in findings], "picture": experiment.picture._asdict()}
    write_whole(place / f"{name}.json", _json(record))
    return Conducted(rows, findings, table, drawn(experiment, rows, place / name))


def drawn(experiment: Experiment, rows: Sequence[Row], stem: Path) -> Path:
    """Draw the rows to STEM.png and STEM.svg."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "nodepert"} | TYPE):
        figure = Figure(figsize=experiment.size, layout="constrained")
        experiment.draw(figure, rows)
        saved(figure, stem.with_name(f"{stem.name}.svg"))
        return saved(figure, stem.with_name(f"{stem.name}.png"))


def _opened(path: Path, asked: dict[str, Any]) -> dict[str, Any]:
    """The record of this experiment, the one that is there or a new one."""
    new = {"format": FORMAT, "version": VERSION, **asked, "done": [], "seconds": 0.0}
    if not path.exists():
        return new | {"device": device_name(), "versions": versions()}
    record = read_record(path)
    for key, value in asked.items():
        if record.get(key) != value:
            raise UserError(f"{path} has {record.get('experiment')} with other options ({_differing(record, asked)}); "
                            "give another --out, or move it away")  # fmt: skip
    if not (isinstance(record.get("done"), list) and isinstance(record.get("seconds"), float)):
        raise UserError(f"{path} is damaged; move it away")
    return record


def _differing(record: dict[str, Any], asked: dict[str, Any]) -> str:
    if record.get("scale") != asked["scale"]:
        return f"scale {record.get('scale')}, not {asked['scale']}"
    old, new = record.get("options"), asked["options"]
    old = old if isinstance(old, dict) else {}
    return ", ".join(f"{k}: {old.get(k, 'none')}, not {new.get(k, 'none')}" for k in sorted({*old, *new})
                     if old.get(k) != new.get(k))  # fmt: skip


def _of(part: Part, row: Row) -> bool:
    return all(row.get(key) == value for key, value in part.items())


def _json(record: dict[str, Any]) -> str:
    return json.dumps(record, indent=1) + "\n"
