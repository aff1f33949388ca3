"""List the files at a path: a file, a folder with everything below it, or a glob."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any

from fsspec.asyn import sync
from fsspec.implementations.local import LocalFileSystem

from pipemill.errors import ConfigError, RunError

from ..output.layout import JOB
from .backoff import retry_on_driver
from .file_names import is_chain, member_of
from .filesystem import absolute, open_filesystem, url_of
from .input_file import InputFile, Partitions
from .partitions import parse_partitions
from .shared_archive import forget_archives
from .storage_options import explain_storage_error
from .table_formats import find_table_around, find_table_by_log, is_table_data


@dataclass(frozen=True)
class Listing:
    """The files at a path.

    named: whether the path is that of one file, not of a folder or a glob.
    left_out: the number of files that were left out because they are in the output.
    table: why the files are not the rows of a table, if they are part of one.
    outputs: folders of other outputs of pipemill among the files, with the files in each.
    special: names of pipes, sockets and devices, which are no files: opening one may wait forever.
    nothing: why there is no file at all.
    """

    path: str
    files: list[InputFile]
    named: bool
    left_out: int = 0
    table: str | None = None
    outputs: Mapping[str, list[InputFile]] = field(default_factory=dict)
    special: tuple[str, ...] = ()
    nothing: str | None = None


def output_location(output: str, options: Mapping[str, Any]) -> str:
    """Return the output's location in the form that `list_below` takes."""
    filesystem, path = open_filesystem(absolute(output), options)
    return _resolve_path(filesystem, {"name": path, "islink": True}).rstrip("/")


def list_below(path: str, options: Mapping[str, Any], output: str | None) -> Listing:
    """Return the files at a path, sorted by name.

    Names that start with "." or "_" and files in `output` are left out.
    Raises ConfigError, RunError.
    """
    if is_chain(path):
        forget_archives()  # a notebook may have read what was there before
    try:
        return retry_on_driver(lambda: _list(path, options, output), path)
    except (ConfigError, RunError):
        raise
    except Exception as error:  # filesystems raise exceptions of many classes
        raise ConfigError(
            f"can't list the input {path}: {explain_storage_error(error, path, options)}"
        ) from error


def _list(path: str, options: Mapping[str, Any], output: str | None) -> Listing:
    if _VERSION in path and path.startswith("s3"):
        # s3fs drops it, and reads the newest.
        raise ConfigError(
            f"can't list the input {path}: a version of an object is not read, only the newest; "
            "copy that version to an object of its own"
        )
    filesystem, inner = open_filesystem(path, options)
    if filesystem.isfile(inner):
        file = _make_file(filesystem, filesystem.info(inner), path)
        inside = _is_below(filesystem, filesystem.info(inner), output)
        return Listing(path, [] if inside else [file], True, int(inside))
    if isinstance(filesystem, LocalFileSystem) and os.path.lexists(inner):
        if not os.path.exists(inner):
            raise ConfigError(f"no input at {path}: it is a link to nothing")
        if not os.path.isdir(inner):
            return Listing(path, [], True, special=(path,))
    top, roots = _find_roots(filesystem, inner)
    files: list[InputFile] = []
    tables: list[str] = []
    with_parts: dict[str, list[InputFile]] = {}
    table, left_out = None, 0
    special = []
    for root, known in roots.items():
        found = []
        for entry in _iterate_files(filesystem, root, known):
            name = entry["name"]
            table = table or find_table_by_log(name)
            # A pattern may match hidden folders: only names below its first folder count.
            below = name[len(top if name.startswith(top) else root) :].lstrip("/").split("/")
            if any(part.startswith((".", "_")) for part in below):
                continue
            if name.endswith("/"):  # what a console makes for a folder of a bucket
                continue
            _check_link(entry)
            if entry.get("type") == "other" and os.path.exists(name):
                special.append(name)
                continue
            if _is_below(filesystem, entry, output):
                left_out += 1
                continue
            folders = name.removeprefix(top).split("/")[:-1]
            found.append(_make_file(filesystem, entry, path, parse_partitions(folders)))
            folder, _, base = name.rpartition("/")
            if _PART.fullmatch(base) and folder != top.rstrip("/"):
                with_parts.setdefault(folder, []).append(found[-1])
            if len(tables) < _CHECKED and is_table_data(name):
                tables.append(name)
        files += sorted(found, key=lambda file: file.path)
    is_pattern = top != inner
    table = table or _find_table(filesystem, top, tables, is_pattern)
    outputs = {
        url_of(filesystem, folder): parts
        for folder, parts in with_parts.items()
        if filesystem.exists(f"{folder}/{JOB}")
    }
    is_empty = not (files or left_out or special)
    nothing = _explain_nothing(filesystem, top, is_pattern) if is_empty else None
    return Listing(path, files, False, left_out, table, outputs, tuple(special), nothing)


def _explain_nothing(filesystem: Any, folder: str, is_pattern: bool) -> str:
    """Return why there is no file, by the first folder of a path that does not exist."""
    protocols = filesystem.protocol
    if "http" in ([protocols] if isinstance(protocols, str) else protocols):
        return "found no file"  # a web server has no folders
    ends = [match.start() for match in re.finditer("/", folder)][folder.startswith("/") :]
    for end in (*ends, len(folder)):
        if folder[:end] and not filesystem.exists(folder[:end]):
            scheme = _ONE_SLASH.search(folder)
            hint = f" (a URL begins with {scheme[1]}://)" if scheme else ""
            return f"found no file: {url_of(filesystem, folder[:end])} does not exist{hint}"
    return "found no file that fits the pattern" if is_pattern else "found no file in that folder"


def _is_below(filesystem: Any, entry: dict[str, Any], output: str | None) -> bool:
    return bool(output) and f"{_resolve_path(filesystem, entry)}/".startswith(f"{output}/")


