"""Downloads: from the first mirror that responds, verified by checksum, and atomic per data set."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from nodepert.data.dataset import DataError
from nodepert.data.formats import IDX_FILES
from nodepert.errors import UserError, reason

TIMEOUT = (5, 30)  # seconds to connect, and between two packets; without a network it fails fast


class Source(NamedTuple):
    mirrors: tuple[str, ...]  # tried in this order
    files: dict[str, str]  # file name -> md5


def _idx(*md5: str) -> dict[str, str]:
    return dict(zip((f"{file}.gz" for file in IDX_FILES), md5, strict=True))


SOURCES = {
    "mnist": Source(
        (
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        _idx(
            "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "d53e105ee54ea40749a09fcbcd1e9432",
            "9fb629c4189551a2d022fa330f9573f3",
            "ec29112dd5afa0611ce80d1b7f02629c",
        ),
    ),
    "fmnist": Source(
        (
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        ),
        _idx(
            "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "25c81989df183df01b3e8a0aad5dffbe",
            "bef4ecab320f06d8554ea6380940ec79",
            "bb300cfdad3c16e7a12a480ee83cd310",
        ),
    ),
    "cifar10": Source(
        ("https://www.cs.toronto.edu/~kriz/",),
        {"cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530"},
    ),
    "cifar100": Source(
        ("https://www.cs.toronto.edu/~kriz/",),
        {"cifar-100-binary.tar.gz": "03b5dce01913d631647c71ecec9e9cb8"},
    ),
    "tiny-imagenet": Source(
        ("http://cs231n.stanford.edu/",),
        {"tiny-imagenet-200.zip": "90528d7ca1a48142e341f4ef8d21d0de"},
    ),
}


def cache_folder() -> Path:
    """The user's cache folder, with one folder per downloaded data set; it may not exist."""
    import pooch

    return Path(pooch.os_cache("nodepert"))


def fetch(name: str) -> Path:
    """Download a data set into the cache, unless an intact copy is there, and return its folder.

    Raises UserError for an unknown data set, and DataError for a failed download, which leaves the cache unchanged.
    """
    if name not in SOURCES:
        raise UserError(f"'{name}' is not a data set that can be downloaded; these are: {', '.join(SOURCES)}")
    cache, files = cache_folder(), SOURCES[name].files
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
    reasons = []
    for mirror in SOURCES[name].mirrors:
        failed = next((why for file in SOURCES[name].files if (why := _retrieve(name, mirror, file, folder))), "")
        if not failed:
            return
        reasons.append(failed)
    raise DataError(f"cannot download {name}: {'; '.join(reasons)}")


def _retrieve(name: str, mirror: str, file: str, folder: Path) -> str:
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
        known = f"md5:{SOURCES[name].files[file]}"
        pooch.retrieve(mirror + file, known_hash=known, fname=file, path=folder, downloader=downloader)
    except exceptions.HTTPError as error:
        return f"{host} returned {'an error' if error.response is None else error.response.status_code} for {file}"
    except (exceptions.ChunkedEncodingError, exceptions.ReadTimeout):
        return f"the connection to {host} was lost"
    except exceptions.RequestException:
        return f"no connection to {host}"
    except ValueError:
        return f"{file} from {host} has a wrong checksum"
    return ""
