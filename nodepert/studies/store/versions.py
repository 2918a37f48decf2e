"""Versions of what a result depends on."""

import functools
import platform
from importlib import metadata


@functools.cache
def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    found = {name: _version(name) for name in ("nodepert", "jax", "jaxlib", "optax", "numpy")}
    return found | {"python": platform.python_version()}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # a checkout on PYTHONPATH
        return "not installed"
