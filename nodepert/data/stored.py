"""The files of a data set, declared beside its function: where they are looked for, and where they come from."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

from nodepert import registry
from nodepert.errors import UserError

F = TypeVar("F", bound=Callable[..., Any])


class Stored(NamedTuple):
    folders: tuple[str, ...]  # names below a data folder, the only difference between MNIST and Fashion-MNIST
    files: tuple[str, ...]  # files of such a folder, each with or without .gz
    archive: str = ""  # or this one file, whose name is unique
    pickles: tuple[str, ...] = ()  # files of the pickled version, which is not read
    mirrors: tuple[str, ...] = ()  # where they are downloaded from, tried in this order
    md5: tuple[str, ...] = ()  # of the downloads

    @property
    def downloads(self) -> dict[str, str]:
        """{file name: md5}: the archive, or else the compressed files."""
        names = [self.archive] if self.archive else [f"{file}.gz" for file in self.files]
        return dict(zip(names, self.md5, strict=bool(self.mirrors)))


_STORED: dict[str, Stored] = {}


def stored(name: str, *fields: Any, **more: Any) -> Callable[[F], F]:
    """A decorator for the function of a data set that has files, with the fields of `Stored`."""

    def declared(function: F) -> F:
        _STORED[name] = Stored(*fields, **more)
        return function

    return declared


def all_stored() -> dict[str, Stored]:
    """{data set: its files} of all registered data sets that have some."""
    for name in registry.names("dataset"):
        with suppress(UserError):  # of a plug-in: reported where the data set is used
            registry.resolve("dataset", name)
    return _STORED
