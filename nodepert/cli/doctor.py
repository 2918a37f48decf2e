"""The command `nodepert doctor`: what is installed, what is missing, and how to get it."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import tyro

from nodepert.cli.options import Flat
from nodepert.cli.output import Output
from nodepert.errors import UserError, reason

PACKAGES = ["jax", "jaxlib", "optax", "numpy", "tensorstore", "filelock", "matplotlib", "pandas"]
EXTRAS = {"flax": "flax", "equinox": "equinox", "slurm": "submitit", "parquet": "pyarrow", "report": "plotly",
          "tensorboard": "tensorboardX", "wandb": "wandb"}  # fmt: skip
WHAT_FOR = {"flax": "npt.from_flax", "equinox": "npt.from_equinox", "slurm": "nodepert sweep --launcher slurm",
            "parquet": "nodepert results --to FILE.parquet", "report": "nodepert report",
            "tensorboard": "--log tensorboard", "wandb": "--log wandb"}  # fmt: skip
REINSTALL = "pip install --force-reinstall nodepert"


class Item(NamedTuple):
    """A line of the report."""

    name: str
    ok: bool
    text: str
    fix: str = ""  # what to do if it is not ok
    required: bool = False  # whether NodePert cannot work without it


def doctor(
    out: Path = Path("runs"),
    data_dir: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None,
    output: Flat[Output] = Output(),
) -> None:
    """Report versions, devices, data, caches and Slurm on this machine; what is missing, and how to get it.

    Exits with status 1 if something required is missing: a package, a device for JAX, the data directory of the
    options, a writable directory of results.

    Example: nodepert doctor --data-dir ~/data

    Args:
        out: Directory of all results.
        data_dir: Directory of the data files. Default: NODEPERT_DATA_DIR, then the user's cache.
        output: What is printed. With --quiet what is missing alone.
    """
    found = list(items(out, data_dir))
    output.show(lambda: print_items(found, output.quiet), lambda: [item._asdict() for item in found])
    if any(item.required and item.fix and not item.ok for item in found):
        sys.exit(1)


def print_items(found: Sequence[Item], brief: bool) -> None:
    """Print a table of all, unless `brief`, and how to get what is missing."""
    from rich.markup import escape
    from rich.padding import Padding
    from rich.table import Table

    from nodepert.cli.display import console

    table = Table(box=None, show_header=False, pad_edge=False)
    for overflow in ("ellipsis", "ellipsis", "fold"):
        table.add_column(no_wrap=overflow != "fold", overflow=overflow)
    for item in found:
        bad = "[red]missing[/red]" if item.required else "[yellow]--[/yellow]"
        table.add_row(escape(item.name), "[green]ok[/green]" if item.ok else bad, escape(item.text))
    if not brief:
        console.print(table)
    fixable = [item for item in found if item.fix and not item.ok]
    for required, title in ((True, "required:"), (False, "optional:")):
        missing = [item for item in fixable if item.required == required]
        if missing:
            print(f"\n{title}")
        for item in missing:
            console.print(Padding(escape(f"{item.name}: {item.fix}"), (0, 0, 0, 2)))


def items(out: Path, data_dir: Path | None) -> Iterator[Item]:
    """All lines in order."""
    yield Item("python", True, f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    yield Item("nodepert", True, _version("nodepert") or "not installed as a package")
    versions = {name: _version(name) for name in PACKAGES}
    yield Item("packages", all(versions.values()), ", ".join(f"{k} {v or 'missing'}" for k, v in versions.items()),
                  REINSTALL, required=True)  # fmt: skip
    for extra, package in EXTRAS.items():
        version = _version(package)
        fix = "" if version else f'pip install "nodepert[{extra}]"  (for {WHAT_FOR[extra]})'
        yield Item(f"extra {extra}", bool(version), f"{package} {version}" if version else "not installed", fix)
    yield from _guarded("devices", _devices, REINSTALL)
    yield from _guarded("data", lambda: _data(data_dir), "use a --data-dir (or NODEPERT_DATA_DIR) that exists, or none")
    yield _directory("results", out, "choose another --out", required=True)
    yield from _guarded("compiled programs", _cache, REINSTALL)
    yield _slurm()


def _guarded(name: str, find: Callable[[], Iterator[Item]], fix: str) -> Iterator[Item]:
    """The items of `find`, or an item with its error."""
    try:
        yield from find()
    except Exception as error:  # whatever a broken installation raises
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        yield Item(name, False, " ".join(f"{kind}{error}".split()), fix, required=True)


def _devices() -> Iterator[Item]:
    """The devices of JAX, and a GPU that it does not use."""
    import jax

    from nodepert.training import devices

    if trouble := devices.trouble():
        yield Item("devices", False, *trouble, required=True)
    else:
        kinds = ", ".join(dict.fromkeys(device.device_kind for device in jax.devices()))
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        text = f"{jax.device_count()} {jax.default_backend()} ({kinds}); {cores} CPU core{'s' * (cores > 1)}"
        yield Item("devices", True, text)
        if jax.default_backend() != "cpu":
            return
    if list(Path("/dev").glob("nvidia[0-9]*")):
        fix = 'pip install "nodepert[cuda12]" or "nodepert[cuda13]", by the driver\'s version (nvidia-smi)'
        yield Item("GPU", False, "found, but JAX does not see it", fix)
    else:
        yield Item("GPU", False, "none; everything works on the CPU")


def _data(data_dir: Path | None) -> Iterator[Item]:
    from nodepert.data import status

    found: dict[bool, list[str]] = {True: [], False: []}
    for name, here, _ in status(data_dir and str(data_dir)):
        found[bool(here)].append(name)
    yield Item("data here", bool(found[True]), ", ".join(found[True]))
    if missing := found[False]:
        fix = f"nodepert data fetch {' '.join(missing)}, or --data-dir DIR (NODEPERT_DATA_DIR) with the files"
        yield Item("data not here", False, ", ".join(missing), fix)


def _cache() -> Iterator[Item]:
    """The directory of compiled programs."""
    from nodepert.training.compile_cache import keep_programs

    if path := keep_programs():
        yield _directory("compiled programs", path, "set JAX_COMPILATION_CACHE_DIR to another directory")
    else:
        yield Item("compiled programs", False, "not saved: turned off, or the user's cache directory cannot be written")


def _directory(name: str, path: Path, fix: str, required: bool = False) -> Item:
    """Whether a directory can be written, and its free space."""
    nearest = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    try:
        with tempfile.TemporaryFile(dir=nearest):
            free = shutil.disk_usage(nearest).free / 1e9
        return Item(name, True, f"{path} ({free:.0f} GB free)")
    except OSError as error:
        return Item(name, False, f"{path}: {reason(error)}", fix, required)


def _slurm() -> Item:
    if not shutil.which("sbatch"):
        return Item("Slurm", False, "no sbatch; sweeps run in worker processes (nodepert sweep GRID)")
    try:
        done: Any = subprocess.run(["scontrol", "ping"], capture_output=True, text=True, timeout=10)
        ok = done.returncode == 0 and "DOWN" not in done.stdout
    except (OSError, subprocess.TimeoutExpired):
        ok = False
    if ok:
        return Item("Slurm", True, "answers; nodepert sweep GRID --launcher slurm")
    return Item("Slurm", False, "sbatch is installed, but the controller does not answer", "see scontrol ping")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
