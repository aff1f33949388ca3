"""Open local and remote filesystems by URL, and write files that are complete or missing."""

from __future__ import annotations

import os
import re
import shutil
import tarfile
import time
import uuid
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.zip import ZipFileSystem

from pipemill.errors import ConfigError

from .backoff import is_transient, retry_with_backoff
from .file_names import find_member, is_chain
from .shared_archive import open_archive
from .storage_options import explain_storage_error
from .web_files import is_web, read_without_ranges

# What a file raises that is no archive.
_NO_ARCHIVE = (zipfile.BadZipFile, tarfile.TarError)
# After this time each of several writers has written.
_SETTLE_S = 1.0
_COPIED_BYTES = 16 * 2**20


def open_filesystem(url: str, options: Mapping[str, Any]) -> tuple[AbstractFileSystem, str]:
    """Return the filesystem of a URL, and the path in it.

    Listings are not cached, since other processes write, too. Raises ConfigError.
    """
    url = decode_local_url(url)
    member = find_member(url)
    if member == url:
        return _open_by_url(url, member, options)
    # Kept open: an archive is closed with its filesystem.
    key = (member.partition("://")[0], url.removeprefix(member), str(options))
    filesystem = open_archive(key, lambda: _open_by_url(url, member, options)[0])
    return filesystem, _strip_protocol(filesystem, member)


def decode_local_url(url: str) -> str:
    """Return a file:// URL with its %20 as spaces, which fsspec takes as they are.

    `Path.as_uri()` writes them. Where such a name itself exists, or the folder of such a pattern,
    the URL stays.
    """
    if "%" not in url or not url.startswith("file://"):
        return url
    folder = re.split(r"[*?\[]", url.removeprefix("file://"))[0]
    is_pattern = f"file://{folder}" != url
    there = os.path.dirname(folder) if is_pattern else folder
    return url if os.path.lexists(there) else unquote(url)


def _open_by_url(
    url: str, member: str, options: Mapping[str, Any]
) -> tuple[AbstractFileSystem, str]:
    # fsspec takes "::" in a file's name for the joint of two URLs.
    if not is_chain(url):
        plain = url.replace("::", ":")
    elif "::" in member and member != url:
        plain = f"{member.partition('://')[0]}://{url.removeprefix(member)}"
    else:
        plain = url
    try:
        filesystem, path = url_to_fs(plain, use_listings_cache=False, **options)
        if plain != url:
            path = _strip_protocol(filesystem, member)
    except (ImportError, ValueError) as error:
        protocol = url.partition("://")[0]
        small = f"; write {protocol.lower()}://" if protocol != protocol.lower() else ""
        raise ConfigError(f"can't open {url}: {error}{small}") from None
    except (FileNotFoundError, IsADirectoryError, *_NO_ARCHIVE) as error:
        raise ConfigError(f"can't open {url}: {type(error).__name__}: {error}") from None
    except Exception as error:  # some log in at once, and each library has its own errors
        if is_transient(error):
            raise
        why = explain_storage_error(error, url, options)
        raise ConfigError(f"can't open {url}: {why}") from error
    if isinstance(filesystem, ZipFileSystem):
        _check_members(filesystem, url)
    if is_web(filesystem):
        read_without_ranges(filesystem)
    return filesystem, path


def _check_members(archive: ZipFileSystem, url: str) -> None:
    """Raise ConfigError for an archive that can be listed, but not read."""
    known = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    for member in archive.zip.infolist():
        is_locked = member.flag_bits & 1
        if is_locked or member.compress_type not in known:
            why = "is encrypted" if is_locked else "is compressed in a way that Python can't read"
            raise ConfigError(
                f"can't open {url}: {member.filename} {why}; unpack the archive, and name the files"
            )


def _strip_protocol(filesystem: AbstractFileSystem, member: str) -> str:
    return filesystem._strip_protocol(member.replace("::", "\0")).replace("\0", "::")


def make_absolute(path: str) -> str:
    """Return a local path as an absolute one, and a URL as it is."""
    if "://" in path or is_chain(path):
        return path
    try:
        return os.path.abspath(os.path.expanduser(path))
    except FileNotFoundError:
        raise ConfigError(
            f"{path} is relative, and the current folder no longer exists: go to another one, or "
            "name an absolute path"
        ) from None


def explain_no_folder(path: str) -> str | None:
    """Return why no folder can be at a local path; None if one may be, and for a URL."""
    if "://" in path or is_chain(path):
        return None
    for place in (Path(path), *Path(path).parents):
        try:
            if place.is_symlink() and not place.exists():
                return f"{place} is a link to {os.readlink(place)}, which does not exist"
            if place.exists():
                return None if place.is_dir() else f"{place} is a file, not a folder"
        except OSError as error:  # a name that is too long, or a folder that can't be looked into
            return str(error.strerror)
    return None


def make_url(filesystem: AbstractFileSystem, path: str) -> str:
    """Return the URL of a path in a filesystem; a local path stays as it is."""
    return path if isinstance(filesystem, LocalFileSystem) else filesystem.unstrip_protocol(path)


def write_atomic(filesystem: AbstractFileSystem, path: str, data: bytes) -> None:
    """Write a file so that it exists with all of its bytes or not at all, even if power fails.

    Locally: a temporary name in the same filesystem, fsync, rename. On an object store: one PUT (or
    one multipart upload), which is retried.

    Raises OSError, StoreError.
    """
    if not isinstance(filesystem, LocalFileSystem):
        retry_with_backoff(lambda: filesystem.pipe_file(path, data), path)
        return
    with _replace_file(Path(path)) as file:
        file.write(data)


def copy_atomic(filesystem: AbstractFileSystem, source: Path, path: str) -> None:
    """Copy a local file as `write_atomic` writes one, without holding it in memory.

    Raises OSError, StoreError.
    """
    if not isinstance(filesystem, LocalFileSystem):
        retry_with_backoff(lambda: filesystem.put_file(str(source), path), path)
        return
    with _replace_file(Path(path)) as file, open(source, "rb") as opened:
        shutil.copyfileobj(opened, file, _COPIED_BYTES)


def write_blocks(filesystem: AbstractFileSystem, path: str, blocks: Iterable[bytes]) -> None:
    """Write a file as `write_atomic` does, block by block: they may not be there a second time."""
    if isinstance(filesystem, LocalFileSystem):
        with _replace_file(Path(path)) as file:
            file.writelines(blocks)
        return
    filesystem.makedirs(path.rpartition("/")[0], exist_ok=True)
    with filesystem.open(path, "wb") as file:
        file.writelines(blocks)


@contextmanager
def _replace_file(target: Path) -> Iterator[IO[bytes]]:
    """Open a file that takes the place of another one at the end of the block."""
    new = [folder for folder in target.parents if not folder.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    # With a dot, so that readers of the folder ignore it if it is left behind.
    temporary = target.parent / f".{target.name}.{uuid.uuid4().hex}.tmp"
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    for folder in (target.parent, *(folder.parent for folder in new)):
        _sync_folder(folder)


def create_exclusive(filesystem: AbstractFileSystem, path: str, data: bytes) -> None:
    """Write a file that does not exist yet; if several processes try, one succeeds.

    A store without conditional writes lets several succeed, and the file of the last one stays:
    wait a moment, and read it again.

    Raises FileExistsError, OSError.
    """
    if isinstance(filesystem, LocalFileSystem):
        try:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:  # not of `path` itself: no folder can be made there
            raise NotADirectoryError(*error.args) from None
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
    # A rename is only durable once the folder is on disk.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
