"""Which files a job reads, and in what format."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from .errors import ConfigError
from .storage import absolute, open_filesystem, url_of

_SUFFIXES = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
}
_COMPRESSIONS = (".gz", ".zst")


@dataclass(frozen=True)
class InputFile:
    """size in bytes; version: what changes when the file does (an etag, or a time)."""

    path: str
    size: int
    version: str


def list_files(
    paths: str | list[str],
    format: str,
    options: Mapping[str, Any],
    output: str,
    output_options: Mapping[str, Any] | None = None,
) -> tuple[list[InputFile], str]:
    """The input's files in order, each once, and their format.

    Folders are read recursively, sorted by name; names that start with "." or "_", and whatever
    lies in the output, are left out.
    """
    outside = _real(*open_filesystem(absolute(output), output_options or {}))
    found: dict[str, InputFile] = {}
    for path in [paths] if isinstance(paths, str) else paths:
        for file in _expand(absolute(path), format, options, outside):
            found.setdefault(file.path, file)
    formats = {format_of(file.path) for file in found.values()} if format == "auto" else {format}
    if len(formats) > 1:
        raise ConfigError(
            f"the input mixes formats ({', '.join(sorted(map(str, formats)))}): "
            "name one in input.format, or a narrower input.path"
        )
    return list(found.values()), str(formats.pop())


def format_of(path: str) -> str | None:
    name = path.lower()
    for suffix in _COMPRESSIONS:
        name = name.removesuffix(suffix)
    return next((kind for end, kind in _SUFFIXES.items() if name.endswith(end)), None)


def compression_of(path: str) -> str | None:
    """As fsspec names it."""
    return {".gz": "gzip", ".zst": "zstd"}.get(path[path.rfind(".") :].lower())


def _expand(path: str, format: str, options: Mapping[str, Any], output: str) -> list[InputFile]:
    filesystem, inner = open_filesystem(path, options)
    try:
        named = filesystem.isfile(inner)
        entries = _entries(filesystem, inner)
    except Exception as error:  # every filesystem has exceptions of its own
        raise ConfigError(
            f"can't list the input {path}: {type(error).__name__}: {error}"
        ) from error
    files = []
    for entry in entries:
        url = url_of(filesystem, entry["name"])
        if f"{_real(filesystem, entry['name'])}/".startswith(f"{output.rstrip('/')}/"):
            continue
        if named or format != "auto" or format_of(url):
            files.append(InputFile(url, int(entry["size"] or 0), _version(entry)))
    if not files:
        what = f"{len(entries)} files, none of them" if entries else "no file"
        raise ConfigError(
            f"no input at {path}: found {what} (looked for {', '.join(_SUFFIXES)}, plain or with "
            f"{', '.join(_COMPRESSIONS)})"
        )
    if named and format == "auto" and format_of(files[0].path) is None:
        raise ConfigError(
            f"can't tell the format of {path} from its name: set input.format to parquet or jsonl"
        )
    return files


def _entries(filesystem: Any, path: str) -> list[dict[str, Any]]:
    if filesystem.isfile(path):
        return [filesystem.info(path)]
    if filesystem.isdir(path):
        roots = [path]
    elif any(character in path for character in "*?["):
        roots = sorted(filesystem.glob(path))
    else:
        roots = []
    entries: list[dict[str, Any]] = []
    for root in roots:
        # Locally a folder without permission would be passed over in silence.
        strict = {"on_error": "raise"} if isinstance(filesystem, LocalFileSystem) else {}
        found = filesystem.find(root, detail=True, **strict)
        for name in sorted(found):
            below = name[len(root) :].lstrip("/").split("/")
            if not any(part.startswith((".", "_")) for part in below):
                _check_link(found[name])
                entries.append(found[name])
    return entries


def _check_link(entry: dict[str, Any]) -> None:
    if entry.get("islink") and os.path.isdir(entry["name"]):
        raise OSError(f"{entry['name']} is a link to a folder: name that folder itself")


def _real(filesystem: Any, path: str) -> str:
    """One spelling for one place, however it was reached."""
    if isinstance(filesystem, LocalFileSystem):
        return os.path.realpath(path)
    return filesystem.unstrip_protocol(path)


def _version(entry: dict[str, Any]) -> str:
    for key in ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "created"):
        if entry.get(key):
            return str(entry[key]).strip('"')
    return ""
