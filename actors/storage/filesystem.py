"""Folders, local or on object stores, by their URL."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from pipemill.errors import ConfigError

from .backoff import retry_with_backoff
from .file_names import is_chain, member_of

# Opened once, and kept: an archive is closed when its filesystem goes, though a file in it is read.
_ARCHIVES: dict[tuple[str, str, str], AbstractFileSystem] = {}
# After so long every one of several writers has written.
_SETTLE_S = 1.0


def open_filesystem(url: str, options: Mapping[str, Any]) -> tuple[AbstractFileSystem, str]:
    """The filesystem of a URL, and the path in it. Listings are never cached: others write too."""
    member = member_of(url)
    archive = (member.partition("://")[0], url.removeprefix(member), str(options))
    if archive in _ARCHIVES:
        return _ARCHIVES[archive], _ARCHIVES[archive]._strip_protocol(member)
    # What fsspec is to open must have no "::" in a file's name.
    if not is_chain(url):
        plain = url.replace("::", ":")
    elif "::" in member and member != url:
        plain = f"{member.partition('://')[0]}://{url.removeprefix(member)}"
    else:
        plain = url
    try:
        filesystem, path = url_to_fs(plain, use_listings_cache=False, **options)
        if plain != url:
            path = filesystem._strip_protocol(member.replace("::", "\0")).replace("\0", "::")
    except (ImportError, ValueError) as error:
        raise ConfigError(f"can't open {url}: {error}") from None
    if member != url:
        _ARCHIVES[archive] = filesystem
    return filesystem, path


def absolute(path: str) -> str:
    """A local path from anywhere; a URL as it is."""
    if "://" in path or is_chain(path):
        return path
    return os.path.abspath(os.path.expanduser(path))


def url_of(filesystem: AbstractFileSystem, path: str) -> str:
    return path if isinstance(filesystem, LocalFileSystem) else filesystem.unstrip_protocol(path)


def write_atomic(filesystem: AbstractFileSystem, path: str, data: bytes) -> None:
    """Writes a file that exists with all of its bytes, or not at all, whenever the power goes.

    Locally: a temporary name in the same filesystem, fsync, rename. On an object store one PUT
    (or one multipart upload), which does the same, tried again while the store is away.
    Raises OSError, StoreError.
    """
    if not isinstance(filesystem, LocalFileSystem):
        retry_with_backoff(lambda: filesystem.pipe_file(path, data), path)
        return
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    # A dot: readers of the folder pass over it, should it be left behind.
    temporary = target.parent / f".{target.name}.{uuid.uuid4().hex}.tmp"
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def create_exclusive(filesystem: AbstractFileSystem, path: str, data: bytes) -> None:
    """Writes a file that is not there yet; of several that try, one succeeds.

    A store without conditional writes lets several succeed, and the last one's file stays: wait a
    moment, and read it again. Raises FileExistsError, OSError.
    """
    if isinstance(filesystem, LocalFileSystem):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with open(path, "xb") as file:
            file.write(data)
        return
    try:
        filesystem.pipe_file(path, data, mode="create")
    except Exception as error:
        if isinstance(error, FileExistsError) or filesystem.exists(path):
            raise FileExistsError(path) from error
        filesystem.pipe_file(path, data)
        time.sleep(_SETTLE_S)


def _sync_folder(folder: Path) -> None:
    # The rename itself lasts only once the folder is on disk.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
