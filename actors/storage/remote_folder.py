"""A folder on an object store, fetched once for all processes of a machine.

Its copy lies in a cache, under a name that follows from the URL and from the sizes and etags of its
files. A process that is killed while it fetches leaves what it has; the next one goes on from
there. Others wait meanwhile. The copy gets its name when it is complete.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from fsspec import AbstractFileSystem

from pipemill.errors import StoreError

from .backoff import retry_with_backoff
from .filesystem import open_filesystem
from .object_versions import find_version

# Ranges that are fetched at the same time, and the bytes of each.
_RANGES, _RANGE_BYTES = 8, 16 * 2**20
# What training leaves beside a model, which may be many times as large.
_OF_TRAINING = re.compile(
    r"(^|/)(checkpoint-\d+|global_step\d+)/|(^|/)(optimizer\.|rng_state)[^/]*$|(^|/)scheduler\.pt$"
)


@dataclass(frozen=True)
class RemoteFile:
    """A file of a folder: its name there, its bytes, and an etag or a time."""

    name: str
    size: int
    version: str


@dataclass(frozen=True)
class RemoteFolder:
    """A folder as it was listed; travels to workers, which fetch it for their machines.

    Attributes:
        url: of the folder.
        files: what it holds, sorted by name.
        options: for its filesystem, as JSON.
    """

    url: str
    files: tuple[RemoteFile, ...]
    options: str = field(default="{}", repr=False)

    @property
    def size(self) -> int:
        """Return the bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def copy(self) -> Path:
        """Return where the copy on this machine is, once it is complete."""
        identity = json.dumps([self.url, [[f.name, f.size, f.version] for f in self.files]])
        digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
        name = re.sub(r"[^\w.-]+", "-", self.url.rstrip("/").rpartition("/")[2])
        return find_cache_folder() / f"{name}-{digest}"

    def fetch(self) -> Path:
        """Fetch what is missing of the copy, and return its folder.

        Raises:
            StoreError: the store does not answer, or the folder has changed since it was listed.
        """
        return make_folder_once(self.copy, self._fetch_files)

    def _fetch_files(self, partial: Path) -> None:
        filesystem, root = open_filesystem(self.url, json.loads(self.options))
        for file in self.files:
            target = partial / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            _fetch_file(filesystem, f"{root.rstrip('/')}/{file.name}", file.size, target)
        # A file that was replaced on the way may be half the old one and half the new one.
        if list_remote_folder(self.url, json.loads(self.options)).files != self.files:
            shutil.rmtree(partial)
            raise StoreError(f"{self.url} has changed since it was listed")


def make_folder_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """Make a folder of the cache, unless it is there: one process at a time, others wait for it.

    make: fills a folder that gets the name afterwards. What a process left that was killed in the
        middle is still in it.
    """
    from filelock import FileLock

    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if not folder.is_dir():  # another process has made it meanwhile
                partial = folder.with_name(f"{folder.name}.partial")
                make(partial)
                os.replace(partial, folder)
    return folder


def find_cache_folder() -> Path:
    """Return where copies lie: beside the Hub's files if HF_HOME moves these, else in ~/.cache."""
    if "HF_HOME" in os.environ:
        home = Path(os.environ["HF_HOME"])
    else:
        home = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"))
    return home.expanduser().resolve() / "pipemill" / "models"


def list_remote_folder(url: str, options: Mapping[str, Any]) -> RemoteFolder:
    """List a folder, without hidden files and what training leaves beside a model.

    Raises:
        FileNotFoundError: there is no such folder, or it is empty.
        StoreError: the store does not answer. Other errors of filesystems are raised as they are.
    """
    filesystem, root = open_filesystem(url, options)
    listed = retry_with_backoff(lambda: filesystem.find(root, detail=True), url)
    files = tuple(sorted(_list_files(listed, root), key=lambda file: file.name))
    if not files:
        raise FileNotFoundError(url)
    return RemoteFolder(url, files, json.dumps(dict(options)))


def _list_files(listed: Mapping[str, dict[str, Any]], root: str) -> Iterator[RemoteFile]:
    for path, entry in listed.items():
        name = path.removeprefix(root).lstrip("/")
        hidden = any(part.startswith(".") for part in name.split("/"))
        # Stores have empty objects that stand for folders.
        if name and not hidden and not name.endswith("/") and not _OF_TRAINING.search(name):
            yield RemoteFile(name, int(entry["size"] or 0), find_version(entry))


def _fetch_file(filesystem: AbstractFileSystem, path: str, size: int, target: Path) -> None:
    """Add what is missing of a file to its copy, some ranges at a time."""
    with open(target, "ab") as file:
        while (there := file.tell()) < size:
            starts = range(there, size, _RANGE_BYTES)[:_RANGES]
            stops = [min(start + _RANGE_BYTES, size) for start in starts]
            read = partial(_read, filesystem, path, starts, stops)
            for data in retry_with_backoff(read, path):
                file.write(data)
            file.flush()
            os.fsync(file.fileno())
            if file.tell() != stops[-1]:
                file.truncate(there)
                raise StoreError(f"{path} has changed since it was listed")


def _read(
    filesystem: AbstractFileSystem, path: str, starts: range, stops: list[int]
) -> list[bytes]:
    return filesystem.cat_ranges([path] * len(stops), list(starts), stops, on_error="raise")
