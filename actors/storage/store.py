"""A folder on any filesystem, opened once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import IO, Any

from fsspec import AbstractFileSystem

from .backoff import retry_with_backoff
from .filesystem import open_filesystem, write_atomic


@dataclass(frozen=True)
class Store:
    """A folder that is opened when it is first used. Pickled, it is its URL and options.

    Names are relative to the folder.

    Attributes:
        path: a local path or a URL.
        options: for its filesystem.
    """

    path: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def _opened(self) -> tuple[AbstractFileSystem, str]:
        return open_filesystem(self.path, self.options)

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "options": self.options}

    @property
    def filesystem(self) -> AbstractFileSystem:
        return self._opened[0]

    @property
    def root(self) -> str:
        """Return the path of the folder in its filesystem."""
        return self._opened[1]

    def locate(self, name: str) -> str:
        """Return the path of a file or folder in the filesystem."""
        return f"{self.root}/{name}".rstrip("/")

    def open(self, name: str) -> IO[bytes]:
        return self.filesystem.open(self.locate(name), "rb")

    def read(self, name: str) -> bytes:
        return self.filesystem.cat_file(self.locate(name))

    def write(self, name: str, data: bytes) -> None:
        """Write a file that exists with all of its bytes, or not at all."""
        write_atomic(self.filesystem, self.locate(name), data)

    def exists(self, name: str) -> bool:
        """Return whether a file exists, asking again while the store is away. Raises StoreError."""
        path = self.locate(name)
        return retry_with_backoff(lambda: self.filesystem.exists(path), path)

    def remove(self, name: str) -> None:
        self.filesystem.rm_file(self.locate(name))

    def list_names(self, folder: str = "") -> list[str]:
        """List the names in the folder or in one below it. Raises FileNotFoundError."""
        path = self.locate(folder)
        found = (name.rstrip("/") for name in self.filesystem.ls(path, detail=False))
        # An object store may list the folder itself.
        return [name.rsplit("/", 1)[-1] for name in found if name != path]
