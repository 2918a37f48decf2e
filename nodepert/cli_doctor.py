"""The command `nodepert doctor`: what is here, what is missing, and what to type to get it."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import tyro

PACKAGES = ["jax", "jaxlib", "optax", "numpy", "orbax-checkpoint", "filelock", "matplotlib", "pandas"]
EXTRAS = {"flax": "flax", "equinox": "equinox", "slurm": "submitit", "parquet": "pyarrow", "report": "plotly",
          "tensorboard": "tensorboardX", "wandb": "wandb"}  # fmt: skip
WHAT_FOR = {"flax": "npt.from_flax", "equinox": "npt.from_equinox", "slurm": "nodepert sweep --launcher slurm",
            "parquet": "nodepert results --to FILE.parquet", "report": "nodepert report",
            "tensorboard": "--log tensorboard", "wandb": "--log wandb"}  # fmt: skip


class Finding(NamedTuple):
    """One line: what was looked at, whether it is well, what was found, and what to type where it is not."""

    what: str
    well: bool
    found: str
    do: str = ""


def doctor(out: Path = Path("runs"), data_dir: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None) -> None:
    """Say what is on this machine: versions, devices, data, caches, Slurm; what is missing, and what to type for it.

    Example: nodepert doctor --data-dir ~/data

    Args:
        out: Folder of results that is looked at.
        data_dir: Folder that holds the data files; else NODEPERT_DATA_DIR, then the user's cache.
    """
    from rich.markup import escape
    from rich.table import Table

    from nodepert import display

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    missing = []
    for finding in findings(out, data_dir):
        mark = "[green]ok[/green]" if finding.well else "[yellow]--[/yellow]"
        table.add_row(escape(finding.what), mark, escape(finding.found))
        missing += [finding] if finding.do else []
    display.console.print(table)
    if missing:
        print("\nwhat is missing, if you want it:")
    for finding in missing:
        print(f"  {finding.what}: {finding.do}")


def findings(out: Path, data_dir: Path | None) -> Iterator[Finding]:
    """All lines, in order."""
    yield Finding("python", True, f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    yield Finding("nodepert", True, _version("nodepert") or "not installed as a package")
    yield Finding("packages", True, ", ".join(f"{name} {_version(name) or 'missing'}" for name in PACKAGES))
    for extra, package in EXTRAS.items():
        version = _version(package)
        do = "" if version else f'pip install "nodepert[{extra}]"  (for {WHAT_FOR[extra]})'
        yield Finding(f"extra {extra}", bool(version), f"{package} {version}" if version else "not installed", do)
    yield from _devices()
    yield from _data(data_dir)
    yield _place("results", out)
    yield from _cache()
    yield _slurm()


def _devices() -> Iterator[Finding]:
    """What JAX computes on, and a GPU that it does not see."""
    import jax

    devices = jax.devices()
    kinds = ", ".join(dict.fromkeys(device.device_kind for device in devices))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("devices", True, f"{len(devices)} {jax.default_backend()} ({kinds}); {cores} CPU cores")
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
    from nodepert.cache import keep_programs

    if place := keep_programs():
        yield _place("compiled programs", place)
    else:
        yield Finding("compiled programs", False, "not kept: turned off, or the user's cache folder cannot be written")


def _place(what: str, place: Path) -> Finding:
    """Whether a folder can be written, and how much room it has."""
    nearest = next(p for p in (place.absolute(), *place.absolute().parents) if p.exists())
    try:
        with tempfile.TemporaryFile(dir=nearest):
            free = shutil.disk_usage(nearest).free / 1e9
        return Finding(what, True, f"{place} ({free:.0f} GB free)")
    except OSError as error:
        return Finding(what, False, f"{place}: {(error.strerror or str(error)).lower()}", "choose another folder")


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
