"""Files on disk: atomic writing, and records in JSON with format, version and a seal.

The seal is a digest of the rest of the record: it shows whether a file was truncated or edited.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from nodepert.errors import UserError, reason

LARGEST = 64 * 2**20  # bytes of any text that is read here; records have kilobytes


class Damaged(UserError):
    """A NodePert file that is corrupt."""


class Foreign(UserError):
    """Not a NodePert file, or one of a version that this NodePert cannot read; never overwritten."""


def sealed(record: dict[str, Any]) -> str:
    """The text of a record, with its seal."""
    return json.dumps({**record, "seal": digest(_without_seal(record))}, indent=2) + "\n"


def unsealed(path: Path, form: str, version: int, unsealed_until: int = 0) -> dict[str, Any]:
    """The record in a file, of any version up to this one; versions up to `unsealed_until` had no seal.

    Raises Damaged for a corrupt record, Foreign for another kind of file or a later version.
    """
    return unsealed_text(read_text(path), path, form, version, unsealed_until)


def unsealed_text(text: str, path: Path, form: str, version: int, unsealed_until: int = 0) -> dict[str, Any]:
    """The record in a text that was read from this path; see `unsealed`."""
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{path} is not readable as JSON ({error}), as a {form} record is") from None
    record = record if isinstance(record, dict) else {}
    if "seal" in record and record["seal"] != digest(_without_seal(record)):
        raise Damaged(f"{path} is corrupt: its seal does not match")
    if record.get("format") != form:
        raise Foreign(f'{path} is not a NodePert record of this kind (it has no "format": "{form}")')
    if type(record.get("version")) is not int or not 1 <= record["version"] <= version:
        raise Foreign(
            f"{path} has format version {record.get('version')!r}; this NodePert reads up to version {version}"
        )
    if "seal" not in record and record["version"] > unsealed_until:
        raise Damaged(f"{path} is corrupt: its seal is missing")
    return record


def digest(value: Any) -> str:
    """Hex digits of a hash of plain values, or of text."""
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _without_seal(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key != "seal"}


def write_whole(path: Path, text: str | bytes) -> None:
    """Write a file atomically: beside it, flushed to disk, renamed. Raises UserError."""
    with writing(path):
        temporary = path.with_name(f".{path.name}.{uuid4().hex}")
        try:
            with open(temporary, "xb") as file:
                file.write(text.encode() if isinstance(text, str) else text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        settle(path.parent)


def make_folder(path: Path) -> None:
    """Make a folder and its parents, so that they survive a power cut."""
    new = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for folder in new:
        settle(folder.parent)


def settle(folder: Path) -> None:
    """Flush a folder's entries, so that a new or renamed file survives a power cut; not every file system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def clear_strays(folder: Path) -> None:
    """Remove the temporary files of processes that were killed inside `write_whole`."""
    for path in folder.glob(".*"):
        if re.fullmatch(r"\..+\.[0-9a-f]{32}", path.name):
            path.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError into a UserError that names the path."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {path}: {reason(error)}; choose another path") from None


def as_path(given: Any) -> Path:
    """A path that a user gave. Raises UserError for what is none."""
    if not isinstance(given, str | os.PathLike):
        raise UserError(f"a path is a text or a pathlib.Path; got {given!r}")
    return Path(given)


def check_target(path: Path, *suffixes: str, heads: tuple[str, ...] = ()) -> None:
    """Raise UserError for a file whose name has none of these suffixes, or whose folder does not exist (it is not made:
    it is more likely mistyped); and for an existing file that begins with none of `heads`: it is the
    user's own."""
    if path.suffix not in suffixes:
        raise UserError(f"cannot tell the format of {path}: its name must end in {' or '.join(suffixes)}")
    if not path.parent.is_dir():
        raise UserError(f"cannot write {path}: there is no folder {path.parent}; make it, or choose another path")
    if heads and path.is_file():
        with writing(path), open(path, "rb") as file:
            found = file.read(max(map(len, heads))).decode(errors="replace")
        if found and not found.startswith(heads):
            raise UserError(f"{path} exists, and this command did not write it; choose another path")


def read_text(path: Path) -> str:
    """A small text file. Raises UserError where it is missing or too large, Damaged where it is no text."""
    try:
        if path.stat().st_size > LARGEST:
            raise UserError(f"{path} is larger than {LARGEST:,} bytes; it is not a NodePert file")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise Damaged(f"{path} is not a text file") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {reason(error)}") from None
