"""Arrays as numpy's own files hold them, without pickles, and the digest by which they are checked."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import IO, Any

import numpy as np

Arrays = dict[str, np.ndarray]


def write(file: IO[bytes], arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays as .npz; the bits of bfloat16 and the like as whole numbers."""
    saved: dict[str, Any] = {
        name: a if a.dtype.isbuiltin == 1 else a.view(f"u{a.dtype.itemsize}") for name, a in arrays.items()
    }
    np.savez(file, **saved)


def read(found: Mapping[str, np.ndarray], dtypes: Mapping[str, str]) -> Arrays:
    """The arrays of an open .npz in their own dtypes."""
    return {name: found[name].view(np.dtype(dtype)) for name, dtype in dtypes.items()}


def facts(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What a record says of arrays: their digest and dtypes."""
    return {"digest": digest(arrays), "dtypes": {name: array.dtype.name for name, array in arrays.items()}}


def digest(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of names, types, shapes and bytes."""
    found = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        found.update(f"{name} {array.dtype} {array.shape}\n".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()
