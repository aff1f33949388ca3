"""Walk the files below a folder or those that fit a pattern, some at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from fsspec.asyn import sync
from fsspec.implementations.local import LocalFileSystem

_WILD = "*?["
_TAKEN = 1000  # objects, as many as S3 lists at a time


def find_roots(filesystem: Any, path: str) -> tuple[str, dict[str, dict[str, Any]]]:
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


def iterate_files(filesystem: Any, root: str, known: dict[str, Any]) -> Iterator[dict[str, Any]]:
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
    if known.get("islink") and not os.path.exists(root):
        yield known
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
