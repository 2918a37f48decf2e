"""The search for the files of a data set, and the error if they are missing.

Searched in this order: the data folder (`data_dir` or NODEPERT_DATA_DIR), the user's cache, Debian's package of
Fashion-MNIST, a download into the cache.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from nodepert import registry
from nodepert.data import download, formats
from nodepert.data.dataset import DataError, DataNotFound
from nodepert.data.stored import Stored, all_stored

DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # the package dataset-fashion-mnist
VARIABLE = "NODEPERT_DATA_DIR"


def find(name: str, data_dir: str | None = None) -> Path:
    """The folder with a data set's files, or the authors' archive; downloaded if not found.

    Raises DataError for a data folder that does not exist and for an incomplete data set, and DataNotFound if nothing
    is found and the download fails.
    """
    asked = data_folder(data_dir)
    roots = _roots(name, asked)
    for root in roots:
        if place := _look(name, root):
            if asked and root != asked:
                _note(f"no {name} in {asked}; using {place}")
            return place
    for root in roots:
        _refuse_pickles(name, root)
    if not all_stored()[name].mirrors:
        raise DataNotFound(f"no {name} in {' or '.join(map(str, roots))}; {_remedy(name, asked)}")
    try:
        download.fetch(name)
    except DataError as error:
        where = " or ".join(map(str, roots))
        raise DataNotFound(f"no {name} in {where}; {error}; {_remedy(name, asked)}") from error
    place = _look(name, download.cache_folder())
    assert place is not None  # written by fetch
    _note(f"{f'no {name} in {asked}; ' if asked else ''}downloaded {name} to {place}")
    return place


def status(data_dir: str | None = None) -> Iterator[tuple[str, bool, str]]:
    """For each registered data set: its name, whether it is on this machine, and its path (or the reason).

    Nothing is read or downloaded. Raises DataError for a data folder that does not exist.
    """
    asked, kept = data_folder(data_dir), all_stored()
    for name in registry.names("dataset"):
        if name not in kept:
            yield name, True, "no download needed"
            continue
        try:
            place = next((place for root in _roots(name, asked) if (place := _look(name, root))), None)
            remedy = f"nodepert data fetch {name}" if kept[name].mirrors else _remedy(name, asked)
            yield name, place is not None, str(place) if place else f"not found; {remedy}"
        except DataError as error:
            yield name, False, str(error)


def data_folder(data_dir: str | None) -> Path | None:
    """The folder that the user gives, or None. Raises DataError if it does not exist."""
    given = data_dir or os.environ.get(VARIABLE)
    if not given:
        return None
    folder = Path(os.path.expanduser(given))
    if not os.path.isdir(folder):
        what = "is not a folder" if os.path.exists(folder) else "does not exist"
        raise DataError(f"the data folder {folder}{'' if data_dir else f' ({VARIABLE})'} {what}")
    return folder


def _roots(name: str, asked: Path | None) -> list[Path]:
    debian = [DEBIAN] if name == "fmnist" else []
    return [*([asked] if asked else []), download.cache_folder(), *debian]


def _look(name: str, root: Path) -> Path | None:
    """The path of a data set below one root, or None. Raises DataError for an incomplete data set."""
    layout = all_stored()[name]
    folders = _folders(layout, root)
    for folder in folders:
        missing = [file for file in layout.files if formats.existing(folder, file) is None]
        if not missing:
            return folder
        if len(missing) < len(layout.files) and not _archive(layout, folder):
            raise DataError(f"{folder}: {name} is incomplete; missing: {', '.join(missing)} (.gz or not)")
    for folder in (root, *folders):
        if archive := _archive(layout, folder):
            return archive
    return None


def _refuse_pickles(name: str, root: Path) -> None:
    layout = all_stored()[name]
    signs = [root / sign for sign in layout.pickles]
    signs += [folder / sign for folder in _folders(layout, root) for sign in (*layout.pickles, "batches.meta", "meta")]
    found = [sign for sign in signs if layout.pickles and os.path.exists(sign)]
    if found or _ends_with(root, layout.pickles):
        raise DataError(
            f"{found[0] if found else root}: the pickled version of {name} is not read, because loading a "
            f"pickle can run any code; {_remedy(name, root)}"
        )


def _folders(layout: Stored, root: Path) -> list[Path]:
    # The root itself is accepted only by its name, since MNIST must not be taken for Fashion-MNIST.
    own = [root] if _ends_with(root, layout.folders) else []
    return own + [root / folder for folder in layout.folders if os.path.isdir(root / folder)]


def _archive(layout: Stored, folder: Path) -> Path | None:
    return formats.existing(folder, layout.archive.removesuffix(".gz")) if layout.archive else None


def _ends_with(path: Path, names: tuple[str, ...]) -> bool:
    parts = Path(os.path.abspath(path)).parts
    return any(parts[-len(tail) :] == tail for tail in (Path(name).parts for name in names))


def _remedy(name: str, asked: Path | None) -> str:
    folder = asked or "DIR"
    layout = all_stored()[name]
    what = f"the binary version, {layout.archive}," if layout.pickles else layout.archive
    fetch = (f", or run 'nodepert data fetch {name}' with a connection; --dataset mnist5k needs no download"
             if layout.mirrors else "")  # fmt: skip
    return (
        f"put {what or 'its files'} into {folder}/{layout.folders[0]} and give --data-dir {folder} "
        f"(or set {VARIABLE}){fetch}"
    )


def _note(text: str) -> None:
    print(f"nodepert: note: {text}", file=sys.stderr)
