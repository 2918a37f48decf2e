"""Downloads: from the first mirror that responds, verified by checksum, and atomic per data set."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import platformdirs

from nodepert.data.dataset import DataError
from nodepert.data.stored import all_stored
from nodepert.errors import UserError, reason

TIMEOUT = (5, 30)  # seconds to connect, and between two packets; without a network it fails fast


def cache_folder() -> Path:
    """The user's cache folder, with one folder per downloaded data set; it may not exist."""
    return Path(platformdirs.user_cache_dir("nodepert"))


def fetch(name: str) -> Path:
    """Download a data set into the cache, unless an intact copy is there, and return its folder.

    Raises UserError for an unknown data set, and DataError for a failed download, which leaves the cache unchanged.
    """
    sources = {name: of.downloads for name, of in all_stored().items() if of.mirrors}
    if name not in sources:
        raise UserError(f"'{name}' is not a data set that can be downloaded; these are: {', '.join(sources)}")
    cache, files = cache_folder(), sources[name]
    folder = cache / name
    if all(_intact(folder / file, md5) for file, md5 in files.items()):
        return folder
    try:
        new = not cache.exists()
        cache.mkdir(parents=True, exist_ok=True)
        try:
            with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=cache) as staging:
                whole = Path(staging, name)
                whole.mkdir()
                _download(name, whole)
                try:
                    whole.rename(folder)  # atomic: no other process sees an incomplete data set
                except OSError:  # the folder exists: corrupt, or written by another process
                    for file in files:
                        os.replace(whole / file, folder / file)
        finally:
            if new:
                with suppress(OSError):  # it is not empty
                    cache.rmdir()
    except OSError as error:
        raise DataError(f"cannot download {name}: cannot write to {cache}: {reason(error)}") from error
    return folder


def _intact(path: Path, md5: str) -> bool:
    import pooch

    return path.is_file() and pooch.file_hash(str(path), alg="md5") == md5


def _download(name: str, folder: Path) -> None:
    """Download all files of a data set into a folder; a file from one mirror is not requested from the next."""
    source, reasons = all_stored()[name], []
    for mirror in source.mirrors:
        failed = next((why for file, md5 in source.downloads.items()
                       if (why := _retrieve(mirror, file, md5, folder))), "")  # fmt: skip
        if not failed:
            return
        reasons.append(failed)
    raise DataError(f"cannot download {name}: {'; '.join(reasons)}")


def _retrieve(mirror: str, file: str, md5: str, folder: Path) -> str:
    """Download one file; returns the reason of a failure, or ""."""
    import pooch
    from requests import exceptions

    # Without transfer encoding the progress bar is correct, and a .gz file arrives unchanged.
    downloader: Any = pooch.HTTPDownloader(
        progressbar=bool(sys.stderr and sys.stderr.isatty()),
        chunk_size=1 << 16,
        timeout=TIMEOUT,
        headers={"Accept-Encoding": "identity"},
    )
    pooch.get_logger().setLevel(logging.ERROR)
    host = urlsplit(mirror).hostname
    try:
        pooch.retrieve(mirror + file, known_hash=f"md5:{md5}", fname=file, path=folder, downloader=downloader)
    except exceptions.HTTPError as error:
        return f"{host} returned {'an error' if error.response is None else error.response.status_code} for {file}"
    except (exceptions.ChunkedEncodingError, exceptions.ReadTimeout):
        return f"the connection to {host} was lost"
    except exceptions.RequestException:
        return f"no connection to {host}"
    except ValueError:
        return f"{file} from {host} has a wrong checksum"
    return ""
