"""A folder on any filesystem, opened once."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import IO, Any

from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem

from .backoff import retry_with_backoff
from .filesystem import open_filesystem, write_atomic

# What tells one version of a file from another, as filesystems call it.
_WRITTEN = ("ETag", "etag", "md5Hash", "LastModified", "last_modified", "mtime", "updated")


@dataclass(frozen=True)
class FileStamp:
    """What changes when a file is written again.

    Attributes:
        size: in bytes.
        written: when, or which version, in the filesystem's own terms.
    """

    size: int
    written: str


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
        return f"{self.root.rstrip('/')}/{name}".rstrip("/") or self.root

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
        try:
            return retry_with_backoff(lambda: self.filesystem.exists(path), path)
        except OSError as error:
            if error.errno == errno.EINVAL and "Bad Request" in str(error):
                # S3's answer to HEAD has no text that would say it.
                raise PermissionError(f"{error}; have the credentials expired?") from error
            raise

    def remove(self, name: str) -> None:
        self.filesystem.rm_file(self.locate(name))

    def list_names(self, folder: str = "") -> list[str]:
        """List the names in the folder or in one below it. Raises FileNotFoundError."""
        path = self.locate(folder)
        if isinstance(self.filesystem, LocalFileSystem):  # whose `ls` looks at every file
            return os.listdir(path)
        found = (name.rstrip("/") for name in self.filesystem.ls(path, detail=False))
        # An object store may list the folder itself.
        return [name.rsplit("/", 1)[-1] for name in found if name != path]

    def read_end(self, name: str, size: int) -> bytes:
        """Read so many bytes from the end of a file, or all if there are fewer."""
        path = self.locate(name)
        if isinstance(self.filesystem, LocalFileSystem):  # whose `cat_file` takes ten times as long
            with open(path, "rb", buffering=0) as file:
                file.seek(max(file.seek(0, os.SEEK_END) - size, 0))
                return file.read()
        return self.filesystem.cat_file(path, start=-size)

    def list_stamps(self) -> dict[str, FileStamp]:
        """Return how each file in the folder looks, by name. Raises FileNotFoundError."""
        if isinstance(self.filesystem, LocalFileSystem):
            with os.scandir(self.root) as entries:
                found = ((entry.name, entry.stat()) for entry in entries if entry.is_file())
                return {name: FileStamp(s.st_size, str(s.st_mtime_ns)) for name, s in found}
        stamps = {}
        for info in self.filesystem.ls(self.root, detail=True):
            written = next((info[key] for key in _WRITTEN if info.get(key) is not None), None)
            if info["type"] == "file" and written is not None:
                name = info["name"].rstrip("/").rsplit("/", 1)[-1]
                stamps[name] = FileStamp(int(info["size"]), str(written))
        return stamps
