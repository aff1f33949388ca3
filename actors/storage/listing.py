"""List the files at a path: a file, a folder with everything below it, or a glob."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from pipemill.errors import ConfigError, RunError

from ..output.layout import JOB
from .backoff import retry_on_driver
from .file_names import find_member, is_chain
from .filesystem import make_absolute, make_url, open_filesystem
from .input_file import InputFile, Partitions
from .object_versions import find_version
from .partitions import parse_partitions
from .shared_archive import forget_archives
from .storage_options import explain_storage_error
from .table_formats import find_table_around, find_table_by_log, is_table_data
from .walk_files import find_roots, iterate_files
from .web_files import is_web, is_web_file


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


def locate_output(output: str, options: Mapping[str, Any]) -> str:
    """Return the output's location in the form that `list_below` takes."""
    filesystem, path = open_filesystem(make_absolute(output), options)
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
            "copy that version to another object"
        )
    filesystem, inner = open_filesystem(path, options)
    one = _list_one(filesystem, inner, path, output)
    return _list_folders(filesystem, inner, path, output) if one is None else one


def _list_one(filesystem: Any, inner: str, path: str, output: str | None) -> Listing | None:
    """Return the listing of what is no folder, or None for a folder or a pattern."""
    if is_web_file(filesystem, inner) if is_web(filesystem) else filesystem.isfile(inner):
        file = _make_file(filesystem, filesystem.info(inner), path)
        inside = _is_below(filesystem, filesystem.info(inner), output)
        return Listing(path, [] if inside else [file], named=True, left_out=int(inside))
    if isinstance(filesystem, LocalFileSystem) and os.path.lexists(inner):
        if not os.path.exists(inner):
            raise ConfigError(f"no input at {path}: it is a link to nothing")
        if not os.path.isdir(inner):
            return Listing(path, [], named=True, special=(path,))
    return None


def _list_folders(filesystem: Any, inner: str, path: str, output: str | None) -> Listing:
    top, roots = find_roots(filesystem, inner)
    is_pattern = top != inner
    walk = _Walk(filesystem, path, output, top)
    for root, known in roots.items():
        first = len(walk.files)
        for entry in iterate_files(filesystem, root, known):
            walk.add(entry, root)
        walk.files[first:] = sorted(walk.files[first:], key=lambda file: file.path)
    outputs = {
        make_url(filesystem, folder): parts
        for folder, parts in walk.with_parts.items()
        if filesystem.exists(f"{folder}/{JOB}")
    }
    is_empty = not (walk.files or walk.left_out or walk.special)
    return Listing(
        path,
        walk.files,
        named=False,
        left_out=walk.left_out,
        table=walk.table or _find_table(filesystem, top, walk.tables, is_pattern),
        outputs=outputs,
        special=tuple(walk.special),
        nothing=_explain_nothing(filesystem, inner, walk) if is_empty else None,
    )


@dataclass
class _Walk:
    """What is found in the folders of a path, or by a pattern.

    top: the folder that the path begins with.
    tables: files that may be part of a table.
    with_parts: files that may be parts of other outputs, by their folders.
    hidden: the first file that is left out for its name.
    table, left_out, special: as in `Listing`.
    """

    filesystem: Any
    path: str
    output: str | None
    top: str
    files: list[InputFile] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    with_parts: dict[str, list[InputFile]] = field(default_factory=dict)
    hidden: str | None = None
    table: str | None = None
    left_out: int = 0
    special: list[str] = field(default_factory=list)

    def add(self, entry: dict[str, Any], root: str) -> None:
        """Add a file, unless it is hidden, in the output or no file."""
        name = entry["name"]
        self.table = self.table or find_table_by_log(name)
        # A pattern may match hidden folders: only names below its first folder count.
        below = name[len(self.top if name.startswith(self.top) else root) :].lstrip("/").split("/")
        if any(part.startswith((".", "_")) for part in below):
            self.hidden = self.hidden or name
            return
        if name.endswith("/"):  # what a console makes for a folder of a bucket
            return
        _check_link(entry)
        if entry.get("type") == "other" and os.path.exists(name):
            self.special.append(name)
            return
        if _is_below(self.filesystem, entry, self.output):
            self.left_out += 1
            return
        folders = name.removeprefix(self.top).split("/")[:-1]
        file = _make_file(self.filesystem, entry, self.path, parse_partitions(folders))
        self.files.append(file)
        folder, _, base = name.rpartition("/")
        if _PART.fullmatch(base) and folder != self.top.rstrip("/"):
            self.with_parts.setdefault(folder, []).append(file)
        if len(self.tables) < _CHECKED and is_table_data(name):
            self.tables.append(name)


def _is_missing(filesystem: Any, path: str) -> bool:
    try:
        return not filesystem.exists(path)
    except ValueError:  # what stands before the name of a repository of the Hub is no folder
        return False


def _check_permission(filesystem: Any, path: str) -> None:
    """Raise PermissionError for a path in a local folder that may not be entered."""
    if isinstance(filesystem, LocalFileSystem):
        with suppress(FileNotFoundError, NotADirectoryError):
            os.stat(path)


def _explain_nothing(filesystem: Any, path: str, walk: _Walk) -> str:
    """Return why there is no file, by the first folder of a path that does not exist."""
    folder, is_pattern = walk.top, walk.top != path
    if walk.hidden is not None:
        return f"names that begin with . or _ are left out, as {walk.hidden}: give its own path"
    if is_web(filesystem):
        return "found no file"  # a web server has no folders
    ends = [match.start() for match in re.finditer("/", folder)][folder.startswith("/") :]
    for end in (*ends, len(folder)):
        if folder[:end] and _is_missing(filesystem, folder[:end]):
            _check_permission(filesystem, folder[:end])
            scheme = _ONE_SLASH.search(folder)
            hint = f" (a URL begins with {scheme[1]}://)" if scheme else ""
            return f"found no file: {make_url(filesystem, folder[:end])} does not exist{hint}"
    if not is_pattern:
        return "found no file in that folder"
    literal = re.split(r"[*?]", path)[0].rpartition("/")[0]
    has_brackets = "[" in literal and filesystem.exists(literal)
    hint = f": write [[] for the [ in {make_url(filesystem, literal)}" if has_brackets else ""
    return f"found no file that fits the pattern{hint}"


def _is_below(filesystem: Any, entry: dict[str, Any], output: str | None) -> bool:
    return bool(output) and f"{_resolve_path(filesystem, entry)}/".startswith(f"{output}/")


def _find_table(filesystem: Any, top: str, names: list[str], is_pattern: bool) -> str | None:
    if is_web(filesystem):
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
    url = make_url(filesystem, entry["name"])
    url += listed.removeprefix(find_member(listed))
    if not url.isascii():
        try:
            url.encode()
        except UnicodeEncodeError:
            raise OSError(f"the name {url!r} is not UTF-8: rename the file") from None
    return InputFile(url, int(entry["size"] or 0), find_version(entry), partitions)


_VERSION = "?versionId="
# What a URL is to the local filesystem if one of its slashes is missing.
_ONE_SLASH = re.compile(r"/(s3|gs|gcs|hf|az|abfs|adl|https?|file):/")
# The name of a part, see `Split.part`.
_PART = re.compile(r"part-\d{8}-[0-9a-f]{12}\.parquet")
# At most this many files' folders are checked for the marks of a table.
_CHECKED = 10_000


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
