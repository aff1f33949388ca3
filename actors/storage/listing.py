"""Which files lie at a path: a file, a folder with all below it, or a glob, on any filesystem."""

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
from .partitions import partitions_of
from .table_formats import is_table_data, table_around, table_of_name


@dataclass(frozen=True)
class Listing:
    """named: the path was that of one file, not of a place where files were found.

    left_out: how many files were passed over because they lie in the output.
    table: why the files are not the rows of a table, if they are part of one.
    """

    path: str
    files: list[InputFile]
    named: bool
    left_out: int = 0
    table: str | None = None


def output_location(output: str, options: Mapping[str, Any]) -> str:
    """The output as `list_below` leaves it out."""
    filesystem, path = open_filesystem(absolute(output), options)
    return _real(filesystem, {"name": path, "islink": True}).rstrip("/")


def list_below(path: str, options: Mapping[str, Any], output: str | None) -> Listing:
    """Sorted by name; names that start with "." or "_", and what lies in `output`, left out."""
    try:
        return retry_on_driver(lambda: _listed(path, options, output), path)
    except (ConfigError, RunError):
        raise
    except Exception as error:  # every filesystem has exceptions of its own
        raise ConfigError(
            f"can't list the input {path}: {type(error).__name__}: {error}"
        ) from error


def _listed(path: str, options: Mapping[str, Any], output: str | None) -> Listing:
    filesystem, inner = open_filesystem(path, options)
    files, left_out = [], 0
    named = filesystem.isfile(inner)
    found = _Found(inner, []) if named else _found(filesystem, inner)
    entries = [filesystem.info(inner)] if named else found.entries
    for entry in entries:
        if output and f"{_real(filesystem, entry)}/".startswith(f"{output}/"):
            left_out += 1
        else:
            below = entry["name"].removeprefix(found.top).split("/")[:-1]
            files.append(_file(filesystem, entry, path, () if named else partitions_of(below)))
    table = found.table or (None if named else _table_around(filesystem, found))
    return Listing(path, files, named, left_out, table)


def _table_around(filesystem: Any, found: _Found) -> str | None:
    protocols = filesystem.protocol
    if "http" in ([protocols] if isinstance(protocols, str) else protocols):
        return None  # it has no folders
    names = [entry["name"] for entry in found.entries if is_table_data(entry["name"])]
    # All below a folder was seen; of a pattern the folders that it passes through were not.
    parents = {name.rpartition("/")[0] for name in names[:_LOOKED_AT]} if found.is_pattern else ()
    return table_around(filesystem, [found.top, *sorted(parents)]) if names else None


def stat(path: str, options: Mapping[str, Any]) -> InputFile:
    """One file by its path. Raises FileNotFoundError."""
    filesystem, inner = open_filesystem(path, options)
    return _file(filesystem, filesystem.info(inner), path)


def _file(
    filesystem: Any, entry: dict[str, Any], listed: str, partitions: Partitions = ()
) -> InputFile:
    """listed: the path at which it was found."""
    url = url_of(filesystem, entry["name"])
    url += listed.removeprefix(member_of(listed))
    if not url.isascii():
        try:
            url.encode()
        except UnicodeEncodeError:
            raise OSError(f"the name {url!r} is not UTF-8: rename the file") from None
    return InputFile(url, int(entry["size"] or 0), _version(entry), partitions)


_WILD = "*?["
# Files whose folders tell whether they belong to a table.
_LOOKED_AT = 10_000


@dataclass
class _Found:
    """What lies at a folder or a pattern. top: the folder, or the one that a pattern begins with.

    table: which table's log lies there, too.
    """

    top: str
    entries: list[dict[str, Any]]
    table: str | None = None
    is_pattern: bool = False


def _found(filesystem: Any, path: str) -> _Found:
    top = path
    if filesystem.isdir(path):
        roots = [path]
    elif any(character in path for character in _WILD):
        roots = sorted(filesystem.glob(path))
        top = path[: min(path.find(c) for c in _WILD if c in path)].rpartition("/")[0]
    else:
        roots = []
    whole = _Found(top, [], is_pattern=top != path)
    # Locally a folder without permission would be passed over in silence.
    strict = {"on_error": "raise"} if isinstance(filesystem, LocalFileSystem) else {}
    for root in roots:
        found = filesystem.find(root, detail=True, **strict)
        for name in sorted(found):
            # What a pattern matches may be hidden, too: it is below what the pattern begins with.
            below = name[len(top if name.startswith(top) else root) :].lstrip("/")
            whole.table = whole.table or table_of_name(name)
            if not any(part.startswith((".", "_")) for part in below.split("/")):
                _check_link(found[name])
                whole.entries.append(found[name])
    return whole


def _check_link(entry: dict[str, Any]) -> None:
    if entry.get("islink") and os.path.isdir(entry["name"]):
        raise OSError(f"{entry['name']} is a link to a folder: name that folder itself")


def _real(filesystem: Any, entry: dict[str, Any]) -> str:
    """One spelling for one place, however it was reached."""
    name = entry["name"]
    if not isinstance(filesystem, LocalFileSystem):
        return filesystem.unstrip_protocol(name)
    if entry.get("islink"):
        return os.path.realpath(name)
    folder, base = os.path.split(name)
    return os.path.join(_real_folder(folder), base)


# A folder may hold a million files.
@lru_cache(maxsize=1024)
def _real_folder(path: str) -> str:
    return os.path.realpath(path)


def _version(entry: dict[str, Any]) -> str:
    for key in ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "created"):
        if value := entry.get(key):
            # fsspec's memory lists a number where `info` has a date.
            dated = key == "created" and isinstance(value, datetime)
            return str(value.timestamp() if dated else value).strip('"')
    return ""
