"""Execute an experiment: part by part, each saved as soon as it is complete; then its table, figure and findings.

`<out>/<name>.csv` has all rows; `<name>.json` describes them and lists the complete parts. Both are written atomically
after each part, so that an interrupted experiment resumes, and a complete one is only drawn again. Within a part,
`.<name>.part.npz` has what its loops have computed: when the experiment stops, and once a minute.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from nodepert.errors import UserError
from nodepert.experiments import unfinished
from nodepert.experiments.drawing import save_figure
from nodepert.experiments.experiment import Experiment, Finding, Part, Row, build, chosen_options, of_part
from nodepert.experiments.record import read_record, read_rows, write_record
from nodepert.experiments.session import RESUMES, Session, Steps
from nodepert.studies.output import guarded
from nodepert.studies.stopping import Stopped
from nodepert.studies.store.lock import Lock
from nodepert.studies.store.records import write_whole, writing
from nodepert.studies.store.tables import to_csv
from nodepert.studies.store.versions import versions
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
    on_steps: Callable[[int, int, Part, Steps], None] = lambda *_: None,
    stop: Callable[[], bool] = lambda: False,
    **given: Any,
) -> Outcome:
    """Compute the parts that are missing; write table, figure (PNG and SVG) and findings to the directory `out`.

    Args:
        name, scale, data_dir, given: As of `build`.
        out: The directory.
        on_part: `on_part(i, of, part, seconds)` is called after each part; `seconds` is None for one saved before.
        on_steps: `on_steps(i, of, part, steps)` is called within a part, with the `Steps` of its loop.
        stop: Called after each step; if it returns True, what the part has so far is saved and `Stopped` is raised.

    Raises:
        UserError: For wrong options, and for a directory that cannot be written, is in use by another process, or
            holds the same experiment with other options.
    """
    experiment = build(name, scale, data_dir, **given)
    devices.start()
    chosen = json.loads(json.dumps(chosen_options(name, scale, given)))
    with guarded(), locked(Path(out), name) as check_lock:
        work = _Work(experiment, Path(out) / name, {"experiment": name, "scale": scale, "options": chosen}, check_lock)
        rows = work.compute(on_part, on_steps, stop)
        return Outcome(rows, work.findings(rows), work.table, drawn(experiment, rows, work.stem))


class _Work:
    """An experiment in its files."""

    def __init__(self, experiment: Experiment, stem: Path, asked: dict[str, Any], check_lock: Callable[[], None]):
        self.experiment, self.stem, self.asked, self.check_lock = experiment, stem, asked, check_lock
        self.table, self.path = (stem.with_name(f"{stem.name}.{kind}") for kind in ("csv", "json"))
        self.unfinished = stem.with_name(f".{stem.name}.part.npz")
        self.record = _record(self.path, asked)

    def save(self, rows: Sequence[Row] = ()) -> None:
        self.check_lock()
        if rows:
            write_whole(self.table, to_csv(rows))
        write_record(self.path, self.record)

    def compute(self, on_part: Any, on_steps: Any, stop: Callable[[], bool]) -> list[Row]:
        """All rows: those of complete parts as saved, the others computed."""
        record, parts = self.record, self.experiment.parts
        saved = read_rows(self.table) if record["done"] else []
        found = [[row for row in saved if part.items() <= row.items()] for part in parts]
        keep_programs()
        for i, part in enumerate(parts):
            seconds = None
            if not (part in record["done"] and found[i]):
                found[i], seconds = self.part(part, partial(on_steps, i + 1, len(parts), part), stop)
                record["seconds"] += seconds
                record["done"] = [*[p for p in record["done"] if p != part], part]
                self.save([row for rows in found for row in rows])
                self.unfinished.unlink(missing_ok=True)
            on_part(i + 1, len(parts), part, seconds)
            if seconds is not None and stop() and i + 1 < len(parts):
                raise Stopped(RESUMES)
        return [row for rows in found for row in rows]

    def part(self, part: Part, report: Callable[[Steps], None], stop: Callable[[], bool]) -> tuple[list[Row], float]:
        """The rows of a part, and the seconds that they took, with those before an interruption."""
        of = self.asked | {"settings": settings(), "part": part}
        before, loops = unfinished.read(self.unfinished, of)
        start = time.perf_counter()

        def seconds() -> float:
            return before + time.perf_counter() - start

        def save(loops: list[unfinished.Saved]) -> None:
            self.save()  # the options, first: then others are refused here
            unfinished.write(self.unfinished, of, seconds(), loops)

        with Session(loops, save, report, stop).opened():
            return list(of_part(self.experiment, part)), seconds()

    def findings(self, rows: Sequence[Row]) -> list[Finding]:
        """What the rows show, which is saved."""
        found, picture = self.experiment.findings(rows), self.experiment.picture
        self.record |= {"findings": [finding._asdict() for finding in found], "picture": picture._asdict()}
        self.save()
        return found


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
