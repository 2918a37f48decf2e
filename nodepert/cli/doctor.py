"""The command `nodepert doctor`: what is here, what is missing, and what to type to get it."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import tyro

from nodepert.errors import UserError

PACKAGES = ["jax", "jaxlib", "optax", "numpy", "orbax-checkpoint", "filelock", "matplotlib", "pandas"]
EXTRAS = {"flax": "flax", "equinox": "equinox", "slurm": "submitit", "parquet": "pyarrow", "report": "plotly",
          "tensorboard": "tensorboardX", "wandb": "wandb"}  # fmt: skip
WHAT_FOR = {"flax": "npt.from_flax", "equinox": "npt.from_equinox", "slurm": "nodepert sweep --launcher slurm",
            "parquet": "nodepert results --to FILE.parquet", "report": "nodepert report",
            "tensorboard": "--log tensorboard", "wandb": "--log wandb"}  # fmt: skip
AGAIN = "pip install --force-reinstall nodepert"


class Finding(NamedTuple):
    """One line: what was looked at, whether it is well, what was found, what to type where it is not, and whether that
    is needed for anything to work."""

    what: str
    well: bool
    found: str
    do: str = ""
    needed: bool = False


def doctor(out: Path = Path("runs"), data_dir: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None) -> None:
    """Say what is on this machine: versions, devices, data, caches, Slurm; what is missing, and what to type for it.

    Ends with status 1 where something is missing that is needed: a package, a device that JAX can start on, the folder
    of data that was given, a folder of results that can be written.

    Example: nodepert doctor --data-dir ~/data

    Args:
        out: Folder of results that is looked at.
        data_dir: Folder that holds the data files; else NODEPERT_DATA_DIR, then the user's cache.
    """
    from rich.markup import escape
    from rich.padding import Padding
    from rich.table import Table

    from nodepert.cli.display import console

    found = list(findings(out, data_dir))
    table = Table(box=None, show_header=False, pad_edge=False)
    for overflow in ("ellipsis", "ellipsis", "fold"):
        table.add_column(no_wrap=overflow != "fold", overflow=overflow)
    for finding in found:
        bad = "[red]NO[/red]" if finding.needed else "[yellow]--[/yellow]"
        table.add_row(escape(finding.what), "[green]ok[/green]" if finding.well else bad, escape(finding.found))
    console.print(table)
    lacking = [finding for finding in found if finding.do and not finding.well]
    needed, wanted = [f for f in lacking if f.needed], [f for f in lacking if not f.needed]
    for title, missing in (("what is missing and needed:", needed), ("what is missing, if you want it:", wanted)):
        if missing:
            print(f"\n{title}")
        for finding in missing:
            console.print(Padding(escape(f"{finding.what}: {finding.do}"), (0, 0, 0, 2)))
    if needed:
        sys.exit(1)


def findings(out: Path, data_dir: Path | None) -> Iterator[Finding]:
    """All lines, in order."""
    yield Finding("python", True, f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    yield Finding("nodepert", True, _version("nodepert") or "not installed as a package")
    versions = {name: _version(name) for name in PACKAGES}
    yield Finding("packages", all(versions.values()), ", ".join(f"{k} {v or 'missing'}" for k, v in versions.items()),
                  AGAIN, needed=True)  # fmt: skip
    for extra, package in EXTRAS.items():
        version = _version(package)
        do = "" if version else f'pip install "nodepert[{extra}]"  (for {WHAT_FOR[extra]})'
        yield Finding(f"extra {extra}", bool(version), f"{package} {version}" if version else "not installed", do)
    yield from _looked("devices", _devices, AGAIN)
    yield from _looked(
        "data", lambda: _data(data_dir), "give a --data-dir (or NODEPERT_DATA_DIR) that is there, or none"
    )
    yield _place("results", out, "choose another --out", needed=True)
    yield from _looked("compiled programs", _cache, AGAIN)
    yield _slurm()


def _looked(what: str, look: Callable[[], Iterator[Finding]], do: str) -> Iterator[Finding]:
    """What there is to be seen; where looking fails a line that says why, so that all else is still told."""
    try:
        yield from look()
    except Exception as error:  # whatever a broken installation raises
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        yield Finding(what, False, " ".join(f"{kind}{error}".split()), do, needed=True)


def _devices() -> Iterator[Finding]:
    """What JAX computes on, and a GPU that it does not see."""
    import jax

    from nodepert.training import devices

    if trouble := devices.trouble():
        yield Finding("devices", False, *trouble, needed=True)
    else:
        kinds = ", ".join(dict.fromkeys(device.device_kind for device in jax.devices()))
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        found = f"{jax.device_count()} {jax.default_backend()} ({kinds}); {cores} CPU core{'s' * (cores > 1)}"
        yield Finding("devices", True, found)
        if jax.default_backend() != "cpu":
            return
    if list(Path("/dev").glob("nvidia[0-9]*")):
        do = 'pip install "nodepert[cuda12]" or "nodepert[cuda13]", by the driver\'s version (nvidia-smi)'
        yield Finding("GPU", False, "there is one, but JAX does not see it", do)
    else:
        yield Finding("GPU", False, "none here; everything works on the CPU")


def _data(data_dir: Path | None) -> Iterator[Finding]:
    from nodepert.data import status

    here, away = [], []
    for name, found, _ in status(data_dir and str(data_dir)):
        (here if found else away).append(name)
    yield Finding("data here", bool(here), ", ".join(here))
    if away:
        do = f"nodepert data fetch {' '.join(away)}, or --data-dir DIR (NODEPERT_DATA_DIR) where the files are"
        yield Finding("data not here", False, ", ".join(away), do)


def _cache() -> Iterator[Finding]:
    """Where compiled programs are kept."""
    from nodepert.training.compile_cache import keep_programs

    if place := keep_programs():
        yield _place("compiled programs", place, "set JAX_COMPILATION_CACHE_DIR to another folder")
    else:
        yield Finding("compiled programs", False, "not kept: turned off, or the user's cache folder cannot be written")


def _place(what: str, place: Path, do: str, needed: bool = False) -> Finding:
    """Whether a folder can be written, and how much room it has."""
    nearest = next(p for p in (place.absolute(), *place.absolute().parents) if p.exists())
    try:
        with tempfile.TemporaryFile(dir=nearest):
            free = shutil.disk_usage(nearest).free / 1e9
        return Finding(what, True, f"{place} ({free:.0f} GB free)")
    except OSError as error:
        return Finding(what, False, f"{place}: {(error.strerror or str(error)).lower()}", do, needed)


def _slurm() -> Finding:
    if not shutil.which("sbatch"):
        return Finding("Slurm", False, "no sbatch here; sweeps run in worker processes (nodepert sweep GRID)")
    try:
        done: Any = subprocess.run(["scontrol", "ping"], capture_output=True, text=True, timeout=10)
        well = done.returncode == 0 and "DOWN" not in done.stdout
    except (OSError, subprocess.TimeoutExpired):
        well = False
    if well:
        return Finding("Slurm", True, "answers; nodepert sweep GRID --launcher slurm")
    return Finding("Slurm", False, "sbatch is here, but the controller does not answer", "scontrol ping says why")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