def _find_table(filesystem: Any, top: str, names: list[str], is_pattern: bool) -> str | None:
    protocols = filesystem.protocol
    if "http" in ([protocols] if isinstance(protocols, str) else protocols):
        return None  # a web server has no folders
    # A walk sees all folders below its root, but not those that a pattern passes through.
    parents = {name.rpartition("/")[0] for name in names} if is_pattern else ()
    return find_table_around(filesystem, [top, *sorted(parents)]) if names else None


def stat(path: str, options: Mapping[str, Any]) -> InputFile:
    """Return one file by its path. Raises FileNotFoundError."""
    filesystem, inner = open_filesystem(path, options)
    return _make_file(filesystem, filesystem.info(inner), path)


def _make_file(
    filesystem: Any, entry: dict[str, Any], listed: str, partitions: Partitions = ()
) -> InputFile:
    """Return a listed file. listed: the path that was listed."""
    url = url_of(filesystem, entry["name"])
    url += listed.removeprefix(member_of(listed))
    if not url.isascii():
        try:
            url.encode()
        except UnicodeEncodeError:
            raise OSError(f"the name {url!r} is not UTF-8: rename the file") from None
    return InputFile(url, int(entry["size"] or 0), find_version(entry), partitions)


_VERSION = "?versionId="
_WILD = "*?["
# What a URL is to the local filesystem if one of its slashes is missing.
_ONE_SLASH = re.compile(r"/(s3|gs|gcs|hf|az|abfs|adl|https?|file):/")
# The name of a part, see `Split.part`.
_PART = re.compile(r"part-\d{8}-[0-9a-f]{12}\.parquet")
_TAKEN = 1000  # objects, as many as S3 lists at a time
# At most this many files' folders are checked for the marks of a table.
_CHECKED = 10_000


def _find_roots(filesystem: Any, path: str) -> tuple[str, dict[str, dict[str, Any]]]:
    """Return the folder that a path begins with, and what is known of what it stands for."""
    if _is_folder(filesystem, path):
        return path, {path: {"type": "directory"}}
    if any(character in path for character in _WILD):
        first = min(path.find(c) for c in _WILD if c in path)
        found = filesystem.glob(path, detail=True)
        return path[:first].rpartition("/")[0], dict(sorted(found.items()))
    return path, {}


def _is_folder(filesystem: Any, path: str) -> bool:
    if not _lists_some_at_a_time(filesystem):
        return bool(filesystem.isdir(path))
    try:  # `isdir` of s3fs lists all of the folder, and keeps it
        return bool(filesystem.info(path)["type"] == "directory")
    except FileNotFoundError:
        return False


def _lists_some_at_a_time(filesystem: Any) -> bool:
    return hasattr(filesystem, "_iterdir") and hasattr(filesystem, "loop")


def _iterate_files(filesystem: Any, root: str, known: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield what is known of each file at or below a path, of which something is known."""
    if not isinstance(filesystem, LocalFileSystem):
        # A store is not asked again for each file that fits a pattern; a web server's pages of
        # links do not say how large a file is.
        if known["type"] == "directory":
            yield from _find_on_store(filesystem, root)
        else:
            yield known if known.get("size") is not None else filesystem.info(root)
        return
    if filesystem.isfile(root):
        yield filesystem.info(root)
        return
    # A folder at a time: what fsspec says of a million files takes a gigabyte. A folder without
    # permission would be skipped silently.
    for _, _, files in filesystem.walk(root, detail=True, on_error="raise"):
        for entry in files.values():
            # A walk says of a link when it was made, not when its file was written, or what it is.
            is_whole = entry.get("islink") and os.path.exists(entry["name"])
            yield filesystem.info(entry["name"]) if is_whole else entry


def _find_on_store(filesystem: Any, root: str) -> Iterator[dict[str, Any]]:
    """Yield what is known of each object below a folder, in any order."""
    if not _lists_some_at_a_time(filesystem):
        yield from filesystem.find(root, detail=True).values()
        return
    bucket, _, folder = filesystem._strip_protocol(root).rstrip("/").partition("/")
    # What s3fs says of a million objects takes 1.5 GB, and it holds all of them. So some at a time.
    prefix = f"{folder}/" if folder else ""
    entries = filesystem._iterdir(bucket, delimiter="", prefix=prefix)

    async def take() -> list[dict[str, Any]]:
        taken = []
        async for entry in entries:
            taken.append(entry)
            if len(taken) == _TAKEN:
                break
        return taken

    while taken := sync(filesystem.loop, take):
        yield from taken


def _check_link(entry: dict[str, Any]) -> None:
    if entry.get("islink") and os.path.isdir(entry["name"]):
        raise OSError(f"{entry['name']} is a link to a folder: give the path of the folder")


def _resolve_path(filesystem: Any, entry: dict[str, Any]) -> str:
    """Return the same path for the same file, also through links."""
    name = entry["name"]
    if not isinstance(filesystem, LocalFileSystem):
        return filesystem.unstrip_protocol(name)
    if entry.get("islink"):
        return os.path.realpath(name)
    folder, base = os.path.split(name)
    return os.path.join(_resolve_folder(folder), base)


# A folder may hold a million files.
@lru_cache(maxsize=1024)
def _resolve_folder(path: str) -> str:
    return os.path.realpath(path)


def find_version(entry: dict[str, Any]) -> str:
    """Return what changes when a listed file does: an etag or a time; "" if nothing is known."""
    for key in ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "created"):
        if value := entry.get(key):
            # fsspec's memory lists a number where `info` has a date.
            dated = key == "created" and isinstance(value, datetime)
            return str(value.timestamp() if dated else value).strip('"')
    return ""
