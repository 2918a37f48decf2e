"""Files of ours on disk: each written whole, and records in JSON with format, version and a seal.

The seal is a digest of all else in the record: what was truncated, edited or has rotted is told from what we wrote.
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

from nodepert.errors import UserError

LARGEST = 64 * 2**20  # bytes of any text that is read here; ours are kilobytes


class Damaged(UserError):
    """A file of ours that is not as it was written."""


class Foreign(UserError):
    """A file that is not ours, or of a version that this NodePert does not read; never overwritten."""


def sealed(record: dict[str, Any]) -> str:
    """The text of a record, with its seal."""
    return json.dumps({**record, "seal": digest(_without_seal(record))}, indent=2) + "\n"


def unsealed(path: Path, form: str, version: int, unsealed_until: int = 0) -> dict[str, Any]:
    """The record that a file holds, of any version up to this one; those until `unsealed_until` had no seal.

    Raises Damaged for one that is not as it was written, Foreign for what is not ours or later than this version.
    """
    text = read_text(path)
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Damaged(f"{path} is not readable as JSON ({error}), as a {form} record is") from None
    told = record if isinstance(record, dict) else {}
    ours = told.get("format") == form
    if "seal" in told and told["seal"] != digest(_without_seal(told)):
        raise Damaged(f"{path} is not as it was written: its seal does not fit")
    if not ours:
        raise Foreign(f'{path} is not a NodePert record of this kind (it has no "format": "{form}")')
    if type(told.get("version")) is not int or not 1 <= told["version"] <= version:
        raise Foreign(f"{path} has format version {told.get('version')!r}; this NodePert reads up to version {version}")
    if "seal" not in told and told["version"] > unsealed_until:
        raise Damaged(f"{path} is not as it was written: its seal is missing")
    return told


def digest(value: Any) -> str:
    """Hex digits of a hash of plain values, or of text."""
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _without_seal(record: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key != "seal"}


def write_whole(path: Path, text: str | bytes) -> None:
    """Replace a file in one step: written beside it, flushed to disk, renamed. Raises UserError."""
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
        _settle(path.parent)


def _settle(folder: Path) -> None:
    """Flush a folder's entries, so that a renaming outlives a power cut; not every file system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def clear_strays(folder: Path) -> None:
    """Remove what processes that were killed inside `write_whole` have left."""
    for path in folder.glob(".*"):
        if re.fullmatch(r"\..+\.[0-9a-f]{32}", path.name):
            path.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the file system refuses into a UserError that names the place."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {(error.strerror or str(error)).lower()}; choose another place"
        ) from None


def check_target(path: Path, *suffixes: str) -> None:
    """Raises UserError where a file that was asked for cannot be told its format by its name, or has no folder to be
    in: that is made for results alone (--out), and in a name it is more likely mistyped."""
    if path.suffix not in suffixes:
        raise UserError(f"cannot tell the format of {path}: its name must end in {' or '.join(suffixes)}")
    if not path.parent.is_dir():
        raise UserError(f"cannot write {path}: there is no folder {path.parent}; make it, or choose another place")


def read_text(path: Path) -> str:
    """A small text file. Raises UserError where it is missing or too large, Damaged where it is no text."""
    try:
        if path.stat().st_size > LARGEST:
            raise UserError(f"{path} is larger than {LARGEST:,} bytes; it is not ours")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise Damaged(f"{path} is not a text file") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from None
