"""List the files at a path: a file, a folder with everything below it, or a glob."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from pipemill.errors import ConfigError, RunError

from .backoff import retry_on_driver
from .file_names import member_of
from .filesystem import absolute, open_filesystem, url_of
from .input_file import InputFile, Partitions
from .partitions import parse_partitions
from .table_formats import find_table_around, find_table_by_log, is_table_data


@dataclass(frozen=True)
class Listing:
    """The files at a path.

    named: whether the path is that of one file, not of a folder or a glob.
    left_out: the number of files that were left out because they are in the output.
    table: why the files are not the rows of a table, if they are part of one.
    """

    path: str
    files: list[InputFile]
    named: bool
    left_out: int = 0
    table: str | None = None


def output_location(output: str, options: Mapping[str, Any]) -> str:
    """Return the output's location in the form that `list_below` takes."""
    filesystem, path = open_filesystem(absolute(output), options)
    return _resolve_path(filesystem, {"name": path, "islink": True}).rstrip("/")


def list_below(path: str, options: Mapping[str, Any], output: str | None) -> Listing:
    """Return the files at a path, sorted by name.

    Names that start with "." or "_" and files in `output` are left out.
    Raises ConfigError, RunError.
    """
    try:
        return retry_on_driver(lambda: _list(path, options, output), path)
    except (ConfigError, RunError):
        raise
    except Exception as error:  # filesystems raise exceptions of many classes
        raise ConfigError(
            f"can't list the input {path}: {type(error).__name__}: {error}"
        ) from error


def _list(path: str, options: Mapping[str, Any], output: str | None) -> Listing:
    filesystem, inner = open_filesystem(path, options)
    files, left_out = [], 0
    named = filesystem.isfile(inner)
    tree = _Tree(inner, []) if named else _walk(filesystem, inner)
    entries = [filesystem.info(inner)] if named else tree.entries
    for entry in entries:
        if output and f"{_resolve_path(filesystem, entry)}/".startswith(f"{output}/"):
            left_out += 1
        else:
            below = entry["name"].removeprefix(tree.top).split("/")[:-1]
            files.append(
                _make_file(filesystem, entry, path, () if named else parse_partitions(below))
            )
    table = tree.table or (None if named else _find_table(filesystem, tree))
    return Listing(path, files, named, left_out, table)


def _find_table(filesystem: Any, tree: _Tree) -> str | None:
    protocols = filesystem.protocol
    if "http" in ([protocols] if isinstance(protocols, str) else protocols):
        return None  # a web server has no folders
    names = [entry["name"] for entry in tree.entries if is_table_data(entry["name"])]
    # A walk sees all folders below its root, but not those that a pattern passes through.
    parents = {name.rpartition("/")[0] for name in names[:_CHECKED]} if tree.is_pattern else ()
    return find_table_around(filesystem, [tree.top, *sorted(parents)]) if names else None


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


_WILD = "*?["
# At most this many files' folders are checked for the marks of a table.
_CHECKED = 10_000


@dataclass
class _Tree:
    """The files at a folder or a pattern.

    top: the folder, or the one that the pattern begins with.
    table: the table whose log is there, too.
    """

    top: str
    entries: list[dict[str, Any]]
    table: str | None = None
    is_pattern: bool = False


def _walk(filesystem: Any, path: str) -> _Tree:
    top = path
    if filesystem.isdir(path):
        roots = [path]
    elif any(character in path for character in _WILD):
        roots = sorted(filesystem.glob(path))
        top = path[: min(path.find(c) for c in _WILD if c in path)].rpartition("/")[0]
    else:
        roots = []
    tree = _Tree(top, [], is_pattern=top != path)
    # A local folder without permission would be skipped silently.
    strict = {"on_error": "raise"} if isinstance(filesystem, LocalFileSystem) else {}
    for root in roots:
        entries = filesystem.find(root, detail=True, **strict)
        for name in sorted(entries):
            # A pattern may match hidden folders: only names below its first folder count.
            below = name[len(top if name.startswith(top) else root) :].lstrip("/")
            tree.table = tree.table or find_table_by_log(name)
            if not any(part.startswith((".", "_")) for part in below.split("/")):
                _check_link(entries[name])
                tree.entries.append(entries[name])
    return tree


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
